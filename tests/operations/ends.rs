//! The end of a run that hangs in its input, in its output or at a reader: by a signal, or when the
//! time is over.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::common::fuse::{Hanging, Silence};
use crate::common::{Operation, Running, Vmm, needs_kvm, skip, test};
use crate::{HOST_FAILED, TIMED_OUT};

/// So long the runtime waits for a thread that hangs, with what a busy host may add.
const PATIENCE: Duration = Duration::from_secs(2 + 8);

fn of(operation: Operation, source: &Path, output: &Path) -> Vmm {
    let arguments = operation.arguments_of(source, output);
    arguments.into_iter().fold(Vmm::bare(), Vmm::arg)
}

fn hanging(silence: Silence) -> Option<Hanging> {
    let hanging = Hanging::mount(silence, true);
    if hanging.is_none() {
        skip("a FUSE file system cannot be mounted here");
    }
    hanging
}

/// What a shell shows of the end, which must come soon once the run was told to end.
#[track_caller]
fn status(running: Running, begun: Instant) -> Option<i32> {
    let finished = running.finish();
    let taken = begun.elapsed();
    assert!(taken < PATIENCE, "it took {taken:?}: {finished:?}");
    assert!(finished.stderr.lines().count() <= 1, "{finished:?}");
    let status = finished.status;
    status.code().or(status.signal().map(|signal| 128 + signal))
}

const SIGNALS: [(Signal, i32); 3] = [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)];

/// Waits until `running` has started for certain, and hangs.
fn wait_until_it_hangs(running: &Running) {
    std::thread::sleep(Duration::from_millis(800));
    assert!(!running.has_ended(), "nothing hung");
}

#[test]
fn an_input_that_hangs_keeps_no_operation_from_its_end() {
    needs_kvm!();
    for silence in [Silence::Reads, Silence::Lookups] {
        for (index, operation) in Operation::ALL.into_iter().enumerate() {
            let Some(hanging) = hanging(silence) else {
                return;
            };
            let files = Operation::files();
            let running = of(operation, &hanging.file(), &files.output()).start();
            wait_until_it_hangs(&running);
            let (signal, expected) = SIGNALS[index % SIGNALS.len()];
            running.signal(signal);
            let ended = status(running, Instant::now());
            assert_eq!(ended, Some(expected), "{operation:?}");
            let begun = Instant::now();
            let vmm = of(operation, &hanging.file(), &files.output());
            let ended = status(vmm.args(&["--timeout", "0.5"]).start(), begun);
            assert_eq!(ended, Some(TIMED_OUT), "{operation:?}");
            files.assert_untouched();
        }
    }
}

#[test]
fn an_output_or_statistics_that_hang_keep_no_operation_from_its_end() {
    needs_kvm!();
    for operation in Operation::WRITING {
        let Some(hanging) = hanging(Silence::Lookups) else {
            return;
        };
        let files = Operation::files();
        let source = files.image();
        let there = of(operation, &source, &hanging.file());
        let statistics = of(operation, &source, &files.output());
        for vmm in [there, statistics.arg("--stats-file").arg(hanging.file())] {
            let running = vmm.start();
            wait_until_it_hangs(&running);
            running.signal(Signal::TERM);
            assert_eq!(status(running, Instant::now()), Some(143), "{operation:?}");
        }
        let begun = Instant::now();
        let vmm = of(operation, &source, &hanging.file());
        let ended = status(vmm.args(&["--timeout", "0.5"]).start(), begun);
        assert_eq!(ended, Some(TIMED_OUT), "{operation:?}");
        files.assert_untouched();
    }
}

#[test]
fn a_folder_that_hangs_does_not_keep_the_look_at_the_host() {
    needs_kvm!();
    let Some(hanging) = hanging(Silence::Lookups) else {
        return;
    };
    let running = Vmm::bare().arg("--check").arg(hanging.file()).start();
    wait_until_it_hangs(&running);
    running.signal(Signal::TERM);
    assert_eq!(status(running, Instant::now()), Some(143));
}

#[test]
fn a_signal_that_was_ignored_at_the_start_ends_no_operation() {
    needs_kvm!();
    for operation in Operation::ALL {
        let Some(hanging) = hanging(Silence::Reads) else {
            return;
        };
        let files = Operation::files();
        let ignore = || {
            // SAFETY: ignoring a signal installs no code.
            unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
            Ok(())
        };
        let vmm = of(operation, &hanging.file(), &files.output());
        let running = vmm.before_start(ignore).start();
        wait_until_it_hangs(&running);
        running.signal(Signal::HUP);
        std::thread::sleep(Duration::from_millis(300));
        assert!(!running.has_ended(), "{operation:?}");
        running.signal(Signal::TERM);
        assert_eq!(status(running, Instant::now()), Some(143), "{operation:?}");
    }
}

/// Blocks all signals, as the parent of a process may have done.
fn block_all() -> io::Result<()> {
    // SAFETY: a set is plain data, for which all zeros are valid.
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `all` is valid for writing.
    unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: `all` is a set, and the old mask is not wanted.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut()) };
    Ok(())
}

#[test]
fn signals_that_were_blocked_at_the_start_keep_no_operation_from_its_end() {
    needs_kvm!();
    for operation in Operation::ALL {
        let Some(hanging) = hanging(Silence::Reads) else {
            return;
        };
        let files = Operation::files();
        let vmm = of(operation, &hanging.file(), &files.output()).args(&["--timeout", "0.5"]);
        let begun = Instant::now();
        let ended = status(vmm.before_start(block_all).start(), begun);
        assert_eq!(ended, Some(TIMED_OUT), "{operation:?}");
        files.assert_untouched();
    }
}

#[test]
fn signals_that_were_blocked_at_the_start_end_a_run_that_does_not_get_its_input_open() {
    needs_kvm!();
    for operation in Operation::ALL {
        let Some(hanging) = hanging(Silence::Lookups) else {
            return;
        };
        let files = Operation::files();
        let vmm = of(operation, &hanging.file(), &files.output());
        let running = vmm.before_start(block_all).start();
        wait_until_it_hangs(&running);
        running.signal(Signal::TERM);
        assert_eq!(status(running, Instant::now()), Some(143), "{operation:?}");
        files.assert_untouched();
    }
}

/// The writing end of a pipe that takes nothing, and the end that keeps it open.
fn full_pipe() -> (io::PipeReader, OwnedFd) {
    let (reader, mut writer) = io::pipe().unwrap();
    let size = rustix::pipe::fcntl_getpipe_size(&writer).unwrap();
    writer.write_all(&vec![b'.'; size]).unwrap();
    (reader, writer.into())
}

#[test]
fn a_reader_that_sleeps_keeps_no_operation_beyond_its_time_and_costs_only_an_answer() {
    needs_kvm!();
    for operation in Operation::ALL {
        let files = Operation::files();
        let (_reader, writer) = full_pipe();
        let vmm = operation.vmm(&files).args(&["--timeout", "2"]);
        let begun = Instant::now();
        let running = vmm.stdout(writer).start();
        let ended = status(running, begun);
        if operation.writes() {
            assert_eq!(ended, Some(0), "{operation:?}");
            operation.assert_done(&files);
        } else {
            assert_eq!(ended, Some(TIMED_OUT), "{operation:?}");
        }
        let (_reader, writer) = full_pipe();
        let running = operation.vmm(&files).stdout(writer).start();
        std::thread::sleep(Duration::from_millis(1500));
        running.signal(Signal::TERM);
        assert_eq!(status(running, Instant::now()), Some(143), "{operation:?}");
        files.assert_untouched();
    }
}

#[test]
fn a_reader_that_sleeps_keeps_neither_a_refusal_nor_the_look_at_the_host() {
    needs_kvm!();
    let (_reader, writer) = full_pipe();
    let vmm = Vmm::bare().args(&["--format", "json", "--bogus"]);
    let finished = vmm.stdout(writer).start().finish();
    finished.assert_failed(2, "--bogus");
    let (_reader, writer) = full_pipe();
    let finished = Vmm::bare().arg("--check").stdout(writer).start().finish();
    finished.assert_failed(HOST_FAILED, "nobody reads it");
}

#[test]
fn a_folder_that_takes_no_file_is_a_reason_before_anything_is_read() {
    needs_kvm!();
    for operation in Operation::WRITING {
        let files = Operation::files();
        let finished = of(operation, &files.image(), Path::new("/proc/output")).run();
        finished.assert_failed(HOST_FAILED, "in a folder whose files the kernel makes");
        assert_eq!(finished.stdout, "", "{finished:?}");
    }
}
