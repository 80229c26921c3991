//! Floods on the serial ports, and bytes on COM1 that are no messages.

use guest_abi::layout::DMA_POOL;
use guest_abi::ports::{COM1, COM2};
use guest_protocol::{FrameDecoder, GuestMessage, Level, complete_message, init_message};
use vmm::report::MAX_DEBUG;

use crate::common::program::Program;
use crate::common::test;
use crate::{Attack, GUEST_FAILED, refused, seen};

/// What one string instruction of the floods sends.
const BURST: u32 = 64 << 10;

/// A burst of zeros from memory that nothing has written to.
fn burst(port: u16) -> Program {
    Program::new().send_memory(port, DMA_POOL, BURST)
}

#[test]
fn bytes_that_are_no_frame_end_the_run() {
    let cases: [(&[u8], &str); 4] = [
        (&[0xff, 0xff], "a frame of 65535 bytes is longer"),
        (&[0x01, 0x10], "a frame of 4097 bytes is longer"),
        (
            &[3, 0, 0xff, 0xff, 0xff],
            "not hold a valid Protocol Buffers message",
        ),
        (&[0, 0], "a message without content"),
    ];
    for (bytes, reason) in cases {
        refused(Program::new().send_com1(bytes).spin_forever(), reason);
    }
}

#[test]
fn a_frame_that_is_cut_off_is_a_failure() {
    for bytes in [[10].as_slice(), &[10, 0], &[10, 0, 1, 2, 3]] {
        refused(
            Program::new().send_com1(bytes).exit(0),
            "in the middle of a message",
        );
    }
}

#[test]
fn a_message_at_the_level_of_another_kind_is_refused() {
    let mut message = complete_message("copy", 50, true);
    message.level = Level::Info.into();
    refused(Program::new().say(&message).exit(0), "the wrong level");
    message.level = 77;
    refused(Program::new().say(&message).exit(0), "the wrong level");
}

#[test]
fn more_messages_than_a_copy_has_are_refused() {
    let say = Program::new().say(&init_message("probe", "input", 0));
    refused(
        Program::new().repeat(u32::MAX, &say),
        "more messages than a copy has to send",
    );
}

#[test]
fn long_strings_and_control_characters_do_not_reach_the_terminal() {
    let name = "\u{1b}[2J\n[COMPLETE] ".repeat(100);
    let program = Program::new().say(&init_message(&name, &name, 0));
    if let Some(finished) = refused(program.exit(0), "without a completion") {
        let lines = finished.lines();
        assert_eq!(lines.len(), 1, "{finished:?}");
        assert!(
            lines[0].len() < 2000 && !lines[0].contains('\u{1b}'),
            "{finished:?}"
        );
    }
}

#[test]
fn a_flood_of_bytes_on_com1_is_refused() {
    refused(
        Program::new().repeat(u32::MAX, &burst(COM1)),
        "a message without content",
    );
    Attack::new(Program::new().repeat(u32::MAX, &burst(COM1)).build())
        .with(&["--protocol", "text"])
        .fails(GUEST_FAILED, "more messages than a copy has to send");
}

#[test]
fn a_flood_of_debug_text_is_bounded() {
    seen(Program::new().repeat(8, &burst(COM2)));
    let lines = Program::new().send(COM2, &b"\n".repeat(8192));
    let attack = Attack::new(Program::new().repeat(4, &lines).seen().build()).with(&["--debug"]);
    if let Some(finished) = attack.fails(GUEST_FAILED, "(exit status 42)") {
        let shown = finished.stderr.len();
        assert!(shown < MAX_DEBUG + 512, "{shown} bytes");
        let cut = finished.stderr.matches("the rest is not").count();
        assert_eq!(cut, 1, "{} lines", finished.stderr.lines().count());
    }
}

#[test]
fn debug_text_is_shown_escaped_in_lines_of_bounded_length() {
    let text = [
        "\u{1b}]0;title\u{7}".as_bytes(),
        &b"y".repeat(5000),
        &[0xff, 0xfe],
    ]
    .concat();
    let attack = Attack::new(Program::new().send(COM2, &text).seen().build()).with(&["--debug"]);
    if let Some(finished) = attack.fails(GUEST_FAILED, "(exit status 42)") {
        assert!(!finished.stderr.contains('\u{1b}'), "{finished:?}");
        assert!(
            finished.stderr.lines().all(|line| line.len() < 512),
            "{finished:?}"
        );
    }
}

#[test]
fn reading_serial_ports_when_nothing_is_there_gives_zeros() {
    // The configuration first, whatever it is; then nothing.
    let read = Program::new().in8(COM1).in8(COM2);
    let mut program = Program::new().repeat(300, &read);
    for port in [COM1, COM2] {
        // in al, dx; the line status must say that nothing is there: test al, 1; jz seen
        program = program.in8(port + 5).raw(&[0xa8, 1, 0x74, 9]).exit(99);
    }
    seen(program);
}

#[test]
fn uart_registers_may_hold_anything() {
    let mut program = Program::new();
    for value in [0xff, 0x80, 0x1f, 0x00] {
        for port in (COM1 + 1..COM1 + 8).chain(COM2 + 1..COM2 + 8) {
            program = program.out8(port, value).in8(port);
        }
    }
    seen(program);
}

/// The frames of the programs are those of the guest's own encoder.
#[test]
fn what_the_tests_call_malformed_is_so_to_the_decoder() {
    let mut decoder = FrameDecoder::new();
    let frame = [3, 0, 0xff, 0xff, 0xff];
    assert!(decoder.push(&frame, |_: GuestMessage| {}).is_err());
}
