//! `--serial-input`: standard input as what the guest receives on COM2, whatever it is, and a
//! terminal that is as before when the run has ended, however it has.
//!
//! The guest sends what it receives back as text on COM1, up to a full stop.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs::File;
use std::io::{PipeReader, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::preload::{SOCKET_AND_READ, preloaded};
use common::process::{Running, Vmm};
use common::program::{Program, SEEN};
use common::terminal::Terminal;
use common::{Files, Finished, needs_kvm, test};
use guest_abi::ports::{COM1, COM2};
use rustix::process::Signal;

fn main() -> std::process::ExitCode {
    common::harness::main()
}

/// So long something may take that is to happen soon.
const SOON: Duration = Duration::from_secs(30);

/// A run whose guest echoes until it receives a full stop.
fn echoing(files: &mut Files) -> Vmm {
    let program = Program::new().echo_until(COM2, COM1, b'.').seen();
    let guest = files.add("guest", &program.build());
    files
        .vmm()
        .args(&["--serial-input", "--protocol", "text"])
        .arg(guest)
}

#[track_caller]
fn assert_echoed(finished: &Finished, text: &str) {
    let reason = format!("exit status {SEEN}");
    finished.assert_failed(4, &reason);
    assert!(finished.stdout == text, "{finished:?}");
}

/// Text without a full stop, and longer than anything on its way has room for.
fn long_text() -> String {
    let line = |number| format!("line {number} of what the guest is to receive\n");
    (0..200).map(line).collect()
}

/// Waits until `condition` holds.
#[track_caller]
fn soon(running: &Running, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(!running.has_ended(), "the run has ended too soon");
        assert!(begun.elapsed() < SOON, "it does not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_file_is_received_whole() {
    needs_kvm!();
    let mut files = Files::random(512);
    let input = files.add("text", (long_text() + ".").as_bytes());
    let finished = echoing(&mut files).stdin(File::open(input).unwrap()).run();
    assert_echoed(&finished, &long_text());
}

#[test]
fn a_pipe_is_received_whole_however_its_writer_writes() {
    needs_kvm!();
    let mut files = Files::random(512);
    let (reader, mut writer) = std::io::pipe().unwrap();
    let running = echoing(&mut files).stdin(reader).start();
    let text = long_text();
    let (slow, fast) = text.split_at(50);
    for byte in slow.as_bytes() {
        writer.write_all(&[*byte]).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    writer.write_all(fast.as_bytes()).unwrap();
    writer.write_all(b".").unwrap();
    assert_echoed(&running.finish(), &text);
}

#[test]
fn a_socket_is_received_whole() {
    needs_kvm!();
    let mut files = Files::random(512);
    let (theirs, mut ours) = UnixStream::pair().unwrap();
    let running = echoing(&mut files)
        .stdin(std::os::fd::OwnedFd::from(theirs))
        .start();
    ours.write_all((long_text() + ".").as_bytes()).unwrap();
    assert_echoed(&running.finish(), &long_text());
}

#[test]
fn an_input_that_ends_or_never_was_just_ends() {
    needs_kvm!();
    let mut files = Files::random(512);
    let mut limited = || echoing(&mut files).args(&["--timeout", "1"]);
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"all").unwrap();
    drop(writer);
    for (stdin, text) in [(Stdio::from(reader), "all"), (Stdio::null(), "")] {
        let finished = limited().stdin(stdin).run();
        finished.assert_failed(124, "time limit");
        assert_eq!(finished.stdout, text);
    }
    let finished = limited().closed(0).run();
    finished.assert_failed(124, "time limit");
    assert_eq!(finished.stdout, "");
}

#[test]
fn what_cannot_be_read_is_named_and_the_run_goes_on() {
    needs_kvm!();
    let files = Files::random(512);
    let folder = File::open("/").unwrap();
    let vmm = files.vmm().arg("--serial-input").stdin(folder);
    let finished = vmm.succeed();
    let warning = "vmm: warning: cannot read standard input: Is a directory; the guest gets \
                   no more of it\n";
    assert_eq!(finished.stderr, warning);
}

#[test]
fn a_guest_that_takes_nothing_costs_neither_memory_nor_time() {
    needs_kvm!();
    let mut files = Files::random(512);
    let guest = files.add("guest", &Program::new().spin_forever().build());
    let zeros = File::open("/dev/zero").unwrap();
    let vmm = files.vmm().args(&["--serial-input", "--timeout", "1"]);
    let finished = vmm.arg(guest).stdin(zeros).run();
    finished.assert_failed(124, "time limit");
    assert!(finished.peak_bytes < 64 << 20, "{}", finished.peak_bytes);
}

#[test]
fn without_the_option_standard_input_is_left_alone() {
    needs_kvm!();
    let mut files = Files::random(512);
    let mut input = File::open(files.add("text", b"not for the guest")).unwrap();
    files.vmm().stdin(input.try_clone().unwrap()).succeed();
    let mut left = String::new();
    input.read_to_string(&mut left).unwrap();
    assert_eq!(left, "not for the guest");
}

#[test]
fn a_terminal_hands_on_each_key_and_shows_none() {
    needs_kvm!();
    let mut files = Files::random(512);
    let terminal = Terminal::open();
    let before = terminal.settings();
    let running = terminal.attach_stdin(echoing(&mut files)).start();
    soon(&running, || terminal.settings() != before);
    // Without the end of a line; Ctrl-Z and Ctrl-\ are keys like others.
    terminal.type_keys(b"a\x1a\x1c");
    std::thread::sleep(Duration::from_millis(50));
    terminal.type_keys(b"b.");
    assert_echoed(&running.finish(), "a\u{1a}\u{1c}b");
    assert_eq!(terminal.shown(), "");
    assert_eq!(terminal.settings(), before);
}

#[test]
fn ctrl_d_ends_what_is_typed_and_not_the_run() {
    needs_kvm!();
    let mut files = Files::random(512);
    let terminal = Terminal::open();
    let before = terminal.settings();
    let vmm = echoing(&mut files).args(&["--timeout", "2"]);
    let running = terminal.attach_stdin(vmm).start();
    soon(&running, || terminal.settings() != before);
    terminal.type_keys(b"ab\x04c.");
    let finished = running.finish();
    finished.assert_failed(124, "time limit");
    assert_eq!(finished.stdout, "ab");
    assert_eq!(terminal.settings(), before);
}

#[test]
fn ctrl_c_and_other_signals_end_the_run_and_give_the_terminal_back() {
    needs_kvm!();
    for (signal, status) in [
        (None, 130),
        (Some(Signal::TERM), 143),
        (Some(Signal::HUP), 129),
    ] {
        let mut files = Files::random(512);
        let terminal = Terminal::open();
        let before = terminal.settings();
        let running = terminal
            .attach_stdin(echoing(&mut files))
            .in_session()
            .start();
        soon(&running, || terminal.settings() != before);
        match signal {
            Some(signal) => running.signal(signal),
            None => terminal.type_keys(b"\x03"),
        }
        assert_eq!(running.finish().code(), Some(status));
        assert_eq!(terminal.settings(), before);
    }
}

#[test]
fn a_terminal_is_raw_again_after_a_stop_and_is_given_back_all_the_same() {
    needs_kvm!();
    let mut files = Files::random(512);
    let terminal = Terminal::open();
    let before = terminal.settings();
    let running = terminal.attach_stdin(echoing(&mut files)).start();
    soon(&running, || terminal.settings() != before);
    let raw = terminal.settings();
    running.signal(Signal::STOP);
    // As a shell does when a job of its has stopped.
    terminal.edit();
    let edited = terminal.settings();
    assert_ne!(raw, edited);
    running.signal(Signal::CONT);
    soon(&running, || terminal.settings() == raw);
    terminal.type_keys(b"ab.");
    assert_echoed(&running.finish(), "ab");
    assert_eq!(terminal.settings(), before);
}

#[test]
fn signals_that_end_a_process_at_once_give_the_terminal_back_before() {
    needs_kvm!();
    for signal in [
        Signal::QUIT,
        Signal::ABORT,
        Signal::ALARM,
        Signal::USR1,
        Signal::USR2,
        Signal::XCPU,
        Signal::VTALARM,
        Signal::PROF,
        Signal::IO,
        Signal::POWER,
    ] {
        let mut files = Files::random(512);
        let terminal = Terminal::open();
        let before = terminal.settings();
        let running = terminal.attach_stdin(echoing(&mut files)).start();
        soon(&running, || terminal.settings() != before);
        running.signal(signal);
        assert_eq!(running.finish().code(), Some(128 + signal.as_raw()));
        assert_eq!(terminal.settings(), before);
    }
}

#[test]
fn a_forbidden_system_call_gives_the_terminal_back_as_well() {
    needs_kvm!();
    let files = Files::random(5000).with_old_output(b"old");
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = preloaded(folder.path(), SOCKET_AND_READ) else {
        return;
    };
    let terminal = Terminal::open();
    let before = terminal.settings();
    let vmm = files.vmm().arg("--serial-input");
    let vmm = vmm.env("LD_PRELOAD", library);
    let finished = terminal.attach_stdin(vmm).run();
    assert_eq!(finished.status.signal(), Some(libc::SIGSYS), "{finished:?}");
    assert!(
        finished.stderr.contains("system call socket (41)"),
        "{finished:?}"
    );
    assert_eq!(terminal.settings(), before);
    files.assert_untouched();
}

#[test]
fn a_terminal_of_another_job_is_left_alone_and_the_run_is_not_stopped() {
    needs_kvm!();
    let files = Files::random(512);
    let terminal = Terminal::open();
    let before = terminal.settings();
    // A shell with jobs keeps the terminal, and its background job has it as standard input.
    let script = "set -m; \"$@\" </dev/tty & wait $!";
    let shell = Vmm::of("/bin/sh".as_ref()).args(&["-c", script, "sh"]);
    let shell = shell.arg(common::process::binary()).arg("--serial-input");
    let shell = shell.arg("--input").arg(files.input());
    let shell = shell.arg("--output").arg(files.output());
    let finished = terminal.attach_stdin(shell).in_session().run();
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    let note = "standard input is a terminal that belongs to another job";
    assert!(finished.stderr.contains(note), "{finished:?}");
    assert_eq!(terminal.settings(), before);
}

/// With another job in the session, which takes the terminal when something comes by `cue`, and has it
/// until that ends.
fn with_another_job(vmm: Vmm, cue: PipeReader) -> Vmm {
    vmm.in_session().before_start(move || {
        // SAFETY: the new process makes system calls alone.
        match unsafe { libc::fork() } {
            0 => take_terminal(cue.as_raw_fd()),
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        }
    })
}

/// What the other job does. It keeps open nothing else of what it has inherited: others wait until that
/// is closed.
#[allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "nothing but system calls, for one reason"
)]
fn take_terminal(cue: RawFd) -> ! {
    let mut byte = 0_u8;
    // SAFETY: `byte` is valid for writing, and nobody else uses the descriptors of this process.
    unsafe {
        libc::setpgid(0, 0);
        libc::signal(libc::SIGTTOU, libc::SIG_IGN);
        libc::dup2(cue, 3);
        libc::close(1);
        libc::close(2);
        libc::syscall(libc::SYS_close_range, 4, libc::c_uint::MAX, 0);
        libc::read(3, (&raw mut byte).cast(), 1);
        libc::tcsetpgrp(0, libc::getpid());
        libc::read(3, (&raw mut byte).cast(), 1);
        libc::_exit(0)
    }
}

#[test]
fn a_terminal_that_another_job_has_taken_meanwhile_keeps_the_settings_of_that_job() {
    needs_kvm!();
    for (signal, status) in [(Signal::TERM, 143), (Signal::USR1, 128 + libc::SIGUSR1)] {
        let mut files = Files::random(512);
        let terminal = Terminal::open();
        let before = terminal.settings();
        let (cue_end, mut cue) = std::io::pipe().unwrap();
        let vmm = terminal.attach_stdin(echoing(&mut files));
        let running = with_another_job(vmm, cue_end).start();
        soon(&running, || terminal.settings() != before);
        cue.write_all(b"!").unwrap();
        let own = running.pid().as_raw_nonzero().get();
        soon(&running, || terminal.foreground() != own);
        terminal.edit();
        let edited = terminal.settings();
        running.signal(signal);
        assert_eq!(running.finish().code(), Some(status));
        assert_eq!(terminal.settings(), edited, "{signal:?}");
    }
}

#[test]
fn a_terminal_that_has_been_given_back_is_not_given_back_again() {
    needs_kvm!();
    let mut files = Files::random(512);
    let program = Program::new().echo_until(COM2, COM1, b'.').exit(0);
    let guest = files.add("guest", &program.build());
    let (terminal, stopped) = (Terminal::open(), Terminal::open());
    let before = terminal.settings();
    let vmm = files.vmm().args(&["--serial-input", "--protocol", "text"]);
    let vmm = stopped.attach(terminal.attach_stdin(vmm.arg(guest)));
    stopped.stop();
    let running = vmm.start();
    soon(&running, || terminal.settings() != before);
    terminal.type_keys(b"ab.");
    // What the guest has said waits for its reader, and the run for that.
    soon(&running, || terminal.settings() == before);
    terminal.edit();
    let edited = terminal.settings();
    running.signal(Signal::USR1);
    assert_eq!(running.finish().code(), Some(128 + libc::SIGUSR1));
    assert_eq!(terminal.settings(), edited);
}
