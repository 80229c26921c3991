//! A run from the configuration to the last message, as COM1 shows it.
#![allow(clippy::unwrap_used)]

use std::rc::Rc;

use guest_abi::layout::{CONSOLE_SLOT, INPUT_SLOT, OUTPUT_SLOT};
use guest_protocol::{
    DeviceConfig, Digest, GuestMessage, Message, NO_STATUS, Protocol, Transport, VmmConfig,
    capacity_message, complete_message, complete_with_digest, error_message, init_message,
    progress_message,
};

use super::*;
use guest_kit::testing::Device;
use guest_kit::testing::console::FakeConsole;
use guest_kit::testing::disk::FakeDisk;
use guest_kit::testing::memory::leak;
use guest_kit::testing::ports::FakePorts;
use guest_kit::testing::ports_with;
use guest_kit::testing::program::{attached, decode};
use guest_kit::virtio::block::{F_RO, F_WRITE_ZEROES};
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
    let sectors: Vec<_> = (0..SECTORS).map(|byte| [byte; 512]).collect();
    let source = sectors.into_flattened();
    let disks = [
        FakeDisk::new(source, 512, 3),
        FakeDisk::new(vec![0; 512 * usize::from(SECTORS)], 512, 4),
    ];
    disks[0].get().features = F_VERSION_1 | F_RO;
    disks[1].get().features = F_VERSION_1;
    disks
}

/// A run without a console.
fn start(config: &VmmConfig, disks: &[Rc<FakeDisk>; 2]) -> (u8, FakePorts) {
    let console = FakeConsole::new(0);
    let ended = start_with_console(config, disks, &console);
    assert_eq!(console.get().status, 0, "the console was touched");
    ended
}

fn start_with_console(
    config: &VmmConfig,
    disks: &[Rc<FakeDisk>; 2],
    console: &Rc<FakeConsole>,
) -> (u8, FakePorts) {
    start_with_pool(config, disks, console, &[])
}

/// A run with these bytes in the pool at its start.
fn start_with_pool(
    config: &VmmConfig,
    [input, output]: &[Rc<FakeDisk>; 2],
    console: &Rc<FakeConsole>,
    bytes: &[u8],
) -> (u8, FakePorts) {
    let mut pool = leak(0x10_0000);
    pool.write(0, bytes);
    let message = config.encode_to_vec();
    let len = u16::try_from(message.len()).unwrap().to_le_bytes();
    let devices: [Rc<dyn Device>; 3] = [input.clone(), output.clone(), console.clone()];
    let ports = ports_with(&[&len, &message[..]].concat(), devices, 5);
    let status = run(Parts {
        ports: &ports,
        input: attached(input, INPUT_SLOT),
        output: attached(output, OUTPUT_SLOT),
        console: attached(console, CONSOLE_SLOT),
        pool,
    });
    (status, ports)
}

fn over_console() -> VmmConfig {
    let mut config = config();
    config.transport = Transport::Console.into();
    config
}

fn messages(ports: &FakePorts) -> Vec<GuestMessage> {
    decode(&ports.com1())
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
    assert!(disks.iter().all(|disk| disk.get().most_at_once > 1));
}

#[test]
fn a_digest_that_is_wanted_is_told_at_the_end() {
    let mut config = config();
    config.digest = Digest::Sha256.into();
    config.digest_length = 50 * 512 - 3;
    let mut hasher = Hasher::new(config.digest_length);
    hasher.data(0, &disks()[0].get().data);
    let digest = hasher.finish();
    let (status, ports) = start(&config, &disks());
    let end = complete_with_digest("copy", 50, &digest, 0);
    assert_eq!(messages(&ports).last(), Some(&end));
    assert_eq!(status, EXIT_SUCCESS);
    config.protocol = Protocol::Text.into();
    let text = String::from_utf8(start(&config, &disks()).1.com1()).unwrap();
    let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(text.ends_with(&format!("Copy complete: 50 sectors\nsha256 {digits}\n")));
}

#[test]
fn the_messages_are_the_same_however_requests_are_pipelined() {
    let (_, ports) = start(&config(), &disks());
    let expected = ports.com1();
    let all = [(1024, 3), (512, 0), (512, 1), (65536, 1)];
    let some = if cfg!(miri) { &all[..2] } else { &all };
    for &(request_size, queue_depth) in some {
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

#[test]
fn over_a_console_all_messages_are_the_same_in_the_same_order() {
    let mut config = over_console();
    for protocol in [Protocol::Protobuf, Protocol::Text] {
        config.protocol = protocol.into();
        config.transport = Transport::Serial.into();
        let (_, by_serial) = start(&config, &disks());
        config.transport = Transport::Console.into();
        for seed in 0..if cfg!(miri) { 1 } else { 20 } {
            let (disks, console) = (disks(), FakeConsole::new(seed));
            let (status, ports) = start_with_console(&config, &disks, &console);
            assert_eq!(console.received(), by_serial.com1());
            assert!(ports.com1().is_empty());
            assert_eq!(status, EXIT_SUCCESS);
            assert_eq!(disks[0].get().data, disks[1].get().data);
        }
    }
}

#[test]
fn a_console_that_cannot_be_started_is_reported_over_com1() {
    let (disks, console) = (disks(), FakeConsole::new(0));
    console.get().device_id = 0;
    let (status, ports) = start_with_console(&over_console(), &disks, &console);
    let detail = "cannot use the console: virtio device of type 0 instead of 3";
    let expected = [
        error_message("init", "console", 0, NO_STATUS, detail),
        complete_message("copy", 0, false),
    ];
    assert_eq!(messages(&ports), expected);
    assert_eq!(status, EXIT_FAILURE);
    assert!(disks.iter().all(|disk| disk.get().accesses == 0));
}

#[test]
fn a_console_that_fails_later_makes_the_run_a_failure_and_com1_says_so() {
    let (disks, console) = (disks(), FakeConsole::new(3));
    let mut config = over_console();
    config.request_size = 512;
    console.get().fails_at = Some(1);
    let (status, ports) = start_with_console(&config, &disks, &console);
    let messages = messages(&ports);
    let expected = [
        error_message(
            "report",
            "console",
            0,
            NO_STATUS,
            "the console has failed and needs a reset",
        ),
        complete_message("copy", 50, false),
    ];
    assert_eq!(messages[messages.len() - 2..], expected);
    assert_eq!(status, EXIT_FAILURE);
}

#[test]
fn a_slow_console_with_one_buffer_and_busy_disks_wait_for_each_other_without_a_hang() {
    let sectors = if cfg!(miri) { 200 } else { 20_000 };
    let disks = [0, 1].map(|seed| FakeDisk::new(vec![7; 512 * sectors], 512, seed));
    let console = FakeConsole::new(9);
    console.get().queue_max = [1, 1];
    let (status, _) = start_with_console(&over_console(), &disks, &console);
    let messages = decode(&console.received());
    assert_eq!(messages.len(), 9 + sectors / 10 + 1 + 1);
    assert_eq!(status, EXIT_SUCCESS);
}

#[test]
fn a_list_in_the_pool_says_what_is_read_and_one_that_is_none_is_refused() {
    let run = |bytes: &[u8], len| {
        let (disks, console) = (disks(), FakeConsole::new(0));
        disks[0].get().data[..4096].fill(0);
        disks[0].get().data[3 * 4096..].fill(0);
        disks[1].get().features |= F_WRITE_ZEROES;
        let config = VmmConfig {
            data_in_pool: len,
            ..config()
        };
        let (status, ports) = start_with_pool(&config, &disks, &console, bytes);
        (status, messages(&ports), disks)
    };
    // A unit of hole, two of data.
    let (status, _, disks) = run(&[1, 2], 2);
    assert_eq!(status, EXIT_SUCCESS);
    assert_eq!(disks[0].get().bytes_read, 2 * 4096);
    assert!(disks[0].get().data == disks[1].get().data);
    for (bytes, len) in [(&[0x80][..], 1), (&[1, 2], 0x10_0001), (&[1, 2], u32::MAX)] {
        let (status, messages, _) = run(bytes, len);
        let detail = ConfigError::DataList(len).to_string();
        let error = error_message("config", "vmm", 0, NO_STATUS, &detail);
        assert_eq!(status, EXIT_FAILURE);
        assert!(messages.contains(&error), "{messages:?}");
    }
}
