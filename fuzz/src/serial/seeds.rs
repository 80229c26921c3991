//! Sessions of an honest guest as inputs: what a copy says on COM1, debug text, and the registers
//! of a UART as the guest's driver uses them.

use guest_abi::ports::UART_LINE_STATUS;
use guest_protocol::{
    GuestMessage, NO_STATUS, capacity_message, complete_message, error_message, init_message,
    progress_message,
};

use super::super::Seed;
use super::super::encoder::Encoder;
use super::super::framed;
use super::stream::{Heard, SECTORS};

/// Index of 50 sectors.
const FIFTY: u64 = 2;

/// A session of messages, and what comes of it.
pub struct Session {
    /// Of its file.
    pub name: &'static str,
    /// The input.
    pub bytes: Vec<u8>,
    /// What the host hears.
    pub heard: Heard,
}

/// What a guest says that copies 50 sectors.
pub fn sessions() -> Vec<Session> {
    let done = complete_message("copy", SECTORS[FIFTY as usize], true);
    let mut copied = probed();
    copied.extend((1..=10).map(|tenth| progress_message("copy", tenth * 5, 50, tenth as u32 * 10)));
    copied.push(done.clone());
    let mut failed = probed();
    failed.push(progress_message("copy", 25, 50, 50));
    failed.push(error_message("read", "input", 26, 1, ""));
    failed.push(complete_message("copy", 25, false));
    let refused = vec![
        init_message("probe", "input", 0x1000_0000),
        error_message("probe", "output", 0, NO_STATUS, "there is no such device"),
        complete_message("copy", 0, false),
    ];
    vec![
        session("copied", &copied, true, &[]),
        session("copied-in-pieces", &copied, true, &[3, 64, 1]),
        session("failed", &failed, false, &[300]),
        session("refused", &refused, false, &[14]),
        session("done", &[done], true, &[2, 0]),
    ]
}

/// Other doings of a guest.
pub fn others() -> Vec<Seed> {
    vec![
        ("debug-text", debug_text()),
        ("uart", uart()),
        ("byte-queue", byte_queue()),
    ]
}

fn probed() -> Vec<GuestMessage> {
    let disk = |device, address| {
        ["probe", "features", "queue", "ready"].map(|stage| init_message(stage, device, address))
    };
    let mut messages = disk("input", 0x1000_0000).to_vec();
    messages.push(capacity_message("input", 50, 25_600));
    messages.extend(disk("output", 0x1000_1000));
    messages.push(capacity_message("output", 50, 25_600));
    messages
}

fn session(name: &'static str, messages: &[GuestMessage], success: bool, cuts: &[u64]) -> Session {
    Session {
        name,
        bytes: of_stream(&framed::frames(messages), cuts),
        heard: Heard {
            messages: messages.len(),
            success,
        },
    }
}

fn of_stream(stream: &[u8], cuts: &[u64]) -> Vec<u8> {
    let mut bytes = Encoder::default();
    bytes.byte(2);
    framed::encode_cuts(&mut bytes, cuts);
    bytes.int(FIFTY, 0..=4);
    framed::encode_stream(&mut bytes, stream);
    bytes.finish()
}

fn debug_text() -> Vec<u8> {
    let text = "input disk: 50 sectors of 512 bytes\r\noutput disk: größe \u{1f980}\n\n\
                \x1b[31mred\x1b[0m \u{202e}text, \0 and \u{ff}\n";
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0xff);
    bytes.extend([b'x'; 130]);
    of_stream(&bytes, &[7])
}

/// A configuration that the guest receives, and a message that it sends, as its driver does.
fn uart() -> Vec<u8> {
    let mut bytes = Encoder::default();
    bytes.byte(0);
    // The host has something to be received, more than a FIFO.
    bytes.int(0, 0..=7);
    bytes.int(150, 0..=300);
    bytes.raw(&[0x42; 150]);
    for _ in 0..3 {
        // The guest asks whether there is anything, and receives it.
        bytes.int(6, 0..=7);
        bytes.int(UART_LINE_STATUS.into(), 0..=15);
        bytes.int(1, 0..=300);
        bytes.int(2, 0..=7);
        bytes.byte(64);
    }
    // It sends something.
    bytes.int(4, 0..=7);
    bytes.int(20, 0..=400);
    bytes.raw(&[0x24; 20]);
    // And sets the line up as an operating system does: line control, divisor, FIFO, modem.
    for (offset, value) in [(3, 0x83), (0, 1), (1, 0), (3, 3), (2, 7), (4, 0x1b), (1, 1)] {
        bytes.int(7, 0..=7);
        bytes.int(offset, 0..=15);
        bytes.int(1, 0..=300);
        bytes.byte(value);
    }
    bytes.finish()
}

/// A queue that is filled, over-filled, emptied and closed.
fn byte_queue() -> Vec<u8> {
    let mut bytes = Encoder::default();
    bytes.byte(1);
    bytes.int(64, 0..=512);
    bytes.byte(0);
    for (pushed, taken) in [(10, 4), (50, 30), (80, 200)] {
        bytes.int(0, 0..=15);
        bytes.int(pushed, 0..=600);
        bytes.raw(&vec![0x33; pushed as usize]);
        bytes.int(10, 0..=15);
        bytes.int(taken, 1..=600);
    }
    bytes.int(15, 0..=15);
    bytes.int(1, 1..=4);
    bytes.finish()
}
