//! The register state machine, rule by rule, over a device that only remembers what it was told
//! (virtio 1.2, sections 3.1 and 4.2.2).
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, Ordering};

use virtio_queue::QueueT;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;
use crate::virtio::testing::{
    AVAIL_RING, DESC_TABLE, Driver, EVENT_IDX, MEMORY_SIZE, USED_RING, VERSION_1, memory,
};
use crate::virtio::{ActivateError, NotificationLine, Notifier};

const FEATURES: u64 = VERSION_1 | EVENT_IDX | 1;
const CONFIG: [u8; 6] = [1, 2, 3, 4, 5, 6];

/// What the device was told, in order.
#[derive(Debug, PartialEq, Eq)]
enum Call {
    Activate(u64, Vec<(bool, u16, bool)>),
    Stop(usize),
    Reset,
    WriteConfig(usize, Vec<u8>),
}

/// A device with two queues.
struct Fake {
    events: [EventFd; 2],
    notifier: Notifier,
    calls: Mutex<Vec<Call>>,
    refuses: AtomicBool,
}

impl VirtioDevice for Fake {
    fn device_type(&self) -> u32 {
        3
    }

    fn device_features(&self) -> u64 {
        FEATURES
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &[16, 4]
    }

    fn queue_events(&self) -> &[EventFd] {
        &self.events
    }

    fn notifier(&self) -> &Notifier {
        &self.notifier
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let bytes = CONFIG.get(offset..).unwrap_or_default();
        data.iter_mut()
            .zip(bytes)
            .for_each(|(to, from)| *to = *from);
    }

    fn write_config(&self, offset: usize, data: &[u8]) {
        self.call(Call::WriteConfig(offset, data.to_vec()));
    }

    fn config_generation(&self) -> u32 {
        7
    }

    fn activate(&self, driver_features: u64, queues: Vec<Queue>) -> Result<(), ActivateError> {
        let queues = queues
            .iter()
            .map(|queue| (queue.ready(), queue.size(), queue.event_idx_enabled()));
        self.call(Call::Activate(driver_features, queues.collect()));
        if self.refuses.load(Ordering::SeqCst) {
            return Err(ActivateError::QueueNotReady(0));
        }
        Ok(())
    }

    fn stop_queue(&self, index: usize) {
        self.call(Call::Stop(index));
    }

    fn reset(&self) {
        self.notifier.reset();
        self.call(Call::Reset);
    }

    fn in_flight(&self) -> bool {
        false
    }
}

impl Fake {
    fn call(&self, call: Call) {
        self.calls.lock().unwrap().push(call);
    }

    fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    fn activations(&self) -> usize {
        let calls = self.take_calls();
        calls
            .iter()
            .filter(|call| matches!(call, Call::Activate(..)))
            .count()
    }
}

fn setup() -> (Arc<Fake>, Driver) {
    let event = || EventFd::new(EFD_NONBLOCK).unwrap();
    let device = Arc::new(Fake {
        events: [event(), event()],
        notifier: Notifier::new(Arc::new(NotificationLine::new().unwrap())),
        calls: Mutex::default(),
        refuses: AtomicBool::new(false),
    });
    let driver = Driver::new(device.clone(), memory());
    (device, driver)
}

fn start(driver: &Driver) {
    driver.negotiate(FEATURES);
    driver.set_queue(8, DESC_TABLE, AVAIL_RING, USED_RING);
    driver.write(reg::VIRTIO_MMIO_STATUS, 0xf);
}

#[test]
fn the_device_identifies_itself() {
    let (_, driver) = setup();
    assert_eq!(driver.read(0).to_le_bytes(), *b"virt");
    assert_eq!(driver.read(4), 2);
    assert_eq!(driver.read(8), 3);
    assert_ne!(driver.read(0xc), 0, "a vendor");
    assert_eq!(driver.read(0xfc), 7);
}

#[test]
fn features_are_read_in_two_words_and_there_is_no_third() {
    let (_, driver) = setup();
    for (select, word) in [(0, 1 | 1 << 29), (1, 1), (2, 0), (u32::MAX, 0)] {
        driver.write(reg::VIRTIO_MMIO_DEVICE_FEATURES_SEL, select);
        assert_eq!(driver.read(reg::VIRTIO_MMIO_DEVICE_FEATURES), word);
    }
}

#[test]
fn a_driver_that_follows_the_sequence_gets_a_running_device() {
    let (device, driver) = setup();
    start(&driver);
    assert_eq!(driver.status(), 0xf);
    let queues = vec![(true, 8, true), (false, 4, false)];
    let calls = device.take_calls();
    assert_eq!(calls, [Call::Reset, Call::Activate(FEATURES, queues)]);
}

#[test]
fn several_status_bits_may_be_set_in_one_store() {
    let (_, driver) = setup();
    driver.write(reg::VIRTIO_MMIO_STATUS, 3);
    assert_eq!(driver.status(), 3);
}

#[test]
fn a_status_bit_is_not_set_before_those_that_come_first() {
    let (device, driver) = setup();
    for status in [2, 4, 8, 0xc, 0xe] {
        driver.write(reg::VIRTIO_MMIO_STATUS, status);
        assert_eq!(driver.status(), 0, "{status:#x}");
    }
    driver.write(reg::VIRTIO_MMIO_STATUS, 3);
    driver.write(reg::VIRTIO_MMIO_STATUS, 7);
    assert_eq!(driver.status(), 3);
    assert_eq!(device.activations(), 0);
}

#[test]
fn status_bits_are_cleared_by_a_reset_alone() {
    let (_, driver) = setup();
    start(&driver);
    for status in [1, 3, 0xb, 0x100, 0x1_0000, 0x10f] {
        driver.write(reg::VIRTIO_MMIO_STATUS, status);
        assert_eq!(driver.status(), 0xf, "{status:#x}");
    }
    driver.write(reg::VIRTIO_MMIO_STATUS, 0);
    assert_eq!(driver.status(), 0);
}

#[test]
fn a_status_with_a_bit_that_no_driver_may_set_is_ignored_as_a_whole() {
    let (_, driver) = setup();
    for status in [0x11, 0x21, 0x101, 0x8000_0001, 0x103, 0x181] {
        driver.write(reg::VIRTIO_MMIO_STATUS, status);
        assert_eq!(driver.status(), 0, "{status:#x}");
    }
}

#[test]
fn failed_is_recorded_and_ends_the_initialisation() {
    let (device, driver) = setup();
    driver.negotiate(FEATURES);
    driver.write(reg::VIRTIO_MMIO_STATUS, 0x80);
    assert_eq!(driver.status(), 0x8b);
    driver.write(reg::VIRTIO_MMIO_STATUS, 0x8f);
    assert_eq!(driver.status(), 0x8b);
    assert_eq!(device.activations(), 0);
}

#[test]
fn features_that_were_not_offered_and_a_missing_version_1_leave_features_ok_clear() {
    let (_, driver) = setup();
    for features in [VERSION_1 | 2, VERSION_1 | 1 << 63, 0, 1, EVENT_IDX] {
        assert_eq!(driver.negotiate(features), 3, "{features:#x}");
    }
    assert_eq!(driver.negotiate(VERSION_1), 0xb);
}

#[test]
fn a_driver_may_try_other_features_after_a_refusal() {
    let (_, driver) = setup();
    assert_eq!(driver.negotiate(VERSION_1 | 2), 3);
    driver.write(reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
    driver.write(reg::VIRTIO_MMIO_DRIVER_FEATURES, 1);
    driver.write(reg::VIRTIO_MMIO_STATUS, 0xb);
    assert_eq!(driver.status(), 0xb);
}

#[test]
fn a_device_knows_how_far_its_driver_has_come() {
    let (device, driver) = setup();
    let unfinished = || ActivateError::unfinished(device.notifier.driver_status());
    assert_eq!(unfinished(), None, "not begun");
    for status in [1, 3] {
        driver.write(0x70, status);
        assert_eq!(unfinished(), Some(ActivateError::Unfinished { status }));
    }
    start(&driver);
    assert_eq!(unfinished(), None, "started");
    driver.write(0x70, 0);
    assert_eq!(unfinished(), None, "not begun again");
}

#[test]
fn features_are_taken_only_between_driver_and_features_ok() {
    let (device, driver) = setup();
    driver.write(reg::VIRTIO_MMIO_DRIVER_FEATURES, 1);
    driver.negotiate(VERSION_1);
    driver.write(reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
    driver.write(reg::VIRTIO_MMIO_DRIVER_FEATURES, 1);
    driver.write(reg::VIRTIO_MMIO_STATUS, 0xf);
    let activated = |call: &Call| matches!(call, Call::Activate(VERSION_1, _));
    assert!(device.take_calls().iter().any(activated));
}

#[test]
fn a_third_word_of_driver_features_is_ignored() {
    let (_, driver) = setup();
    driver.negotiate(VERSION_1 | 2);
    driver.write(reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
    driver.write(reg::VIRTIO_MMIO_DRIVER_FEATURES, 0);
    driver.write(reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL, 2);
    driver.write(reg::VIRTIO_MMIO_DRIVER_FEATURES, u32::MAX);
    driver.write(reg::VIRTIO_MMIO_STATUS, 0xb);
    assert_eq!(driver.status(), 0xb);
}

#[test]
fn queue_registers_are_taken_only_between_features_ok_and_driver_ok() {
    let (device, driver) = setup();
    driver.set_queue(8, DESC_TABLE, AVAIL_RING, USED_RING);
    assert_eq!(driver.read(reg::VIRTIO_MMIO_QUEUE_READY), 0);

    start(&driver);
    device.take_calls();
    driver.write(reg::VIRTIO_MMIO_QUEUE_SEL, 1);
    driver.write(reg::VIRTIO_MMIO_QUEUE_READY, 1);
    assert_eq!(driver.read(reg::VIRTIO_MMIO_QUEUE_READY), 0);
}

#[test]
fn a_queue_that_is_ready_keeps_its_registers() {
    let (device, driver) = setup();
    driver.negotiate(FEATURES);
    driver.set_queue(8, DESC_TABLE, AVAIL_RING, USED_RING);
    driver.set_queue(3, 1, 2, 3);
    assert_eq!(driver.read(reg::VIRTIO_MMIO_QUEUE_READY), 1);
    driver.write(reg::VIRTIO_MMIO_STATUS, 0xf);
    assert_eq!(driver.status(), 0xf);
    assert_eq!(device.activations(), 1);
}

#[test]
fn a_queue_that_is_out_of_range_reads_zero_and_ignores_writes() {
    let (device, driver) = setup();
    driver.negotiate(FEATURES);
    for select in [2, 0xffff, 0x1_0000, u32::MAX] {
        driver.write(reg::VIRTIO_MMIO_QUEUE_SEL, select);
        assert_eq!(driver.read(reg::VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
        driver.write(reg::VIRTIO_MMIO_QUEUE_NUM, 4);
        driver.write(reg::VIRTIO_MMIO_QUEUE_READY, 1);
        driver.write(reg::VIRTIO_MMIO_QUEUE_READY, 0);
        assert_eq!(driver.read(reg::VIRTIO_MMIO_QUEUE_READY), 0);
    }
    assert!(
        !device
            .take_calls()
            .iter()
            .any(|call| matches!(call, Call::Stop(_)))
    );
    driver.write(reg::VIRTIO_MMIO_QUEUE_SEL, 1);
    assert_eq!(driver.read(reg::VIRTIO_MMIO_QUEUE_NUM_MAX), 4);
}

#[test]
fn queue_ready_is_one_or_zero_and_nothing_else() {
    let (_, driver) = setup();
    driver.negotiate(FEATURES);
    for value in [2, 3, 0x1_0001, u32::MAX] {
        driver.write(reg::VIRTIO_MMIO_QUEUE_READY, value);
        assert_eq!(driver.read(reg::VIRTIO_MMIO_QUEUE_READY), 0);
    }
}

#[test]
fn queue_ready_zero_stops_that_queue_and_then_reads_zero() {
    let (device, driver) = setup();
    start(&driver);
    device.take_calls();
    driver.write(reg::VIRTIO_MMIO_QUEUE_READY, 0);
    assert_eq!(device.take_calls(), [Call::Stop(0)]);
    assert_eq!(driver.read(reg::VIRTIO_MMIO_QUEUE_READY), 0);
}

#[test]
fn a_queue_that_cannot_be_used_stops_the_device_from_starting() {
    for (size, desc, avail, used) in [
        (0x1_0008, DESC_TABLE, AVAIL_RING, USED_RING),
        (0, DESC_TABLE, AVAIL_RING, USED_RING),
        (3, DESC_TABLE, AVAIL_RING, USED_RING),
        (32, DESC_TABLE, AVAIL_RING, USED_RING),
        (8, DESC_TABLE + 8, AVAIL_RING, USED_RING),
        (8, DESC_TABLE, AVAIL_RING + 1, USED_RING),
        (8, DESC_TABLE, AVAIL_RING, USED_RING + 2),
        (8, MEMORY_SIZE, AVAIL_RING, USED_RING),
        (8, DESC_TABLE, MEMORY_SIZE - 2, USED_RING),
        (8, DESC_TABLE, AVAIL_RING, u64::MAX - 3),
        (8, DESC_TABLE, AVAIL_RING, DESC_TABLE),
        (8, DESC_TABLE | 1 << 32, AVAIL_RING, USED_RING),
        (8, DESC_TABLE, AVAIL_RING | 1 << 32, USED_RING),
        (8, DESC_TABLE, AVAIL_RING, USED_RING | 1 << 32),
    ] {
        let (device, driver) = setup();
        driver.negotiate(FEATURES);
        driver.set_queue(size, desc, avail, used);
        driver.write(reg::VIRTIO_MMIO_STATUS, 0xf);
        assert_eq!(
            driver.status(),
            0x4f,
            "{size:#x} {desc:#x} {avail:#x} {used:#x}"
        );
        assert_eq!(driver.read(reg::VIRTIO_MMIO_INTERRUPT_STATUS), 2);
        assert_eq!(device.activations(), 0);
    }
}

#[test]
fn a_device_that_refuses_to_start_needs_a_reset_and_works_after_it() {
    let (device, driver) = setup();
    device.refuses.store(true, Ordering::SeqCst);
    start(&driver);
    assert_eq!(driver.status(), 0x4f);
    device.refuses.store(false, Ordering::SeqCst);
    start(&driver);
    assert_eq!(driver.status(), 0xf);
}

#[test]
fn the_driver_neither_sets_nor_clears_needs_reset() {
    let (device, driver) = setup();
    start(&driver);
    driver.write(reg::VIRTIO_MMIO_STATUS, 0x4f);
    assert_eq!(driver.status(), 0xf);
    device.notifier.set_needs_reset();
    driver.write(reg::VIRTIO_MMIO_STATUS, 0xf);
    assert_eq!(driver.status(), 0x4f);
}

#[test]
fn a_reset_forgets_everything_that_the_driver_wrote() {
    let (device, driver) = setup();
    start(&driver);
    device.notifier.signal_used();
    driver.write(reg::VIRTIO_MMIO_QUEUE_SEL, 1);
    driver.write(reg::VIRTIO_MMIO_STATUS, 0);
    assert_eq!(device.take_calls().last(), Some(&Call::Reset));
    assert_eq!(driver.read(reg::VIRTIO_MMIO_QUEUE_NUM_MAX), 16);
    assert_eq!(driver.read(reg::VIRTIO_MMIO_QUEUE_READY), 0);
    assert_eq!(driver.read(reg::VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    driver.write(reg::VIRTIO_MMIO_STATUS, 3);
    driver.write(reg::VIRTIO_MMIO_STATUS, 0xb);
    assert_eq!(driver.status(), 3, "features are kept over a reset");
}

#[test]
fn a_notification_reaches_its_queue_and_no_other() {
    let (device, driver) = setup();
    start(&driver);
    driver.write(reg::VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    assert!(device.events[0].read().is_err());
    assert_eq!(device.events[1].read().unwrap(), 1);
    for queue in [2, 0x1_0000, u32::MAX] {
        driver.write(reg::VIRTIO_MMIO_QUEUE_NOTIFY, queue);
    }
    assert!(device.events[0].read().is_err());
    assert!(device.events[1].read().is_err());
}

#[test]
fn a_notification_before_driver_ok_is_ignored() {
    let (device, driver) = setup();
    driver.negotiate(FEATURES);
    driver.write(reg::VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    assert!(device.events[0].read().is_err());
}

#[test]
fn interrupts_are_acknowledged_bit_by_bit() {
    let (device, driver) = setup();
    device.notifier.signal_used();
    device.notifier.signal_config();
    assert_eq!(driver.read(reg::VIRTIO_MMIO_INTERRUPT_STATUS), 3);
    driver.write(reg::VIRTIO_MMIO_INTERRUPT_ACK, 0xffff_fffe);
    assert_eq!(driver.read(reg::VIRTIO_MMIO_INTERRUPT_STATUS), 1);
}

#[test]
fn a_read_that_is_not_a_whole_register_gives_zeros() {
    let (_, driver) = setup();
    for (offset, size) in [
        (0, 1),
        (0, 2),
        (0, 8),
        (1, 4),
        (2, 4),
        (0, 0),
        (0, 16),
        (0xfc, 8),
    ] {
        let mut data = vec![0xaa; size];
        driver
            .transport
            .mmio_read(MmioAddress(0), offset, &mut data);
        assert_eq!(data, vec![0; size], "{size} bytes at {offset:#x}");
    }
}

#[test]
fn undefined_and_write_only_registers_read_zero() {
    let (_, driver) = setup();
    start(&driver);
    for offset in [
        0x18, 0x1c, 0x20, 0x24, 0x30, 0x38, 0x40, 0x50, 0x64, 0x80, 0xa4, 0xc0,
    ] {
        assert_eq!(driver.read(offset), 0, "{offset:#x}");
    }
}

#[test]
fn there_is_no_shared_memory() {
    let (_, driver) = setup();
    for offset in [0xb0, 0xb4, 0xb8, 0xbc] {
        assert_eq!(driver.read(offset), u32::MAX);
    }
}

#[test]
fn a_write_that_is_not_a_whole_register_changes_nothing() {
    let (device, driver) = setup();
    start(&driver);
    for (offset, size) in [
        (0x70, 1),
        (0x70, 2),
        (0x70, 8),
        (0x71, 4),
        (0x6c, 8),
        (0x70, 0),
    ] {
        driver
            .transport
            .mmio_write(MmioAddress(0), offset, &vec![0; size]);
    }
    assert_eq!(driver.status(), 0xf);
    assert_eq!(device.activations(), 1);
}

#[test]
fn the_configuration_space_is_read_in_1_2_4_and_8_bytes() {
    let (_, driver) = setup();
    for (offset, expected) in [
        (0x100, &[1][..]),
        (0x101, &[2, 3]),
        (0x102, &[3, 4, 5, 6]),
        (0x100, &[1, 2, 3, 4, 5, 6, 0, 0]),
        (0x100, &[0, 0, 0]),
        (0x105, &[6, 0]),
        (0xfff, &[0]),
        (u64::MAX, &[0, 0, 0, 0]),
    ] {
        let mut data = vec![0xaa; expected.len()];
        driver
            .transport
            .mmio_read(MmioAddress(0), offset, &mut data);
        assert_eq!(data, expected, "{offset:#x}");
    }
}

#[test]
fn writes_to_the_configuration_space_reach_the_device() {
    let (device, driver) = setup();
    driver.transport.mmio_write(MmioAddress(0), 0x104, &[9, 8]);
    driver
        .transport
        .mmio_write(MmioAddress(0), 0x104, &[9, 8, 7]);
    assert_eq!(device.take_calls(), [Call::WriteConfig(4, vec![9, 8])]);
}
