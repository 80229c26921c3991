//! Whole runs over disks in the tests' own memory.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

use std::rc::Rc;

use guest_abi::layout::INPUT_SLOT;
use guest_kit::testing::disk::FakeDisk;
use guest_kit::testing::memory::leak;
use guest_kit::testing::ports_with;
use guest_kit::testing::program::{attached, decode};
use guest_protocol::{
    CheckMessage, FeatureKind, GuestMessage, HEADER_LEN, InspectConfig, Level, MAX_MESSAGE_LEN,
    Payload, ProblemMessage, encode_framed,
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
        image: attached(&disk, INPUT_SLOT),
        pool: leak(1 << 20),
    });
    (decode(&ports.com1()), status)
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
    let newer = qcow2(|image| image[7] = 9);
    for image in [raw, newer] {
        let (messages, status) = look(&image, &message(InspectTask::Check, &image), None);
        assert_eq!(status, EXIT_SUCCESS);
        assert!(!findings(&messages).is_empty());
        assert_eq!(checked(&messages), None);
        assert_counted(&messages, "check", true);
    }
}

/// What the check has found, if there was one.
fn checked(messages: &[GuestMessage]) -> Option<CheckMessage> {
    messages.iter().find_map(|message| match &message.payload {
        Some(Payload::Check(check)) => Some(*check),
        _ => None,
    })
}

fn problems(messages: &[GuestMessage]) -> Vec<ProblemMessage> {
    let problem = |message: &GuestMessage| match &message.payload {
        Some(Payload::Problem(problem)) => Some(problem.clone()),
        _ => None,
    };
    messages.iter().filter_map(problem).collect()
}

#[test]
#[cfg_attr(
    miri,
    ignore = "it counts on clusters of 64 KiB, which have 512 bytes under Miri"
)]
fn what_says_nothing_of_the_tables_does_not_stand_in_the_way_of_a_check() {
    let over_another = qcow2(|image| {
        image[8..16].copy_from_slice(&128_u64.to_be_bytes());
        image[16..20].copy_from_slice(&4_u32.to_be_bytes());
        image[128..132].copy_from_slice(b"base");
    });
    let (messages, _) = look(
        &over_another,
        &message(InspectTask::Check, &over_another),
        None,
    );
    assert_eq!(findings(&messages), ["backing-file"]);
    assert!(checked(&messages).is_some());
    // What is encrypted in a way that nobody knows may have tables that nobody knows.
    for (method, reason) in [(1, "encrypted"), (7, "unknown-feature")] {
        let image = qcow2(|image| image[35] = method);
        let (messages, _) = look(&image, &message(InspectTask::Check, &image), None);
        assert_eq!(findings(&messages), [reason]);
        assert_eq!(checked(&messages).is_some(), method == 1);
    }
    // What does stand in the way may be allowed.
    let image = qcow2(|_| {});
    let mut config = message(InspectTask::Check, &image);
    config.largest_disk = (1 << 20) - 1;
    for allowed in [false, true] {
        config.allowed = allowed
            .then(|| "virtual-size-too-large".to_owned())
            .into_iter()
            .collect();
        let (messages, _) = look(&image, &config, None);
        assert_eq!(findings(&messages), ["virtual-size-too-large"]);
        assert_eq!(checked(&messages).is_some(), allowed);
    }
}

#[test]
#[cfg_attr(
    miri,
    ignore = "it counts on clusters of 64 KiB, which have 512 bytes under Miri"
)]
fn what_a_check_finds_is_told_one_by_one() {
    // A refcount that is too large, and an entry that leads nowhere.
    let image = qcow2(|image| {
        image[0x2_0000..0x2_0002].copy_from_slice(&2_u16.to_be_bytes());
        image[0x3_0000..0x3_0008].copy_from_slice(&0x7777_0000_u64.to_be_bytes());
    });
    let (messages, _) = look(&image, &message(InspectTask::Check, &image), None);
    let problems = problems(&messages);
    let [entry, leak] = &problems[..] else {
        panic!("{messages:?}");
    };
    assert_eq!((entry.at, entry.expected), (0x3_0000, None));
    assert_eq!((leak.found, leak.expected), (2, Some(1)));
    assert_ne!(entry.name, leak.name);
}

/// A VDI of a block of 4096 bytes for each of `entries`, with room for two in its file.
fn vdi(entries: &[u32]) -> Vec<u8> {
    let mut image = vec![0xff; 1024];
    image[..512].fill(0);
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"<<< Oracle VM VirtualBox Disk Image >>>\n");
    let count = entries.len() as u32;
    for (at, value) in [
        (64, 0xbeda_107f),
        (68, 0x1_0001),
        (72, 0x190),
        (76, 1),
        (340, 512),
        (344, 1024),
        (360, 512),
        (368, 4096 * count),
        (376, 4096),
        (384, count),
        (388, 2),
    ] {
        put(at, &u32::to_le_bytes(value));
    }
    for (index, entry) in entries.iter().enumerate() {
        put(512 + 4 * index, &entry.to_le_bytes());
    }
    image.resize(1024 + 2 * 4096, 7);
    image
}

#[test]
fn the_tables_of_other_formats_are_checked_as_well() {
    const HOLE: u32 = u32::MAX;
    let sound = vdi(&[1, HOLE, 0]);
    let (messages, status) = look(&sound, &message(InspectTask::Check, &sound), None);
    let check = checked(&messages).unwrap();
    assert_eq!((status, check.errors, check.data), (EXIT_SUCCESS, 0, 8192));
    assert!(problems(&messages).is_empty() && findings(&messages).is_empty());
    let twice = vdi(&[1, 1, 0]);
    let (messages, status) = look(&twice, &message(InspectTask::Check, &twice), None);
    let check = checked(&messages).unwrap();
    assert_eq!((status, check.errors), (EXIT_SUCCESS, 1));
    let problems = problems(&messages);
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].expected, None);
}

/// An image with so many snapshots, each with an id of two digits and a name of `name` bytes.
fn with_snapshots(count: u32, name: u16) -> Vec<u8> {
    let mut image = qcow2(|image| {
        image[60..64].copy_from_slice(&count.to_be_bytes());
        image[64..72].copy_from_slice(&0x4_0000_u64.to_be_bytes());
    });
    for number in 0..count {
        let mut entry = vec![0; 40];
        entry[..8].copy_from_slice(&0x3_0000_u64.to_be_bytes());
        entry[8..12].copy_from_slice(&1_u32.to_be_bytes());
        entry[12..14].copy_from_slice(&2_u16.to_be_bytes());
        entry[14..16].copy_from_slice(&name.to_be_bytes());
        entry[16..20].copy_from_slice(&(1000 + number).to_be_bytes());
        entry[32..36].copy_from_slice(&5000_u32.to_be_bytes());
        entry.extend(format!("{:02}", number % 100).bytes());
        entry.extend(b"name");
        entry.resize(48, 0);
        image.extend(entry);
    }
    image
}

#[test]
#[cfg_attr(
    miri,
    ignore = "it counts on clusters of 64 KiB, which have 512 bytes under Miri"
)]
fn snapshots_are_described_unless_they_are_very_many() {
    for (count, told) in [(1, 1), (256, 256), (300, 256)] {
        let image = with_snapshots(count, 4);
        let (messages, status) = look(&image, &message(InspectTask::Info, &image), None);
        assert_eq!(status, EXIT_SUCCESS);
        let Some(Payload::Image(said)) = &messages[0].payload else {
            panic!("{messages:?}");
        };
        assert_eq!(said.snapshots, count);
        let snapshots: Vec<_> = messages
            .iter()
            .filter_map(|message| match &message.payload {
                Some(Payload::Snapshot(snapshot)) => Some(snapshot),
                _ => None,
            })
            .collect();
        assert_eq!(snapshots.len(), told);
        let last = snapshots[told - 1];
        let number = told as u32 - 1;
        assert_eq!(last.id, format!("{:02}", number % 100).as_bytes());
        assert_eq!(last.name, b"name");
        assert_eq!((last.seconds, last.vm_state_size), (1000 + number, 5000));
    }
}

#[test]
fn a_table_of_snapshots_that_cannot_be_read_is_told_once() {
    let image = with_snapshots(3, 60_000);
    let (messages, status) = look(&image, &message(InspectTask::Info, &image), None);
    assert_eq!(status, EXIT_SUCCESS);
    assert_eq!(findings(&messages).len(), 1, "{messages:?}");
    assert_counted(&messages, "info", true);
}

#[test]
fn names_and_features_are_those_of_the_header() {
    let image = qcow2(|image| {
        image[7] = 3;
        image[87] = 1;
        image[96..100].copy_from_slice(&4_u32.to_be_bytes());
        image[100..104].copy_from_slice(&104_u32.to_be_bytes());
    });
    let (messages, _) = look(&image, &message(InspectTask::Info, &image), None);
    let Some(Payload::Image(said)) = &messages[0].payload else {
        panic!("{messages:?}");
    };
    assert_eq!(
        (said.compression.as_str(), said.encryption.as_str()),
        ("zlib", "")
    );
    let [feature] = &said.features[..] else {
        panic!("{said:?}");
    };
    assert_eq!(feature.kind, i32::from(FeatureKind::Compatible));
    assert_eq!((feature.bit, feature.name.as_str()), (0, "lazy-refcounts"));
}

#[test]
fn what_breaks_the_format_is_told_apart_from_what_is_refused() {
    let whether_broken = |image: &[u8]| {
        let (messages, _) = look(image, &message(InspectTask::Info, image), None);
        messages.iter().find_map(|message| match &message.payload {
            Some(Payload::Finding(finding)) => Some(finding.broken),
            _ => None,
        })
    };
    assert_eq!(whether_broken(&qcow2(|image| image[7] = 9)), Some(false));
    assert_eq!(whether_broken(b"QFI\xfb\0\0\0\x03"), Some(true));
}

#[test]
#[cfg_attr(
    miri,
    ignore = "it counts on clusters of 64 KiB, which have 512 bytes under Miri"
)]
fn a_sector_that_a_check_cannot_read_is_named() {
    let image = qcow2(|_| {});
    let config = message(InspectTask::Check, &image);
    let (messages, status) = look(&image, &config, Some(0x2_0000));
    assert_eq!(status, EXIT_FAILURE);
    let error = messages.iter().find_map(|message| match &message.payload {
        Some(Payload::Error(error)) => Some((error.op.as_str(), error.sector)),
        _ => None,
    });
    assert_eq!(error, Some(("read", 0x2_0000 / 512)));
    assert_counted(&messages, "check", false);
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
