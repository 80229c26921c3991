//! What honest guests say of an image, of a conversion, and of a copy with a digest, as inputs.

use guest_protocol::{
    CheckMessage, FeatureMessage, FindingMessage, GuestMessage, ImageMessage, NO_STATUS, Payload,
    ProblemMessage, ReferenceMessage, SnapshotMessage, capacity_message, complete_message,
    complete_with_digest, error_message, info_message, init_message, progress_message,
};

use super::super::encoder::Encoder;
use super::super::framed;
use super::{Heard, SECTORS, SHA256};

/// The first byte of an input: which session it is, and whether a digest is wanted.
const INFO: u8 = 0;
const CHECK: u8 = 1;
const CONVERT: u8 = 2;
const COPY: u8 = 3;
const DIGEST: u8 = 4;

/// A session of messages, and what comes of it.
pub struct Session {
    /// Of its file.
    pub name: &'static str,
    /// The input.
    pub bytes: Vec<u8>,
    /// What the host hears.
    pub heard: Heard,
}

/// All of them.
pub fn sessions() -> Vec<Session> {
    let (digest, other) = ([7; SHA256], [7; SHA256 - 1]);
    let mut converted = opened();
    converted.push(progress_message("convert", 2, 4, 50));
    let mut with_digest = converted.clone();
    converted.push(complete_message("convert", 4, true));
    with_digest.push(complete_with_digest("convert", 4, &digest, 1000));
    let refused = vec![
        init_message("config", "com1", 0x3f8),
        error_message("refused", "input", 0, NO_STATUS, "encrypted: key\nneeded"),
        complete_message("convert", 0, false),
    ];
    let copied = [complete_with_digest("copy", SECTORS, &digest, 5)];
    let wrong = [complete_with_digest("copy", SECTORS, &other, 5)];
    vec![
        session("info", INFO, &said(plain(), &[]), &[], (true, 5)),
        session(
            "info-rich",
            INFO,
            &said(rich(), &of_info()),
            &[40],
            (true, 22),
        ),
        session(
            "check",
            CHECK,
            &said(rich(), &of_check()),
            &[7, 90],
            (true, 32),
        ),
        session("check-nothing", CHECK, &said(plain(), &[]), &[0], (true, 6)),
        session("converted", CONVERT, &converted, &[9], (true, 6)),
        session(
            "converted-digest",
            CONVERT | DIGEST,
            &with_digest,
            &[],
            (true, 6),
        ),
        session("refused", CONVERT, &refused, &[30], (false, 3)),
        session("copied-digest", COPY | DIGEST, &copied, &[1], (true, 1)),
        session("wrong-digest", COPY | DIGEST, &wrong, &[], (false, 0)),
    ]
}

fn session(
    name: &'static str,
    setup: u8,
    messages: &[GuestMessage],
    cuts: &[u64],
    (whole, shown): (bool, usize),
) -> Session {
    let mut bytes = Encoder::default();
    bytes.byte(setup);
    framed::encode_cuts(&mut bytes, cuts);
    framed::encode_stream(&mut bytes, &framed::frames(messages));
    Session {
        name,
        bytes: bytes.finish(),
        heard: Heard { whole, shown },
    }
}

/// An image and what is said of it, with a completion that counts all of that.
fn said(image: ImageMessage, more: &[Payload]) -> Vec<GuestMessage> {
    let payloads = [&[Payload::Image(image)], more].concat();
    let count = payloads.len() as u64;
    let mut messages: Vec<_> = payloads.into_iter().map(info_message).collect();
    messages.push(complete_message("info", count, true));
    messages
}

fn plain() -> ImageMessage {
    ImageMessage {
        format: "raw".to_owned(),
        fitting: vec!["raw".to_owned()],
        ..ImageMessage::default()
    }
}

fn rich() -> ImageMessage {
    let feature = |kind, bit, name: &str| FeatureMessage {
        kind,
        bit,
        name: name.to_owned(),
    };
    ImageMessage {
        format: "qcow2".to_owned(),
        fitting: vec!["qcow2".to_owned(), "iso".to_owned()],
        variant: "v3".to_owned(),
        version: Some(3),
        virtual_size: Some(5 << 30),
        cluster_size: Some(65536),
        compression: "zlib".to_owned(),
        refcount_bits: Some(16),
        features: vec![
            feature(0, 0, "dirty"),
            feature(1, 0, "lazy-refcounts"),
            feature(2, 40, ""),
        ],
        encryption: "luks".to_owned(),
        snapshots: 3,
        log_replayed: true,
        partitions: "gpt".to_owned(),
        file_system: String::new(),
    }
}

fn of_info() -> Vec<Payload> {
    vec![
        Payload::Reference(ReferenceMessage {
            kind: "backing".to_owned(),
            name: b"/etc/passwd\nverdict: safe".to_vec(),
        }),
        // The name of a file need not be UTF-8, and is cut within a letter here.
        Payload::Reference(ReferenceMessage {
            kind: "data".to_owned(),
            name: b"caf\xc3\xa9/\xe2\x82\xff\xfe.img\xf0\x9f\x98".to_vec(),
        }),
        Payload::Snapshot(SnapshotMessage {
            id: b"1\x80".to_vec(),
            name: b"one \x1b[2J\xff".to_vec(),
            seconds: 1_700_000_000,
            vm_state_size: 1 << 20,
            disk_size: Some(5 << 30),
        }),
        Payload::Finding(finding("backing-file", true)),
    ]
}

fn of_check() -> Vec<Payload> {
    let problem = |name: &str, expected| {
        Payload::Problem(ProblemMessage {
            name: name.to_owned(),
            at: 65536,
            found: 0,
            expected,
        })
    };
    vec![
        Payload::Finding(finding("encrypted", false)),
        problem("refcount-too-low", Some(1)),
        problem("leak", Some(0)),
        problem("copied-flag", None),
        problem("overlap", None),
        problem("beyond-end", None),
        Payload::Check(CheckMessage {
            errors: 2,
            leaks: 5,
            data: 131_072,
            compressed: 65536,
            zero: 4096,
            backing: 8192,
            lost: 512,
            image_end: 1 << 20,
        }),
    ]
}

fn finding(name: &str, allowed: bool) -> FindingMessage {
    FindingMessage {
        name: name.to_owned(),
        text: "the image says so".to_owned(),
        allowed,
        at: 8,
        value: 1,
        ..FindingMessage::default()
    }
}

/// The start of a conversion of 2000 bytes.
fn opened() -> Vec<GuestMessage> {
    vec![
        init_message("config", "com1", 0x3f8),
        init_message("queue", "input", 256),
        capacity_message("input", 4, 2000),
        capacity_message("output", 0, 2000),
    ]
}
