#![allow(clippy::unwrap_used, clippy::panic)]

use std::rc::Rc;

use guest_kit::testing::console::FakeConsole;
use guest_kit::testing::memory::leak;
use guest_kit::testing::ports_with;
use guest_protocol::{
    FrameDecoder, GuestMessage, NO_STATUS, capacity_message, complete_message, error_message,
    init_message, progress_message,
};

use super::*;
use guest_kit::testing::ports::FakePorts;

type TestReporter<'a> = Reporter<'a, FakePorts, Rc<FakeConsole>>;

fn said(protocol: Protocol, say: impl FnOnce(&mut TestReporter<'_>)) -> FakePorts {
    let ports = FakePorts::sending(&[]);
    let mut reporter = Reporter::new(&ports);
    reporter.speak(protocol);
    say(&mut reporter);
    reporter.flush();
    ports
}

fn failure(op: Op) -> Failure {
    Failure {
        sector: 5,
        ..Failure::new(op, "input", &"because")
    }
}

fn everything(reporter: &mut TestReporter<'_>) {
    reporter.init("config", "vmm", 0x3f8);
    reporter.capacity(Side::Input, 50, 25600);
    reporter.progress(11, 50);
    for op in [Op::Read, Op::Write, Op::Flush, Op::Init] {
        reporter.error(&failure(op));
    }
    reporter.complete(50, true);
    reporter.complete(5, false);
}

#[test]
fn text_is_a_line_an_event() {
    let expected = "Input: 50 sectors (25600 bytes)\nProgress: 11/50\n\
        Read error at sector 5\nWrite error at sector 5\nFlush error\nError: because\n\
        Copy complete: 50 sectors\nCopy failed after 5 sectors\n";
    let ports = said(Protocol::Text, everything);
    assert_eq!(String::from_utf8(ports.com1()).unwrap(), expected);
}

#[test]
fn frames_carry_every_field() {
    let mut expected = vec![
        init_message("config", "vmm", 0x3f8),
        capacity_message("input", 50, 25600),
        progress_message("copy", 11, 50, 22),
    ];
    for op in ["read", "write", "flush", "init"] {
        expected.push(error_message(op, "input", 5, NO_STATUS, "because"));
    }
    expected.push(complete_message("copy", 50, true));
    expected.push(complete_message("copy", 5, false));
    let mut messages = Vec::new();
    let ports = said(Protocol::Protobuf, everything);
    let mut decoder = FrameDecoder::new();
    decoder
        .push(&ports.com1(), |message: GuestMessage| {
            messages.push(message)
        })
        .unwrap();
    assert!(!decoder.is_mid_frame());
    assert_eq!(messages, expected);
}

#[test]
fn many_reports_go_out_in_few_writes_and_none_is_lost() {
    for protocol in [Protocol::Protobuf, Protocol::Text] {
        let ports = said(protocol, |reporter| {
            for current in 1..=1000 {
                reporter.progress(current, 1000);
            }
        });
        assert!(ports.accesses() <= 15);
        let mut reports = 0;
        match protocol {
            Protocol::Text => reports = ports.com1().iter().filter(|&&b| b == b'\n').count(),
            Protocol::Protobuf => {
                let mut decoder = FrameDecoder::new();
                decoder
                    .push(&ports.com1(), |_: GuestMessage| reports += 1)
                    .unwrap();
            }
        }
        assert_eq!(reports, 1000);
    }
}

/// What arrives by a console, and how many chains brought it.
fn said_by_console(
    protocol: Protocol,
    say: impl FnOnce(&mut TestReporter<'_>),
) -> (Vec<u8>, usize) {
    let console = FakeConsole::new(7);
    let ports = ports_with(&[], [Rc::clone(&console) as _], 7);
    let mut reporter = Reporter::new(&ports);
    reporter.use_console(Console::init(Rc::clone(&console), leak(0x1_0000)).unwrap());
    reporter.speak(protocol);
    say(&mut reporter);
    reporter.finish();
    assert!(reporter.fault().is_none());
    assert!(ports.com1().is_empty());
    (console.received(), console.counts().0)
}

#[test]
#[cfg_attr(miri, ignore = "40,000 reports take Miri minutes")]
fn a_console_brings_the_same_bytes_in_full_buffers() {
    for protocol in [Protocol::Protobuf, Protocol::Text] {
        let say = |reporter: &mut TestReporter<'_>| {
            everything(reporter);
            for current in 1..=10_000 {
                reporter.progress(current, 10_000);
                reporter.idle();
            }
        };
        let (received, chains) = said_by_console(protocol, say);
        assert!(received == said(protocol, say).com1());
        assert!(chains <= received.len() / 4000, "{chains} chains");
    }
}

#[test]
fn what_waits_is_sent_at_an_idle_moment_if_the_console_has_nothing_before_it() {
    let console = FakeConsole::new(1);
    let ports = ports_with(&[], [Rc::clone(&console) as _], 1);
    let mut reporter = Reporter::new(&ports);
    reporter.use_console(Console::init(Rc::clone(&console), leak(0x1_0000)).unwrap());
    reporter.progress(1, 10);
    assert_eq!(console.counts(), (0, 0));
    reporter.idle();
    assert_eq!(console.counts().1, 1);
    reporter.finish();
    reporter.idle();
    assert_eq!(console.counts().1, 1, "nothing waits");
}
