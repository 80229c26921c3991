//! The console's driver against a device that takes its time.
#![allow(clippy::unwrap_used)]

use std::rc::Rc;

use proptest::prelude::*;

use super::*;
use crate::testing::console::FakeConsole;
use crate::testing::memory::leak;
use crate::testing::ports::FakePorts;
use crate::testing::ports_with;
use crate::virtio::mmio::{F_VERSION_1, status};

fn start(device: &Rc<FakeConsole>) -> Result<Console<Rc<FakeConsole>>, ConsoleError> {
    Console::init(Rc::clone(device), leak(0x1_0000))
}

fn ports(device: &Rc<FakeConsole>, seed: u64) -> FakePorts {
    ports_with(&[], [Rc::clone(device) as _], seed)
}

#[test]
fn both_queues_are_set_up_and_only_known_features_are_taken() {
    let device = FakeConsole::new(0);
    device.get().features |= 0b111;
    start(&device).unwrap();
    assert_eq!(device.get().accepted, F_VERSION_1 | F_EVENT_IDX);
    assert_eq!(device.get().queue_sizes(), [8, 8]);
}

#[test]
fn a_batch_is_one_chain_and_one_kick_at_the_most() {
    let device = FakeConsole::new(0);
    let ports = ports(&device, 0);
    let mut console = start(&device).unwrap();
    console.send(&ports, &[7; BUFFER_LEN]).unwrap();
    console.finish(&ports).unwrap();
    assert_eq!(device.received(), [7; BUFFER_LEN]);
    assert_eq!(device.counts(), (1, 1));
}

#[test]
fn nothing_to_send_is_no_chain() {
    let device = FakeConsole::new(0);
    let mut console = start(&device).unwrap();
    console.send(&ports(&device, 0), &[]).unwrap();
    assert_eq!(device.counts(), (0, 0));
}

#[test]
fn a_device_of_another_kind_or_without_a_queue_is_refused() {
    let device = FakeConsole::new(0);
    device.get().device_id = 2;
    let error = start(&device).err().unwrap();
    assert_eq!(error, TransportError::DeviceId(2, 3).into());
    let device = FakeConsole::new(0);
    device.get().queue_max = [8, 0];
    assert!(matches!(start(&device), Err(ConsoleError::Ring(_))));
    assert_eq!(device.get().status & status::FAILED, status::FAILED);
}

#[test]
fn a_device_that_fails_ends_the_wait() {
    for fails_at in 0..3 {
        let device = FakeConsole::new(5);
        device.get().fails_at = Some(fails_at);
        let ports = ports(&device, 1);
        let mut console = start(&device).unwrap();
        let sent = console.send(&ports, &[0; 20 * BUFFER_LEN]);
        assert_eq!(sent, Err(ConsoleError::NeedsReset));
    }
}

#[test]
fn a_buffer_that_was_not_offered_is_an_error() {
    for wrong in [5, 7, 8] {
        let device = FakeConsole::new(5);
        device.get().used_id = Some(wrong);
        let ports = ports(&device, 1);
        let mut console = start(&device).unwrap();
        console.send(&ports, b"bytes").unwrap();
        let error = console.finish(&ports).unwrap_err();
        match wrong {
            8 => assert_eq!(error, RingError::UsedId(8, 8).into()),
            _ => assert_eq!(
                error,
                ConsoleError::NotOffered(u16::try_from(wrong).unwrap())
            ),
        }
    }
}

proptest! {
    #[test]
    fn all_that_is_sent_arrives_in_its_order(
        seed in any::<u64>(),
        sizes in prop::collection::vec(0..3 * BUFFER_LEN, 0..30),
        queue_max in 1..300_u32,
        event_idx in any::<bool>(),
    ) {
        let device = FakeConsole::new(seed);
        device.get().queue_max = [queue_max, queue_max];
        if !event_idx {
            device.get().features = F_VERSION_1;
        }
        let ports = ports(&device, seed);
        let mut console = start(&device).unwrap();
        let mut sent = Vec::new();
        for (size, byte) in sizes.into_iter().zip(1_u8..) {
            let bytes = vec![byte; size];
            console.send(&ports, &bytes).unwrap();
            sent.extend_from_slice(&bytes);
        }
        console.finish(&ports).unwrap();
        prop_assert!(console.is_quiet().unwrap());
        prop_assert!(device.received() == sent);
    }
}
