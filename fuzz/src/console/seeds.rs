//! Sessions of an honest driver and reader as inputs.

use virtio_bindings::virtio_mmio as reg;

use super::writer::{Session, Writer};

const RECEIVE: u8 = 0;
const TRANSMIT: u8 = 0x80;
const STOPPED: u8 = 1;

/// All of them.
pub fn sessions() -> Vec<Session> {
    vec![
        probe(),
        transmit("transmit", None),
        transmit("transmit-indirect", Some(3)),
        slow_reader(),
        no_reader(),
        receive(),
        both(),
        restart(),
    ]
}

/// Looks at the registers that a driver reads, and starts the console step by step.
fn probe() -> Session {
    let mut w = Writer::new(STOPPED);
    for register in [
        reg::VIRTIO_MMIO_MAGIC_VALUE,
        reg::VIRTIO_MMIO_VERSION,
        reg::VIRTIO_MMIO_DEVICE_ID,
        reg::VIRTIO_MMIO_CONFIG,
    ] {
        w.read_register(register);
    }
    for queue in [0, 1] {
        w.write_register(reg::VIRTIO_MMIO_QUEUE_SEL, queue);
        w.read_register(reg::VIRTIO_MMIO_QUEUE_NUM_MAX);
    }
    w.start(3, [4, 4]);
    w.chain(TRANSMIT, &[(0, 10)], None);
    w.notify(TRANSMIT);
    w.take(300);
    w.write_register(reg::VIRTIO_MMIO_INTERRUPT_ACK, 1);
    w.write_register(reg::VIRTIO_MMIO_STATUS, 0);
    w.end("probe", 10, 0, 1)
}

/// Buffers of several parts, one of them empty.
fn transmit(name: &'static str, indirect: Option<u64>) -> Session {
    let mut w = Writer::new(0);
    for _ in 0..3 {
        w.chain(TRANSMIT, &[(0, 50), (1, 0), (2, 70)], indirect);
        w.notify(TRANSMIT);
        w.take(300);
    }
    w.end(name, 360, 0, 3)
}

/// More than there is room for.
fn slow_reader() -> Session {
    let mut w = Writer::new(0);
    for _ in 0..3 {
        w.chain(TRANSMIT, &[(0, 400), (3, 300)], None);
    }
    w.notify(TRANSMIT);
    for _ in 0..8 {
        w.take(300);
        w.work(TRANSMIT);
    }
    w.end("slow-reader", 2100, 0, 3)
}

/// A reader that goes away while it is waited for.
fn no_reader() -> Session {
    let mut w = Writer::new(0);
    w.chain(TRANSMIT, &[(0, 400), (3, 300)], None);
    w.notify(TRANSMIT);
    w.expect(None);
    w.work(TRANSMIT);
    w.chain(TRANSMIT, &[(0, 400)], None);
    w.notify(TRANSMIT);
    w.end("no-reader", 0, 0, 2)
}

/// Input before a buffer, after it, more than fits into one, and the end of it.
fn receive() -> Session {
    let mut w = Writer::new(0);
    w.expect(Some(true));
    w.send(30);
    w.chain(RECEIVE, &[(0, 100)], None);
    w.notify(RECEIVE);
    w.chain(RECEIVE, &[(1, 10), (2, 5)], None);
    w.chain(RECEIVE, &[(3, 200)], Some(0));
    w.notify(RECEIVE);
    w.send(100);
    w.work(RECEIVE);
    w.expect(Some(false));
    w.end("receive", 0, 130, 3)
}

/// Both directions, with the event index, while the driver's processor helps.
fn both() -> Session {
    let mut w = Writer::new(STOPPED);
    w.start(2, [3, 5]);
    for round in 0..4 {
        w.chain(TRANSMIT, &[(round, 200)], None);
        w.chain(RECEIVE, &[(8 + round, 40)], None);
        w.send(40);
        w.notify(TRANSMIT);
        w.notify(RECEIVE);
        w.help_and_leave();
        w.take(200);
    }
    w.end("both", 800, 160, 8)
}

/// A reset between two halves of a buffer.
fn restart() -> Session {
    let mut w = Writer::new(0);
    w.chain(TRANSMIT, &[(0, 400), (1, 400)], None);
    w.notify(TRANSMIT);
    w.take(300);
    w.start(0, [2, 2]);
    w.chain(TRANSMIT, &[(0, 20)], None);
    w.notify(TRANSMIT);
    w.take(300);
    w.end("restart", 532, 0, 1)
}
