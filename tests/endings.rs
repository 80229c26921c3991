//! The end of a run where readers, signals and surroundings are not as they should be: it comes in
//! time, and the status is 0 if and only if the new output is in place.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::io::{self, Read};
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::before_start::all_signals;
use common::files::spinning;
use common::mount::can_unshare;
use common::program::Program;
use common::terminal::Terminal;
use common::{Files, Finished, Running, Vmm, needs_kvm, test};
use rustix::process::{Resource, Signal, kill_process};

fn main() -> std::process::ExitCode {
    common::harness::main()
}

const HOST_FAILED: i32 = 3;
const TIMED_OUT: i32 = 124;
const TERMINATED: i32 = 143;
const OLD: &[u8] = b"what was there before";
/// The lines about an input of so many bytes fill no pipe, but more than a buffer and a terminal.
const SMALL: usize = 10_000_000;
/// What may be late on a host that has much to do.
const SLACK: Duration = Duration::from_secs(5);

/// Files whose copy is complete long before its lines are read: its end waits for a reader.
fn files() -> Files {
    Files::random(SMALL).with_old_output(OLD)
}

/// Runs `vmm` to its end, which must come `after` so long and not much later.
#[track_caller]
fn ends_after(after: Duration, running: Running) -> Finished {
    let begun = Instant::now();
    let finished = running.finish();
    let taken = begun.elapsed();
    let early = Duration::from_millis(500);
    assert!(
        taken + early > after && taken < after + SLACK,
        "it took {taken:?} and not {after:?}: {finished:?}"
    );
    finished
}

/// Both streams of `vmm` on pipes that nobody reads.
fn nobody_reads(vmm: Vmm) -> (Vmm, [io::PipeReader; 2]) {
    let (out, err) = (io::pipe().unwrap(), io::pipe().unwrap());
    (vmm.stdout(out.1).stderr(err.1), [out.0, err.0])
}

const FORMATS: [&[&str]; 3] = [
    &[],
    &["--debug", "--stats"],
    &["--format", "json", "--debug", "--stats"],
];

#[test]
fn a_time_limit_that_meets_nothing_but_stuck_lines_costs_the_lines_and_not_the_copy() {
    needs_kvm!();
    for options in FORMATS {
        let files = files();
        let (_reader, writer) = io::pipe().unwrap();
        let vmm = files.vmm().args(options).args(&["--timeout", "2"]);
        let finished = ends_after(Duration::from_secs(2), vmm.stdout(writer).start());
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        files.assert_copied();
        let warned = finished
            .stderr
            .contains("vmm: warning: nobody read the run's lines in time");
        assert!(warned, "{finished:?}");
    }
}

#[test]
fn readers_that_take_nothing_cost_the_lines_and_not_the_copy() {
    needs_kvm!();
    let files = files();
    let (vmm, _readers) = nobody_reads(files.vmm().args(&["--debug", "--stats"]));
    let finished = ends_after(Duration::from_secs(10), vmm.start());
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    files.assert_copied();
}

#[test]
fn a_reader_that_takes_nothing_costs_the_lines_and_not_the_copy_though_a_bar_goes_on() {
    needs_kvm!();
    // Its lines fill a pipe and a buffer, so that some of them have not been heard when the guest ends.
    let files = Files::random(2 * SMALL).with_old_output(OLD);
    let (_reader, writer) = io::pipe().unwrap();
    let terminal = Terminal::open();
    let running = terminal.attach_stderr(files.vmm()).stdout(writer).start();
    let shown = std::thread::spawn(|| terminal.read_to_end());
    let finished = ends_after(Duration::from_secs(10), running);
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    files.assert_copied();
    let shown = shown.join().unwrap();
    let warning = "vmm: warning: nobody read the run's lines in time";
    assert!(shown.contains(warning), "{shown:?}");
}

#[test]
fn a_signal_ends_a_run_that_waits_for_its_readers_and_leaves_the_old_output() {
    needs_kvm!();
    for options in FORMATS {
        let files = files();
        let (vmm, _readers) = nobody_reads(files.vmm().args(options));
        let running = vmm.start();
        std::thread::sleep(Duration::from_secs(1));
        running.signal(Signal::TERM);
        let finished = ends_after(Duration::ZERO, running);
        assert_eq!(finished.code(), Some(TERMINATED), "{finished:?}");
        files.assert_untouched();
    }
}

#[test]
fn a_signal_at_any_moment_of_the_end_leaves_a_status_that_is_true() {
    needs_kvm!();
    // Half of a run, to begin with. Each signal that comes too late moves the next one back, and each that
    // comes in time moves it on, by less and less: most of them meet the very end.
    let files = Files::random(300_000).with_old_output(OLD);
    let begun = Instant::now();
    files.vmm().succeed();
    let mut delay = begun.elapsed() / 2;
    let mut step = delay / 2;
    let (mut copied, mut ended) = (0, 0);
    for _ in 0..60 {
        let files = Files::random(300_000).with_old_output(OLD);
        let running = files.vmm().start();
        std::thread::sleep(delay);
        running.signal(Signal::TERM);
        let finished = running.finish();
        if finished.code() == Some(0) {
            files.assert_copied();
            copied += 1;
            delay = delay.saturating_sub(step);
        } else {
            files.assert_untouched();
            delay += step;
            // Before signals are taken over there is nothing to take back.
            if finished.code().is_some() {
                assert_eq!(finished.code(), Some(TERMINATED), "{finished:?}");
                ended += 1;
            }
        }
        step = (step * 4 / 5).max(Duration::from_micros(100));
    }
    assert!(copied > 0 && ended > 0, "{copied} copied, {ended} ended");
}

#[test]
fn a_main_loop_that_cannot_wait_ends_the_run_with_a_line_though_it_is_confined() {
    needs_kvm!();
    for options in [&[][..], &["--no-sandbox"]] {
        let files = Files::random(100_000).with_old_output(OLD);
        // As an old container may have it.
        let calls = [libc::SYS_epoll_wait, libc::SYS_epoll_pwait];
        let vmm = files.vmm().args(options);
        let finished = vmm.refused(&calls, libc::ENOSYS).run();
        assert_eq!(finished.code(), Some(HOST_FAILED), "{finished:?}");
        let is_error = |line: &&str| !line.starts_with("vmm: warning: ");
        let lines: Vec<_> = finished.stderr.lines().filter(is_error).collect();
        assert_eq!(lines.len(), 1, "{finished:?}");
        assert!(
            lines[0].starts_with("vmm: cannot wait for "),
            "{finished:?}"
        );
        files.assert_untouched();
    }
}

#[test]
fn signals_that_were_blocked_at_the_start_hold_up_no_end() {
    needs_kvm!();
    let real_time: Vec<i32> = (34..=64).collect();
    for blocked in [real_time, all_signals()] {
        let (files, vmm) = spinning();
        let vmm = vmm.args(&["--timeout", "1"]);
        let limited = vmm.blocking(&blocked).with_limit(Resource::Sigpending, 0);
        let finished = ends_after(Duration::from_secs(1), limited.start());
        finished.assert_failed(TIMED_OUT, "time limit");
        files.assert_untouched();

        let (files, vmm) = spinning();
        let running = vmm.blocking(&blocked).start();
        running.wait_for_guest();
        running.signal(Signal::TERM);
        let finished = ends_after(Duration::ZERO, running);
        finished.assert_failed(TERMINATED, "SIGTERM");
        files.assert_untouched();

        let files = Files::random(100_000);
        files.vmm().blocking(&blocked).succeed();
        files.assert_copied();
    }
}

#[test]
fn signals_that_were_ignored_at_the_start_stay_ignored_and_others_do_not() {
    needs_kvm!();
    for ignored in [Signal::HUP, Signal::INT] {
        let (files, vmm) = spinning();
        let running = vmm.ignoring(&[ignored.as_raw()]).start();
        running.wait_for_guest();
        running.signal(ignored);
        std::thread::sleep(Duration::from_millis(300));
        assert!(!running.has_ended(), "{ignored:?} was not ignored");
        running.signal(Signal::TERM);
        let finished = ends_after(Duration::ZERO, running);
        finished.assert_failed(TERMINATED, "SIGTERM");
        files.assert_untouched();
    }
}

#[test]
fn a_start_with_all_signals_ignored_copies_and_keeps_its_time_limit() {
    needs_kvm!();
    let files = Files::random(100_000);
    files.vmm().ignoring(&all_signals()).succeed();
    files.assert_copied();
    let (files, vmm) = spinning();
    let vmm = vmm.args(&["--timeout", "1"]).ignoring(&all_signals());
    let finished = ends_after(Duration::from_secs(1), vmm.start());
    finished.assert_failed(TIMED_OUT, "time limit");
    files.assert_untouched();
}

#[test]
fn closed_standard_streams_do_not_matter() {
    needs_kvm!();
    for closed in 1..8 {
        let files = Files::random(100_000);
        let vmm = files.vmm().args(&["--debug", "--stats"]);
        let vmm = vmm.stdout(Stdio::null()).stderr(Stdio::null());
        let vmm = vmm.before_start(move || {
            for stream in (0..3).filter(|stream| closed & (1 << stream) != 0) {
                // SAFETY: the program that is about to start does without it.
                unsafe { libc::close(stream) };
            }
            Ok(())
        });
        assert_eq!(vmm.run().code(), Some(0), "streams {closed:03b} closed");
        files.assert_copied();
    }
}

#[test]
fn a_process_that_is_stopped_and_continued_goes_on() {
    needs_kvm!();
    let files = Files::random(2 << 20);
    let vmm = files
        .vmm()
        .args(&["--request-size", "512", "--queue-depth", "1"]);
    let running = vmm.arg("--quiet").start();
    while !running.has_ended() {
        running.signal(Signal::STOP);
        running.signal(Signal::CONT);
        // A VM cannot be made where signals leave it no time at all for that one call, and that is an error.
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(running.finish().code(), Some(0));
    files.assert_copied();
}

#[test]
fn the_first_process_of_a_namespace_copies_and_can_be_ended() {
    needs_kvm!();
    let alone = ["--pid", "--fork", "--mount-proc"];
    if !can_unshare(&alone) {
        return;
    }
    let within = |files: &Files| {
        Vmm::of("unshare".as_ref())
            .args(&alone)
            .arg(common::process::binary())
            .arg("--input")
            .arg(files.input())
            .arg("--output")
            .arg(files.output())
    };
    let files = Files::random(100_000);
    within(&files).succeed();
    files.assert_copied();

    let mut files = Files::random(5000).with_old_output(OLD);
    let guest = files.add("guest", &Program::new().spin_forever().build());
    let running = within(&files).arg(guest).start();
    std::thread::sleep(Duration::from_millis(500));
    let Some(children) = running.children() else {
        return;
    };
    for child in children {
        kill_process(child, Signal::TERM).unwrap();
    }
    let finished = ends_after(Duration::ZERO, running);
    assert_eq!(finished.code(), Some(TERMINATED), "{finished:?}");
    assert!(finished.stderr.contains("SIGTERM"), "{finished:?}");
    files.assert_untouched();
}

#[test]
fn nothing_of_a_run_outlives_it() {
    needs_kvm!();
    // Whoever inherits the pipe keeps it open: a reader sees its end when the last one has ended.
    let files = Files::random(100_000);
    let (mut reader, writer) = io::pipe().unwrap();
    let running = files.vmm().stdout(writer).arg("--quiet").start();
    assert_eq!(running.finish().code(), Some(0));
    let begun = Instant::now();
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    assert!(begun.elapsed() < SLACK);
    files.assert_copied();
}

#[test]
fn a_failed_run_claims_no_more_than_it_wrote() {
    needs_kvm!();
    let (files, vmm) = spinning();
    let vmm = vmm.args(&["--timeout", "1", "--stats"]);
    let finished = vmm.run();
    assert_eq!(finished.code(), Some(TIMED_OUT));
    assert!(
        finished.stderr.contains("written      0 bytes"),
        "{finished:?}"
    );
    assert!(!finished.stderr.contains("copied"), "{finished:?}");
    files.assert_untouched();
}
