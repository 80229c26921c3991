//! The end of a run that hangs in its input, in its output or at a reader: by a signal, or when the
//! time is over.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::common::before_start::all_signals;
use crate::common::fuse::Silence;
use crate::common::{Operation, Running, Vmm, hanging, needs_kvm, test};
use crate::{HOST_FAILED, TIMED_OUT};

/// So long the runtime waits for a thread that hangs, with what a busy host may add.
const PATIENCE: Duration = Duration::from_secs(2 + 8);

/// What a shell shows of the end, which must come soon once the run was told to end. A signal by itself ends
/// a run that does not get its files open.
#[track_caller]
fn status(running: Running, begun: Instant) -> Option<i32> {
    let finished = running.finish();
    let taken = begun.elapsed();
    assert!(taken < PATIENCE, "it took {taken:?}: {finished:?}");
    // Before the reason, a warning may name the thread that hangs.
    let is_reason = |line: &&str| !line.contains("warning: the thread");
    let reasons = finished.stderr.lines().filter(is_reason).count();
    assert!(reasons <= 1, "{finished:?}");
    let status = finished.status;
    status.code().or(status.signal().map(|signal| 128 + signal))
}

const SIGNALS: [(Signal, i32); 3] = [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)];

#[test]
fn an_input_that_hangs_keeps_no_operation_from_its_end() {
    needs_kvm!();
    for silence in [Silence::Reads, Silence::Lookups] {
        for (index, operation) in Operation::ALL.into_iter().enumerate() {
            let Some(hanging) = hanging(silence, true) else {
                return;
            };
            let files = Operation::files();
            let running = operation.vmm_of(&hanging.file(), &files.output()).start();
            hanging.wait();
            let (signal, expected) = SIGNALS[index % SIGNALS.len()];
            running.signal(signal);
            let ended = status(running, Instant::now());
            assert_eq!(ended, Some(expected), "{operation:?}");
            let begun = Instant::now();
            let vmm = operation.vmm_of(&hanging.file(), &files.output());
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
        let Some(hanging) = hanging(Silence::Lookups, true) else {
            return;
        };
        let files = Operation::files();
        let source = files.image();
        let there = operation.vmm_of(&source, &hanging.file());
        let statistics = operation.vmm_of(&source, &files.output());
        for vmm in [there, statistics.arg("--stats-file").arg(hanging.file())] {
            let running = vmm.start();
            hanging.wait();
            running.signal(Signal::TERM);
            assert_eq!(status(running, Instant::now()), Some(143), "{operation:?}");
        }
        let begun = Instant::now();
        let vmm = operation.vmm_of(&source, &hanging.file());
        let ended = status(vmm.args(&["--timeout", "0.5"]).start(), begun);
        assert_eq!(ended, Some(TIMED_OUT), "{operation:?}");
        files.assert_untouched();
    }
}

#[test]
fn a_folder_that_hangs_does_not_keep_the_look_at_the_host() {
    needs_kvm!();
    let Some(hanging) = hanging(Silence::Lookups, true) else {
        return;
    };
    let running = Vmm::bare().arg("--check").arg(hanging.file()).start();
    hanging.wait();
    running.signal(Signal::TERM);
    assert_eq!(status(running, Instant::now()), Some(143));
}

#[test]
fn a_signal_that_was_ignored_at_the_start_ends_no_operation() {
    needs_kvm!();
    for operation in Operation::ALL {
        let Some(hanging) = hanging(Silence::Reads, true) else {
            return;
        };
        let files = Operation::files();
        let vmm = operation.vmm_of(&hanging.file(), &files.output());
        let running = vmm.ignoring(&[libc::SIGHUP]).start();
        hanging.wait();
        running.signal(Signal::HUP);
        std::thread::sleep(Duration::from_millis(300));
        assert!(!running.has_ended(), "{operation:?}");
        running.signal(Signal::TERM);
        assert_eq!(status(running, Instant::now()), Some(143), "{operation:?}");
    }
}

#[test]
fn signals_that_were_blocked_at_the_start_keep_no_operation_from_its_end() {
    needs_kvm!();
    for operation in Operation::ALL {
        let Some(hanging) = hanging(Silence::Reads, true) else {
            return;
        };
        let files = Operation::files();
        let vmm = operation
            .vmm_of(&hanging.file(), &files.output())
            .args(&["--timeout", "0.5"]);
        let begun = Instant::now();
        let ended = status(vmm.blocking(&all_signals()).start(), begun);
        assert_eq!(ended, Some(TIMED_OUT), "{operation:?}");
        files.assert_untouched();
    }
}

#[test]
fn signals_that_were_blocked_at_the_start_end_a_run_that_does_not_get_its_input_open() {
    needs_kvm!();
    for operation in Operation::ALL {
        let Some(hanging) = hanging(Silence::Lookups, true) else {
            return;
        };
        let files = Operation::files();
        let vmm = operation.vmm_of(&hanging.file(), &files.output());
        let running = vmm.blocking(&all_signals()).start();
        hanging.wait();
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
        let finished = running.finish();
        finished.assert_failed(143, "ended by SIGTERM");
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
        let finished = operation
            .vmm_of(&files.image(), Path::new("/proc/output"))
            .run();
        finished.assert_failed(HOST_FAILED, "in a folder whose files the kernel makes");
        assert_eq!(finished.stdout, "", "{finished:?}");
    }
}
