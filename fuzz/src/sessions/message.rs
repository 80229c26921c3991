//! Bytes to messages of a guest. Words that mean something are favoured, so that a random message
//! gets past the first checks; each field can still hold anything.

use arbitrary::{Result, Unstructured};
use guest_protocol::{
    CheckMessage, FeatureMessage, FindingMessage, GuestMessage, ImageMessage, Payload,
    ProblemMessage, ReferenceMessage, SnapshotMessage, capacity_message, complete_message,
    complete_with_digest, error_message, info_message, init_message, progress_message,
};

/// Formats, reasons, problems, properties, devices and operations, and what is none of them.
const WORDS: [&str; 27] = [
    "qcow2",
    "vmdk",
    "raw",
    "backing-file",
    "bad-checksum",
    "encrypted",
    "marked-dirty",
    "mbr",
    "gpt",
    "zlib",
    "ext4",
    "backing",
    "data",
    "leak",
    "refcount-too-low",
    "copied-flag",
    "overlap",
    "input",
    "output",
    "refused",
    "broken",
    "read",
    "",
    "a\nverdict: safe",
    "\u{202e}efas",
    "two words",
    "x\"y\\",
];

/// The next message.
pub fn take(u: &mut Unstructured<'_>) -> Result<GuestMessage> {
    let mut message = match u.int_in_range(0..=15u8)? {
        0 | 1 => info_message(Payload::Image(image(u)?)),
        2 => info_message(Payload::Reference(ReferenceMessage {
            kind: word(u)?,
            name: name(u)?,
        })),
        3 => info_message(Payload::Snapshot(SnapshotMessage {
            id: name(u)?,
            name: name(u)?,
            seconds: u.arbitrary()?,
            vm_state_size: number(u)?,
            disk_size: Some(number(u)?),
        })),
        4 | 5 => info_message(Payload::Finding(FindingMessage {
            name: word(u)?,
            text: word(u)?,
            broken: u.arbitrary()?,
            allowed: u.arbitrary()?,
            at: number(u)?,
            value: number(u)?,
        })),
        6 => info_message(Payload::Problem(ProblemMessage {
            name: word(u)?,
            at: number(u)?,
            found: number(u)?,
            expected: u.arbitrary()?,
        })),
        7 => info_message(Payload::Check(CheckMessage {
            errors: number(u)?,
            leaks: number(u)?,
            data: number(u)?,
            compressed: number(u)?,
            zero: number(u)?,
            backing: number(u)?,
            lost: number(u)?,
            image_end: number(u)?,
        })),
        8 => init_message(&word(u)?, &word(u)?, number(u)?),
        9 => capacity_message(&word(u)?, number(u)?, number(u)?),
        10 | 11 => progress_message(&word(u)?, number(u)?, number(u)?, u.arbitrary()?),
        12 => error_message(&word(u)?, &word(u)?, number(u)?, status(u)?, &word(u)?),
        13 | 14 => complete_message(&word(u)?, number(u)?, u.arbitrary()?),
        _ => {
            let digest = [0x5a; 40];
            let len = match u.arbitrary::<u8>()? {
                other @ 200.. => usize::from(other) - 200,
                _ => 32,
            };
            complete_with_digest(&word(u)?, number(u)?, &digest[..len.min(40)], number(u)?)
        }
    };
    if u.ratio(1, 16)? {
        message.level = u.arbitrary()?;
    }
    Ok(message)
}

fn image(u: &mut Unstructured<'_>) -> Result<ImageMessage> {
    let mut image = ImageMessage {
        format: word(u)?,
        ..ImageMessage::default()
    };
    // What an image need not have, bit by bit.
    let has: u8 = u.arbitrary()?;
    let has = |bit: u8| has & 1 << bit != 0;
    if has(0) {
        image.fitting = vec![image.format.clone(), word(u)?];
    }
    if has(1) {
        image.variant = word(u)?;
        image.version = Some(u.arbitrary()?);
        image.refcount_bits = Some(u.arbitrary()?);
    }
    if has(2) {
        image.virtual_size = Some(number(u)?);
        image.cluster_size = Some(number(u)?);
    }
    if has(3) {
        image.compression = word(u)?;
        image.encryption = word(u)?;
    }
    if has(4) {
        for _ in 0..u.int_in_range(0..=8u8)? {
            image.features.push(FeatureMessage {
                kind: u.int_in_range(0..=3)?,
                bit: u.arbitrary()?,
                name: word(u)?,
            });
        }
    }
    if has(5) {
        image.snapshots = u.arbitrary()?;
        image.log_replayed = true;
    }
    if has(6) {
        image.partitions = word(u)?;
        image.file_system = word(u)?;
    }
    Ok(image)
}

fn word(u: &mut Unstructured<'_>) -> Result<String> {
    let choice = u.int_in_range(0..=31u8)?;
    Ok(match WORDS.get(usize::from(choice)) {
        Some(word) => (*word).to_owned(),
        None => u.arbitrary::<&str>()?.to_owned(),
    })
}

/// A word, or bytes that need be no text, sometimes more of them than a name may have.
fn name(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    if u.arbitrary()? {
        return Ok(word(u)?.into_bytes());
    }
    let len = u.int_in_range(0..=64)?.min(u.len());
    let mut name = u.bytes(len)?.to_vec();
    if u.ratio(1, 16)? {
        name = name.repeat(64);
    }
    Ok(name)
}

fn number(u: &mut Unstructured<'_>) -> Result<u64> {
    Ok(match u.arbitrary::<u8>()? {
        255 => u.arbitrary()?,
        small => small.into(),
    })
}

fn status(u: &mut Unstructured<'_>) -> Result<u32> {
    Ok(match u.arbitrary::<u8>()? {
        254 => u.arbitrary()?,
        status => status.into(),
    })
}
