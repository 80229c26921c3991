//! A run from the configuration to the last message, as COM1 shows it.
#![allow(clippy::unwrap_used)]

use std::rc::Rc;

use guest_abi::layout::{INPUT_MMIO, OUTPUT_MMIO};
use guest_protocol::{
    DeviceConfig, FrameDecoder, GuestMessage, Message, Protocol, VmmConfig, capacity_message,
    complete_message, error_message, init_message, progress_message,
};

use super::*;
use guest_kit::testing::disk::FakeDisk;
use guest_kit::testing::memory::leak;
use guest_kit::testing::ports::FakePorts;
use guest_kit::testing::ports_with;
use guest_kit::virtio::block::F_RO;
use guest_kit::virtio::mmio::F_VERSION_1;

const SECTORS: u8 = 50;

fn config() -> VmmConfig {
    let device = |name: &str| DeviceConfig {
        name: name.to_string(),
        sector_size: 512,
    };
    VmmConfig {
        devices: vec![device("input"), device("output")],
        request_size: 2048,
        ..VmmConfig::default()
    }
}

fn disks() -> [Rc<FakeDisk>; 2] {
    let source = (0..SECTORS).flat_map(|byte| [byte; 512]).collect();
    let disks = [
        FakeDisk::new(source, 512, 3),
        FakeDisk::new(vec![0; 512 * usize::from(SECTORS)], 512, 4),
    ];
    disks[0].get().features = F_VERSION_1 | F_RO;
    disks[1].get().features = F_VERSION_1;
    disks
}

fn start(config: &VmmConfig, [input, output]: &[Rc<FakeDisk>; 2]) -> (u8, FakePorts) {
    let message = config.encode_to_vec();
    let len = u16::try_from(message.len()).unwrap().to_le_bytes();
    let ports = ports_with(&[&len, &message[..]].concat(), [input, output], 5);
    let attached = |disk: &Rc<FakeDisk>, address| Attached {
        registers: Rc::clone(disk),
        address,
        queue: leak(0x1_0000),
    };
    let status = run(Parts {
        ports: &ports,
        input: attached(input, INPUT_MMIO),
        output: attached(output, OUTPUT_MMIO),
        pool: leak(0x10_0000),
    });
    (status, ports)
}

fn messages(ports: &FakePorts) -> Vec<GuestMessage> {
    let mut messages = Vec::new();
    let mut decoder = FrameDecoder::new();
    decoder
        .push(&ports.com1(), |message| messages.push(message))
        .unwrap();
    assert!(!decoder.is_mid_frame());
    messages
}

#[test]
fn a_copy_says_what_the_reference_shows() {
    let disks = disks();
    let (status, ports) = start(&config(), &disks);
    let mut expected = vec![
        init_message("config", "vmm", 0x3f8),
        init_message("probe", "input", 0x1000_0000),
        init_message("features", "input", 0x1_0000_0020),
        init_message("queue", "input", 0x100),
        capacity_message("input", 50, 25600),
        init_message("probe", "output", 0x1000_1000),
        init_message("features", "output", 0x1_0000_0000),
        init_message("queue", "output", 0x100),
        capacity_message("output", 50, 25600),
    ];
    for (current, percent) in [(1, 2), (11, 22), (21, 42), (31, 62), (41, 82), (50, 100)] {
        expected.push(progress_message("copy", current, 50, percent));
    }
    expected.push(complete_message("copy", 50, true));
    assert_eq!(messages(&ports), expected);
    assert_eq!(status, EXIT_SUCCESS);
    assert_eq!(disks[0].get().data, disks[1].get().data);
}

#[test]
fn the_messages_are_the_same_however_requests_are_pipelined() {
    let (_, ports) = start(&config(), &disks());
    let expected = ports.com1();
    for (request_size, queue_depth) in [(512, 1), (512, 0), (65536, 1), (1024, 3)] {
        let mut config = config();
        config.request_size = request_size;
        config.queue_depth = queue_depth;
        let (_, ports) = start(&config, &disks());
        assert_eq!(ports.com1(), expected);
    }
}

#[test]
fn text_says_the_same_in_lines() {
    let mut config = config();
    config.protocol = Protocol::Text.into();
    config.progress_percent = 50;
    let disks = disks();
    disks[1].get().bad.insert(512 * 30);
    let (status, ports) = start(&config, &disks);
    let expected = "Input: 50 sectors (25600 bytes)\nOutput: 50 sectors (25600 bytes)\n\
        Progress: 25/50\nWrite error at sector 30\nCopy failed after 30 sectors\n";
    assert_eq!(String::from_utf8(ports.com1()).unwrap(), expected);
    assert_eq!(status, EXIT_FAILURE);
}

#[test]
fn a_disk_that_disagrees_with_the_configuration_is_named() {
    let disks = disks();
    disks[0].get().features |= guest_kit::virtio::block::F_BLK_SIZE;
    disks[0].get().sector_size = 4096;
    let (status, ports) = start(&config(), &disks);
    let detail = "the input disk has sectors of 4096 bytes, but the configuration says 512";
    let messages = messages(&ports);
    let expected = [
        error_message("init", "input", 0, NO_STATUS, detail),
        complete_message("copy", 0, false),
    ];
    assert_eq!(messages[messages.len() - 2..], expected);
    assert_eq!(status, EXIT_FAILURE);
}

#[test]
fn a_configuration_that_cannot_be_used_is_refused_before_a_disk_is_touched() {
    let disks = disks();
    let mut config = config();
    config.devices[1].sector_size = 1000;
    let (status, ports) = start(&config, &disks);
    let detail = "sector size 1000 of the output disk is not a power of two from 512 to 65536";
    let expected = [
        error_message("config", "vmm", 0, NO_STATUS, detail),
        complete_message("copy", 0, false),
    ];
    assert_eq!(messages(&ports), expected);
    assert_eq!(status, EXIT_FAILURE);
    assert!(disks.iter().all(|disk| disk.get().accesses == 0));
}

#[test]
fn empty_disks_are_copied_without_a_word_of_progress() {
    let disks = [0, 1].map(|seed| FakeDisk::new(Vec::new(), 512, seed));
    let (status, ports) = start(&config(), &disks);
    let messages = messages(&ports);
    assert_eq!(messages.len(), 10);
    assert_eq!(messages[9], complete_message("copy", 0, true));
    assert_eq!(status, EXIT_SUCCESS);
}
