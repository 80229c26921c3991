//! Terminals, sockets and pipes as a user has them: what is shown on them, and that a run ends when
//! it is to end even if nothing can be shown.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use common::process::{Terminal, Vmm};
use common::{Files, needs_kvm, test};
use rustix::process::Signal;

fn main() -> std::process::ExitCode {
    common::harness::main()
}

/// A copy that takes long and says much.
const TALKATIVE: [&str; 5] = ["--verbose", "--queue-depth", "1", "--request-size", "512"];
/// So long a run may take that has been ended while nobody reads, on a host that has much to do.
const END: Duration = Duration::from_secs(7);
const OLD: &[u8] = b"what was there before";

fn talkative(files: &Files) -> Vmm {
    files.vmm().args(&TALKATIVE)
}

#[test]
fn a_stopped_terminal_does_not_keep_the_time_limit_from_ending_the_run() {
    needs_kvm!();
    let files = Files::random(64 << 20).with_old_output(OLD);
    let terminal = Terminal::open();
    terminal.stop();
    let begun = Instant::now();
    let running = terminal
        .attach(talkative(&files))
        .args(&["--timeout", "1"])
        .start();
    assert_eq!(running.finish().code(), Some(124));
    assert!(begun.elapsed() < END);
    files.assert_untouched();
}

#[test]
fn a_stopped_terminal_does_not_keep_a_signal_from_ending_the_run() {
    needs_kvm!();
    let files = Files::random(64 << 20).with_old_output(OLD);
    let terminal = Terminal::open();
    terminal.stop();
    let running = terminal.attach(talkative(&files)).start();
    std::thread::sleep(Duration::from_secs(1));
    assert!(!running.has_ended());
    let begun = Instant::now();
    running.signal(Signal::TERM);
    assert_eq!(running.finish().code(), Some(143));
    assert!(begun.elapsed() < END);
    files.assert_untouched();
}

#[test]
fn a_socket_that_nobody_reads_does_not_keep_the_time_limit_from_ending_the_run() {
    needs_kvm!();
    let files = Files::random(64 << 20).with_old_output(OLD);
    let (_reader, writer) = UnixStream::pair().unwrap();
    let begun = Instant::now();
    let finished = talkative(&files)
        .stdout(std::os::fd::OwnedFd::from(writer))
        .args(&["--timeout", "2"])
        .run();
    assert_eq!(finished.code(), Some(124), "{finished:?}");
    assert!(begun.elapsed() < END);
    files.assert_untouched();
}

#[test]
fn the_bar_is_on_the_terminal_of_stderr_and_the_lines_go_where_stdout_goes() {
    needs_kvm!();
    let files = Files::random(50 * 512);
    let terminal = Terminal::open();
    let running = terminal.attach_stderr(files.vmm()).start();
    let shown = terminal.read_to_end();
    let finished = running.finish();
    assert_eq!(finished.code(), Some(0));
    let lines = finished.lines();
    assert_eq!(
        lines.last(),
        Some(&"[COMPLETE] complete op=copy count=50 success=true")
    );
    assert!(
        lines.contains(&"[PROGRESS] progress op=copy 50/50 (100%)"),
        "{lines:?}"
    );
    assert!(shown.contains("100%  copied 25.00 KiB in "), "{shown:?}");
    assert!(!shown.contains("[PROGRESS]"), "{shown:?}");
}

#[test]
fn a_dumb_terminal_gets_the_lines_and_nothing_else() {
    needs_kvm!();
    let files = Files::random(50 * 512);
    let expected = files.vmm().succeed().stdout.replace('\n', "\r\n");
    let terminal = Terminal::open();
    let vmm = terminal.attach(files.vmm()).env("TERM", "dumb");
    let running = vmm.start();
    let shown = terminal.read_to_end();
    assert_eq!(running.finish().code(), Some(0));
    assert_eq!(shown, expected);
}
