//! Whole runs over disks in the tests' own memory.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

use std::rc::Rc;

use guest_abi::layout::QUEUE_SIZE;
use guest_kit::testing::disk::FakeDisk;
use guest_kit::testing::memory::leak;
use guest_kit::testing::ports_with;
use guest_protocol::{
    FrameDecoder, GuestMessage, HEADER_LEN, InspectConfig, Level, Payload, encode_framed,
};

use super::*;

/// A table of references as long as a cluster is looked through: Miri gets the shortest there is.
const CLUSTER: usize = if cfg!(miri) { 512 } else { 65536 };
/// The size of the disk in the image.
const SIZE: u64 = 16 * CLUSTER as u64;

/// A qcow2 image of version 2 with one L1 entry, a refcount table with one block, and `change`s.
fn qcow2(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut image = vec![0; 4 * CLUSTER];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb");
    put(4, &2_u32.to_be_bytes());
    put(20, &CLUSTER.ilog2().to_be_bytes());
    put(24, &SIZE.to_be_bytes());
    put(36, &1_u32.to_be_bytes());
    put(40, &(3 * CLUSTER as u64).to_be_bytes());
    put(48, &(CLUSTER as u64).to_be_bytes());
    put(56, &1_u32.to_be_bytes());
    put(CLUSTER, &(2 * CLUSTER as u64).to_be_bytes());
    for cluster in 0..4 {
        put(2 * CLUSTER + 2 * cluster, &1_u16.to_be_bytes());
    }
    change(&mut image);
    image
}

fn configuration(message: &InspectConfig) -> Vec<u8> {
    let mut frame = vec![0; HEADER_LEN + MAX_MESSAGE_LEN];
    let len = encode_framed(message, &mut frame).unwrap();
    frame.truncate(len);
    frame
}

/// What is said of `image`, and the exit status.
fn look(image: &[u8], message: &InspectConfig, bad: Option<u64>) -> (Vec<GuestMessage>, u8) {
    let mut data = image.to_vec();
    data.resize(image.len().next_multiple_of(512), 0);
    let disk = FakeDisk::new(data, 512, 1);
    disk.get().bad.extend(bad);
    let ports = ports_with(&configuration(message), [Rc::clone(&disk) as _], 1);
    let status = run(Parts {
        ports: &ports,
        image: Attached {
            registers: Rc::clone(&disk),
            address: 0,
            queue: leak(QUEUE_SIZE as usize),
        },
        pool: leak(1 << 20),
    });
    let (mut decoder, mut messages) = (FrameDecoder::new(), Vec::new());
    decoder
        .push(&ports.com1(), |message| messages.push(message))
        .unwrap();
    assert!(!decoder.is_mid_frame());
    (messages, status)
}

fn message(task: InspectTask, image: &[u8]) -> InspectConfig {
    InspectConfig {
        task: task.into(),
        length: image.len() as u64,
        ..InspectConfig::default()
    }
}

fn findings(messages: &[GuestMessage]) -> Vec<&str> {
    let name = |message: &'_ GuestMessage| match &message.payload {
        Some(Payload::Finding(finding)) => Some(finding.name.clone()),
        _ => None,
    };
    let names: Vec<_> = messages.iter().filter_map(name).collect();
    names.into_iter().map(|name| &*name.leak()).collect()
}

/// That the last message counts those before it.
fn assert_counted(messages: &[GuestMessage], operation: &str, success: bool) {
    let (last, rest) = messages.split_last().unwrap();
    let Some(Payload::Complete(complete)) = &last.payload else {
        panic!("no completion: {last:?}");
    };
    assert_eq!(last.level, i32::from(Level::Complete));
    assert_eq!(complete.op, operation);
    assert_eq!(
        (complete.count, complete.success),
        (rest.len() as u64, success)
    );
}

#[test]
fn an_image_is_described_and_what_was_said_is_counted() {
    let image = qcow2(|_| {});
    let (messages, status) = look(&image, &message(InspectTask::Info, &image), None);
    assert_eq!(status, EXIT_SUCCESS);
    let Some(Payload::Image(said)) = &messages[0].payload else {
        panic!("{messages:?}");
    };
    assert_eq!((said.format.as_str(), said.version), ("qcow2", Some(2)));
    assert_eq!(said.virtual_size, Some(SIZE));
    assert!(findings(&messages).is_empty());
    assert_counted(&messages, "info", true);
}

#[test]
fn a_name_in_the_image_is_told_as_its_bytes_and_refused_unless_allowed() {
    let image = qcow2(|image| {
        image[8..16].copy_from_slice(&128_u64.to_be_bytes());
        image[16..20].copy_from_slice(&4_u32.to_be_bytes());
        image[128..132].copy_from_slice(b"\x1b\n\xff/");
    });
    let mut config = message(InspectTask::Info, &image);
    for allowed in [false, true] {
        config.allowed = allowed
            .then(|| "backing-file".to_owned())
            .into_iter()
            .collect();
        let (messages, status) = look(&image, &config, None);
        assert_eq!(status, EXIT_SUCCESS);
        assert!(messages.iter().any(|message| matches!(
            &message.payload,
            Some(Payload::Reference(reference)) if reference.name == b"\x1b\n\xff/"
        )));
        assert!(messages.iter().any(|message| matches!(
            &message.payload,
            Some(Payload::Finding(finding))
                if finding.name == "backing-file" && finding.allowed == allowed
        )));
    }
}

#[test]
fn a_check_tells_leaks_and_errors_apart() {
    for (at, value, errors, leaks) in [(0, 1_u16, 0, 0), (0, 2, 0, 1), (6, 0, 1, 0)] {
        let image = qcow2(|image| {
            let at = 2 * CLUSTER + at;
            image[at..at + 2].copy_from_slice(&value.to_be_bytes());
        });
        let (messages, status) = look(&image, &message(InspectTask::Check, &image), None);
        assert_eq!(status, EXIT_SUCCESS);
        let check = messages.iter().find_map(|message| match &message.payload {
            Some(Payload::Check(check)) => Some((check.errors, check.leaks)),
            _ => None,
        });
        assert_eq!(check, Some((errors, leaks)));
        assert_counted(&messages, "check", true);
    }
}

#[test]
fn what_cannot_be_checked_gets_no_check() {
    let raw = vec![0; 4096];
    let encrypted = qcow2(|image| image[35] = 7);
    let newer = qcow2(|image| image[7] = 9);
    for image in [raw, newer, encrypted] {
        let (messages, status) = look(&image, &message(InspectTask::Check, &image), None);
        assert_eq!(status, EXIT_SUCCESS);
        assert!(!findings(&messages).is_empty());
        assert_counted(&messages, "check", true);
    }
}

#[test]
fn an_image_that_ends_within_a_sector_ends_there() {
    let image = b"QFI\xfb\0\0\0\x03".to_vec();
    let (messages, _) = look(&image, &message(InspectTask::Info, &image), None);
    assert_eq!(findings(&messages), ["truncated"]);
}

#[test]
fn a_disk_that_cannot_be_read_is_a_failure_and_says_where() {
    let image = qcow2(|_| {});
    let (messages, status) = look(&image, &message(InspectTask::Info, &image), Some(0));
    assert_eq!(status, EXIT_FAILURE);
    let error = messages.iter().find_map(|message| match &message.payload {
        Some(Payload::Error(error)) => Some(error),
        _ => None,
    });
    let error = error.unwrap();
    assert_eq!((error.op.as_str(), error.sector), ("read", 0));
    assert_counted(&messages, "info", false);
}

#[test]
fn a_configuration_that_is_not_understood_touches_no_disk() {
    let image = qcow2(|_| {});
    let mut config = message(InspectTask::Info, &image);
    config.format = "qcow9".to_owned();
    let (messages, status) = look(&image, &config, None);
    assert_eq!(status, EXIT_FAILURE);
    assert!(messages.iter().any(|message| matches!(
        &message.payload,
        Some(Payload::Error(error)) if error.op == "config" && error.detail.contains("qcow9")
    )));
}
