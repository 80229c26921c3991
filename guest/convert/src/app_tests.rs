//! A run from the configuration to the last message, as COM1 shows it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

use std::rc::Rc;

use guest_abi::layout::{INPUT_SLOT, OUTPUT_SLOT, registers};
use guest_kit::digest::Hasher;
use guest_kit::testing::Device;
use guest_kit::testing::disk::FakeDisk;
use guest_kit::testing::memory::leak;
use guest_kit::testing::ports::FakePorts;
use guest_kit::testing::ports_with;
use guest_kit::testing::program::{attached, decode};
use guest_kit::virtio::block::{F_BLK_SIZE, F_RO, F_SIZE_MAX, F_WRITE_ZEROES};
use guest_kit::virtio::mmio::F_VERSION_1;
use guest_protocol::{
    ConvertConfig, Digest, ErrorMessage, GuestMessage, Message, NO_STATUS, Payload,
    complete_with_digest, error_message, progress_message,
};
use guest_protocol::{capacity_message, complete_message, init_message};

use super::*;

const CLUSTER: u64 = 65536;

/// The disks of a run: the input, the backing files and the output.
struct Machine {
    sources: Vec<Rc<FakeDisk>>,
    output: Rc<FakeDisk>,
}

/// A machine whose input and backing files are `files`, and whose output has `room` bytes.
fn machine(files: &[&[u8]], room: usize) -> Machine {
    let disk = |bytes: &[u8], seed| {
        let mut data = bytes.to_vec();
        data.resize(bytes.len().next_multiple_of(512), 0xaa);
        let disk = FakeDisk::new(data, 512, seed);
        disk.get().features = F_VERSION_1 | F_RO;
        disk
    };
    let output = FakeDisk::new(vec![0xee; room], 512, 9);
    output.get().features = F_VERSION_1 | F_WRITE_ZEROES;
    Machine {
        sources: (0..)
            .zip(files)
            .map(|(seed, file)| disk(file, seed))
            .collect(),
        output,
    }
}

impl Machine {
    /// Runs the program with this configuration. Returns its exit status.
    fn run(&self, config: &ConvertConfig) -> (u8, FakePorts) {
        let message = config.encode_to_vec();
        let len = u16::try_from(message.len()).unwrap().to_le_bytes();
        let mut devices: Vec<Rc<dyn Device>> = vec![self.output.clone()];
        devices.extend(self.sources.iter().map(|disk| Rc::clone(disk) as _));
        let ports = ports_with(&[&len, &message[..]].concat(), devices, 3);
        let status = run(Parts {
            ports: &ports,
            input: attached(&self.sources[0], INPUT_SLOT),
            output: attached(&self.output, OUTPUT_SLOT),
            pool: leak(1 << 20),
            others: |slot| {
                let disk: &Rc<FakeDisk> = &self.sources[1 + slot - BACKING_SLOT];
                attached(disk, slot)
            },
        });
        (status, ports)
    }

    /// The same, and the messages that came by COM1.
    fn messages(&self, config: &ConvertConfig) -> (u8, Vec<GuestMessage>) {
        let (status, ports) = self.run(config);
        (status, decode(&ports.com1()))
    }

    /// Runs it, and checks that it fails at once after having said what `message` says. Returns what
    /// the message has besides.
    fn refused(&self, config: &ConvertConfig, message: GuestMessage) -> ErrorMessage {
        let (status, messages) = self.messages(config);
        assert_eq!(status, EXIT_FAILURE, "{messages:?}");
        let [.., said, end] = &messages[..] else {
            panic!("{messages:?}");
        };
        assert_eq!(*end, complete_message("convert", 0, false));
        let (Some(Payload::Error(said)), Some(Payload::Error(expected))) =
            (&said.payload, message.payload)
        else {
            panic!("{messages:?}");
        };
        let plain = ErrorMessage {
            number: 0,
            remedies: Vec::new(),
            ..said.clone()
        };
        assert_eq!(plain, expected);
        said.clone()
    }
}

/// That a raw input of `length` bytes is wanted in this format.
fn raw(length: usize, output_format: ConvertFormat) -> ConvertConfig {
    ConvertConfig {
        input_length: length as u64,
        input_format: "raw".to_string(),
        output_format: output_format.into(),
        progress_percent: 50,
        largest_disk: 1 << 30,
        digest: Digest::Sha256.into(),
        ..ConvertConfig::default()
    }
}

fn digest_of(bytes: &[u8]) -> [u8; LEN] {
    let mut hasher = Hasher::new(bytes.len() as u64);
    hasher.data(0, bytes);
    hasher.finish()
}

/// Twenty sectors and a bit, none of them zero.
fn disk() -> Vec<u8> {
    (0..20 * 512 + 100_u32)
        .map(|at| (at % 251) as u8 + 1)
        .collect()
}

/// A qcow2 image of a disk of two clusters, both of which are those of a backing file.
fn overlay() -> Vec<u8> {
    let mut image = vec![0; 5 * 65536];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb");
    put(4, &2_u32.to_be_bytes());
    put(8, &128_u64.to_be_bytes());
    put(16, &4_u32.to_be_bytes());
    put(20, &16_u32.to_be_bytes());
    put(24, &(2 * CLUSTER).to_be_bytes());
    put(36, &1_u32.to_be_bytes());
    put(40, &0x3_0000_u64.to_be_bytes());
    put(48, &0x1_0000_u64.to_be_bytes());
    put(56, &1_u32.to_be_bytes());
    put(128, b"base");
    put(0x1_0000, &0x2_0000_u64.to_be_bytes());
    for cluster in 0..5 {
        put(0x2_0000 + 2 * cluster, &1_u16.to_be_bytes());
    }
    put(0x3_0000, &(1_u64 << 63 | 0x4_0000).to_be_bytes());
    image
}

#[test]
fn a_conversion_says_what_it_does_and_has_the_digest_of_the_disk() {
    let disk = disk();
    let machine = machine(&[&disk], 1 << 20);
    let (status, messages) = machine.messages(&raw(disk.len(), ConvertFormat::Raw));
    let expected = [
        init_message("config", "vmm", 0x3f8),
        init_message("probe", "input", registers(INPUT_SLOT)),
        init_message("features", "input", F_VERSION_1 | F_RO),
        init_message("queue", "input", 256),
        init_message("probe", "output", registers(OUTPUT_SLOT)),
        init_message("features", "output", F_VERSION_1 | F_WRITE_ZEROES),
        init_message("queue", "output", 256),
        capacity_message("input", 21, 20 * 512 + 100),
        capacity_message("output", 21, 20 * 512 + 100),
        progress_message("convert", 11, 21, 52),
        progress_message("convert", 21, 21, 100),
        complete_with_digest("convert", 21, &digest_of(&disk), 0),
    ];
    assert_eq!(messages, expected);
    assert_eq!(status, EXIT_SUCCESS);
    let written = &machine.output.get().data;
    assert!(written[..disk.len()] == disk);
    assert!(written[21 * 512..].iter().all(|&byte| byte == 0xee));
}

#[test]
fn the_length_of_an_image_is_told_once_it_is_known_and_no_digest_unless_it_is_wanted() {
    let disk = disk();
    let config = ConvertConfig {
        digest: Digest::None.into(),
        progress_percent: 100,
        ..raw(disk.len(), ConvertFormat::Qcow2)
    };
    let machine = machine(&[&disk], 1 << 20);
    let (status, messages) = machine.messages(&config);
    // The header, a refcount table and a block, an L1 and an L2 table, and the data.
    let expected = [
        capacity_message("input", 21, 20 * 512 + 100),
        capacity_message("output", 6 * CLUSTER / 512, 6 * CLUSTER),
        complete_message("convert", 21, true),
    ];
    assert_eq!(messages[7..], expected);
    assert_eq!(status, EXIT_SUCCESS);
    assert_eq!(machine.output.get().data[..4], *b"QFI\xfb");
}

#[test]
fn a_disk_is_put_together_from_all_files_and_each_is_named_by_its_number() {
    let (first, second) = (overlay(), overlay());
    let base: Vec<u8> = disk().repeat(13)[..2 * 65536 - 700].to_vec();
    let config = ConvertConfig {
        input_format: String::new(),
        backing_lengths: vec![second.len() as u64, base.len() as u64],
        allow: vec!["unknown-format".to_string()],
        ..raw(first.len(), ConvertFormat::Raw)
    };
    let files: [&[u8]; 3] = [&first, &second, &base];
    let whole = machine(&files, 1 << 20);
    let (status, _) = whole.run(&config);
    assert_eq!(status, EXIT_SUCCESS);
    let written = &whole.output.get().data;
    assert!(written[..base.len()] == base);
    assert!(written[base.len()..2 * 65536].iter().all(|&byte| byte == 0));
    for number in 0..2_u32 {
        let machine = machine(&files, 1 << 20);
        machine.sources[1 + number as usize].get().bad.insert(600);
        let (status, messages) = machine.messages(&config);
        assert_eq!(status, EXIT_FAILURE);
        let error = messages.iter().find_map(|message| match &message.payload {
            Some(Payload::Error(error)) => Some(error),
            _ => None,
        });
        let error = error.unwrap_or_else(|| panic!("{messages:?}"));
        assert_eq!(
            (error.op.as_str(), error.device.as_str(), error.number),
            ("read", "backing", number)
        );
    }
}

#[test]
fn a_backing_file_that_is_no_image_is_refused_by_its_number() {
    let (first, second) = (overlay(), overlay());
    let mut broken = second.clone();
    broken[7] = 99;
    for (number, files) in [[&broken, &second], [&second, &broken]].iter().enumerate() {
        let config = ConvertConfig {
            input_format: String::new(),
            backing_lengths: files.iter().map(|file| file.len() as u64).collect(),
            ..raw(first.len(), ConvertFormat::Raw)
        };
        let machine = machine(&[&first, files[0], files[1]], 1 << 20);
        let (_, messages) = machine.messages(&config);
        let [.., said, end] = &messages[..] else {
            panic!("{messages:?}");
        };
        let Some(Payload::Error(error)) = &said.payload else {
            panic!("{messages:?}");
        };
        assert_eq!(
            (error.device.as_str(), error.number),
            ("backing", number as u32)
        );
        assert_eq!(*end, complete_message("convert", 0, false));
    }
}

#[test]
fn a_raw_output_has_to_have_room_for_the_disk_and_an_image_may_be_shorter() {
    let mut disk = disk();
    disk.resize(200_192, 0);
    let config = raw(disk.len(), ConvertFormat::Raw);
    let small = machine(&[&disk], 199_680);
    let expected = error_message(
        "room",
        "output",
        391,
        NO_STATUS,
        "the output needs 200192 bytes",
    );
    let said = small.refused(&config, expected);
    assert_eq!(said.remedies, [""; 0]);
    assert!(small.output.get().changes.is_empty());
    let exact = machine(&[&disk], 200_192);
    assert_eq!(exact.run(&config).0, EXIT_SUCCESS);
    // A disk of 64 MiB of nothing makes an image of a few clusters.
    let mut empty = overlay();
    empty[8..16].fill(0);
    empty[24..32].copy_from_slice(&(64_u64 << 20).to_be_bytes());
    let config = ConvertConfig {
        input_format: String::new(),
        ..raw(empty.len(), ConvertFormat::Qcow2)
    };
    let image = machine(&[&empty], 1 << 20);
    assert_eq!(image.run(&config).0, EXIT_SUCCESS);
}

#[test]
fn a_raw_output_may_not_be_longer_than_the_limit_and_how_to_raise_it_is_said() {
    let disk = disk();
    let limited = |limit: usize, format| ConvertConfig {
        largest_disk: limit as u64,
        ..raw(disk.len(), format)
    };
    let exact = machine(&[&disk], 1 << 20);
    let (status, _) = exact.run(&limited(disk.len(), ConvertFormat::Raw));
    assert_eq!(status, EXIT_SUCCESS);
    let longer = machine(&[&disk], 1 << 20);
    let (status, messages) = longer.messages(&limited(disk.len() - 1, ConvertFormat::Raw));
    assert_eq!(status, EXIT_FAILURE);
    let errors: Vec<_> = messages
        .iter()
        .filter_map(|message| match &message.payload {
            Some(Payload::Error(error)) => Some(error),
            _ => None,
        })
        .collect();
    let [error] = errors[..] else {
        panic!("{messages:?}");
    };
    assert_eq!(
        (error.op.as_str(), error.device.as_str()),
        ("refused", "input")
    );
    assert_eq!(error.remedies, [Reason::VirtualSize.name()]);
    // Nor if the image may be as large as it likes.
    let allowing = ConvertConfig {
        allow: vec![Reason::VirtualSize.name().to_string()],
        ..limited(disk.len() - 1, ConvertFormat::Raw)
    };
    let (_, messages) = machine(&[&disk], 1 << 20).messages(&allowing);
    assert!(messages.iter().any(|message| matches!(
        &message.payload,
        Some(Payload::Error(said)) if said.op == error.op && said.remedies == error.remedies
    )));
    assert!(longer.output.get().changes.is_empty());
    // An image is longer than so small a disk.
    let image = machine(&[&disk], 1 << 20);
    let (_, messages) = image.messages(&limited(100_000, ConvertFormat::Qcow2));
    assert!(messages.iter().any(|message| matches!(
        &message.payload,
        Some(Payload::Error(error)) if error.op == "room" && error.device == "output"
    )));
}

/// Both disks are refused with this `detail` after this change.
fn refuse_disks(change: impl Fn(&FakeDisk), detail: &str) {
    let disk = disk();
    for is_output in [false, true] {
        let machine = machine(&[&disk], 1 << 20);
        let (device, name) = match is_output {
            false => (&machine.sources[0], "input"),
            true => (&machine.output, "output"),
        };
        change(device);
        let expected = error_message("init", name, 0, NO_STATUS, detail);
        machine.refused(&raw(disk.len(), ConvertFormat::Raw), expected);
    }
}

#[test]
fn a_disk_of_other_sectors_is_refused() {
    let change = |device: &FakeDisk| {
        device.get().features |= F_BLK_SIZE;
        device.get().sector_size = 4096;
    };
    refuse_disks(
        change,
        "the disk has sectors of another size than 512 bytes",
    );
}

#[test]
fn a_disk_that_takes_less_than_a_conversion_asks_for_is_refused() {
    refuse_disks(
        |device| device.get().queue_max = 128,
        "the disk takes 42 requests of 4294967295 bytes at once; 85 of 131072 are needed",
    );
    let change = |device: &FakeDisk| {
        device.get().features |= F_SIZE_MAX;
        device.get().size_max = 65536;
    };
    refuse_disks(
        change,
        "the disk takes 85 requests of 65536 bytes at once; 85 of 131072 are needed",
    );
}

#[test]
fn a_configuration_that_cannot_be_used_is_refused_before_a_disk_is_touched() {
    let machine = machine(&[&disk()], 1 << 20);
    let config = ConvertConfig {
        input_format: "tape".to_string(),
        ..ConvertConfig::default()
    };
    let expected = error_message("config", "vmm", 0, NO_STATUS, "format tape is not known");
    machine.refused(&config, expected);
    assert_eq!(machine.sources[0].get().accesses, 0);
    assert_eq!(machine.output.get().accesses, 0);
}
