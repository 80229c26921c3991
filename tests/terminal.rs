//! Terminals, sockets and pipes as a user has them: what is shown on them, and that a run ends when
//! it is to end even if nothing can be shown.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use common::process::{Vmm, binary};
use common::program::Program;
use common::terminal::Terminal;
use common::{Files, needs_kvm, test};
use rustix::process::Signal;

fn main() -> std::process::ExitCode {
    common::harness::main()
}

/// A copy that takes long and says much.
const TALKATIVE: [&str; 5] = ["--verbose", "--queue-depth", "1", "--request-size", "512"];
/// So long a run may take, from its limit or a signal on, that nobody reads: it waits for two seconds,
/// and a busy host may add the rest.
const END: Duration = Duration::from_secs(10);
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
    assert!(begun.elapsed() < Duration::from_secs(1) + END);
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
    assert!(begun.elapsed() < Duration::from_secs(2) + END);
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
fn a_dumb_terminal_gets_few_lines_unless_it_is_told_how_many_and_nothing_else() {
    needs_kvm!();
    let files = Files::random(100 * 512);
    for (given, like) in [
        (&[][..], &["-p", "10"][..]),
        (&["-p", "0"], &[]),
        (&["--verbose"], &[]),
    ] {
        let expected = files.vmm().args(like).succeed().stdout;
        let terminal = Terminal::open();
        let vmm = terminal.attach(files.vmm()).env("TERM", "dumb");
        let running = vmm.args(given).start();
        let shown = terminal.read_to_end();
        assert_eq!(running.finish().code(), Some(0));
        assert_eq!(shown, expected.replace('\n', "\r\n"), "{given:?}");
    }
}

#[test]
fn a_bar_is_drawn_only_while_the_terminal_belongs_to_the_job() {
    needs_kvm!();
    let mut files = Files::random(512);
    let guest = files.add("guest", &Program::new().spin_forever().build());
    for (script, draws) in [("\"$@\"", true), ("set -m; \"$@\" & wait $!", false)] {
        let terminal = Terminal::open();
        let shell = Vmm::of("/bin/sh".as_ref()).args(&["-c", script, "sh"]);
        let shell = shell.arg(binary()).args(&["--timeout", "1"]);
        let shell = shell.arg(files.input()).arg(files.output()).arg(&guest);
        let shell = terminal.attach_stdin(terminal.attach(shell));
        let running = shell.in_session().start();
        let shown = terminal.read_to_end();
        assert_eq!(running.finish().code(), Some(124));
        assert!(shown.contains("time limit"), "{shown:?}");
        assert_eq!(shown.contains('\x1b'), draws, "{shown:?}");
    }
}
