//! Files on a file system that does not answer: signals and the time limit end a run all the same,
//! before there is a machine and while it copies.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::io::{self, BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, Instant};

use common::fuse::{Hanging, Silence};
use common::{Files, Running, Vmm, needs_kvm, skip, test};
use rustix::process::Signal;

fn main() -> std::process::ExitCode {
    common::harness::main()
}

const TIMED_OUT: i32 = 124;
const TERMINATED: i32 = 143;
const OLD: &[u8] = b"what was there before";
/// So long the runtime waits for a thread that hangs, with what a busy host may add.
const PATIENCE: Duration = Duration::from_secs(2 + 8);

fn hanging(silence: Silence, polite: bool) -> Option<Hanging> {
    let hanging = Hanging::mount(silence, polite);
    if hanging.is_none() {
        skip("a FUSE file system cannot be mounted here");
    }
    hanging
}

fn files() -> Files {
    Files::random(5000).with_old_output(OLD)
}

/// Ends `running` by SIGTERM after a while, or lets the time limit of 1 s do it, and returns the
/// status.
#[track_caller]
fn status_of(running: Running, signal: bool) -> Option<i32> {
    let begun = Instant::now();
    std::thread::sleep(Duration::from_millis(800));
    assert!(!running.has_ended(), "nothing hung");
    if signal {
        running.signal(Signal::TERM);
    }
    let finished = running.finish();
    let taken = begun.elapsed();
    assert!(taken < PATIENCE, "it took {taken:?}: {finished:?}");
    assert!(finished.stderr.lines().count() <= 1, "{finished:?}");
    let status = finished.status;
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
}

/// The options that end a run after 1 s, unless a signal is to do it.
fn limit(signal: bool) -> &'static [&'static str] {
    if signal { &[] } else { &["--timeout", "1"] }
}

fn expected(signal: bool) -> Option<i32> {
    Some(if signal { TERMINATED } else { TIMED_OUT })
}

/// Copies from an input that does not answer what `silence` names: a signal, and the time limit, end
/// the run all the same.
fn assert_the_input_does_not_keep_the_run(silence: Silence) {
    for signal in [true, false] {
        let Some(hanging) = hanging(silence, true) else {
            return;
        };
        let files = files();
        let vmm = Vmm::copying(&hanging.file(), &files.output()).args(limit(signal));
        assert_eq!(status_of(vmm.start(), signal), expected(signal));
        files.assert_untouched();
    }
}

#[test]
fn a_read_that_hangs_during_the_copy_does_not_keep_the_run() {
    needs_kvm!();
    assert_the_input_does_not_keep_the_run(Silence::Reads);
}

#[test]
fn an_input_that_cannot_even_be_looked_up_does_not_keep_the_run() {
    needs_kvm!();
    assert_the_input_does_not_keep_the_run(Silence::Lookups);
}

#[test]
fn a_guest_an_output_or_statistics_that_hang_do_not_keep_the_run() {
    needs_kvm!();
    let run = |with: &dyn Fn(&Files, &Path) -> Vmm| {
        for signal in [true, false] {
            let Some(hanging) = hanging(Silence::Lookups, true) else {
                return;
            };
            let files = files();
            let vmm = with(&files, &hanging.file()).args(limit(signal));
            assert_eq!(status_of(vmm.start(), signal), expected(signal));
            files.assert_untouched();
        }
    };
    run(&|files, path| files.vmm().arg(path));
    run(&|files, path| files.vmm().arg("--stats-file").arg(path));
    run(&|files, path| Vmm::copying(&files.input(), path));
}

#[test]
fn a_read_that_nothing_can_end_does_not_keep_the_user_from_being_told() {
    needs_kvm!();
    let Some(hanging) = hanging(Silence::Reads, false) else {
        return;
    };
    let files = files();
    let (reader, writer) = io::pipe().unwrap();
    let vmm = Vmm::copying(&hanging.file(), &files.output()).stderr(writer);
    let running = vmm.start();
    std::thread::sleep(Duration::from_millis(800));
    let begun = Instant::now();
    running.signal(Signal::TERM);
    let mut line = String::new();
    BufReader::new(reader).read_line(&mut line).unwrap();
    assert_eq!(line, "vmm: ended by SIGTERM\n");
    let taken = begun.elapsed();
    assert!(taken < PATIENCE, "it took {taken:?}");
    // The kernel keeps the process until the file system has answered: not even SIGKILL ends it.
    hanging.answer();
    assert_eq!(running.finish().code(), Some(TERMINATED));
    files.assert_untouched();
}
