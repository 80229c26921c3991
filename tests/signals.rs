//! Signals, kills, streams that nobody reads and files that fail under a run: the output is the
//! complete copy or what it was before, and the run ends.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use common::files::{random, spinning};
use common::mount::Mounted;
use common::program::Program;
use common::{Files, Finished, Running, Vmm, needs_kvm, skip, test};
use rustix::process::Signal;

fn main() -> std::process::ExitCode {
    common::harness::main()
}

const HOST_FAILED: i32 = 3;
const OLD: &[u8] = b"what was there before";
/// A copy of so much takes long enough to be met in the middle.
const LARGE: usize = 64 << 20;

/// So soon a run ends that is told to, on a host that has much to do.
const SOON: Duration = Duration::from_secs(5);

/// One sector a request, one request at a time, and a report for every tenth: as slow as it gets.
fn slow(files: &Files) -> Vmm {
    files
        .vmm()
        .args(&["--request-size", "512", "--queue-depth", "1"])
}

/// Sends `signal` a while after the start and returns the end, which must come soon.
fn interrupt(running: Running, signal: Signal) -> Finished {
    running.wait_for_guest();
    interrupt_now(running, signal)
}

fn interrupt_now(running: Running, signal: Signal) -> Finished {
    std::thread::sleep(Duration::from_millis(50));
    let sent = Instant::now();
    running.signal(signal);
    let finished = running.finish();
    let taken = sent.elapsed();
    assert!(taken < SOON, "it took {taken:?}");
    finished
}

/// The scheduling policy of the thread with this name (proc_pid_stat(5)).
fn policy(running: &Running, name: &str) -> i32 {
    let tasks = format!("/proc/{}/task", running.pid().as_raw_nonzero());
    let mut stats = fs::read_dir(tasks).unwrap().map(|task| {
        let stat = task.unwrap().path().join("stat");
        fs::read_to_string(stat).unwrap()
    });
    let stat = stats
        .find(|stat| stat.contains(&format!("({name})")))
        .unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    // The state, which comes first here, is the third of all fields, and the policy the 41st.
    fields.split(' ').nth(41 - 3).unwrap().parse().unwrap()
}

/// With the only processor for itself it could be ended by nobody.
#[test]
fn a_guest_has_no_real_time_priority_over_what_ends_it() {
    needs_kvm!();
    let (files, vmm) = spinning();
    let vmm = vmm.before_start(|| {
        // SAFETY: all zeros are a valid value.
        let mut priority: libc::sched_param = unsafe { std::mem::zeroed() };
        priority.sched_priority = 1;
        // Who may not do so has nothing to test.
        // SAFETY: `priority` is valid for reading.
        unsafe {
            libc::syscall(
                libc::SYS_sched_setscheduler,
                0,
                libc::SCHED_RR,
                &raw const priority,
            )
        };
        Ok(())
    });
    let running = vmm.start();
    running.wait_for_guest();
    if policy(&running, "watcher") != libc::SCHED_RR {
        return skip("this user may not use real-time scheduling");
    }
    let begun = Instant::now();
    while policy(&running, "vcpu") != libc::SCHED_OTHER {
        assert!(begun.elapsed() < SOON, "it has real-time priority");
        std::thread::sleep(Duration::from_millis(1));
    }
    let finished = interrupt(running, Signal::TERM);
    assert_eq!(finished.code(), Some(143), "{finished:?}");
    files.assert_untouched();
}

#[test]
fn a_signal_ends_a_run_with_its_own_status_and_leaves_nothing_behind() {
    needs_kvm!();
    for (signal, code, name) in [
        (Signal::INT, 130, "SIGINT"),
        (Signal::TERM, 143, "SIGTERM"),
        (Signal::HUP, 129, "SIGHUP"),
    ] {
        let (files, vmm) = spinning();
        interrupt(vmm.start(), signal).assert_failed(code, &format!("ended by {name}"));
        files.assert_untouched();

        let files = Files::random(LARGE).with_old_output(OLD);
        interrupt(slow(&files).start(), signal).assert_failed(code, &format!("ended by {name}"));
        files.assert_untouched();
    }
}

#[test]
fn a_signal_ends_a_guest_that_waits_or_floods() {
    needs_kvm!();
    let flood = Program::new().send(guest_abi::ports::COM2, &[b'x'; 4096]);
    for program in [
        Program::new().repeat(u32::MAX, &flood),
        Program::new().repeat(u32::MAX, &Program::new().load32(0x1000_0000)),
    ] {
        let mut files = Files::random(5000);
        let guest = files.add("guest", &program.build());
        let finished = interrupt(files.vmm().arg(guest).start(), Signal::INT);
        finished.assert_failed(130, "ended by SIGINT");
        files.assert_untouched();
    }
}

#[test]
fn a_kill_at_any_moment_leaves_the_old_output_or_the_copy() {
    needs_kvm!();
    let content = random(LARGE / 4, 3);
    let (mut old, mut copied) = (0, 0);
    for (round, moments) in random(100, 4).chunks(10).enumerate() {
        // One folder for ten kills: what each leaves must not harm the next.
        let files = Files::new(&content);
        let files = if round % 2 == 0 {
            files
        } else {
            files.with_old_output(OLD)
        };
        for &moment in moments {
            let running = files.vmm().args(&["--progress-percent", "100"]).start();
            std::thread::sleep(Duration::from_millis(u64::from(moment) / 2));
            running.signal(Signal::KILL);
            running.finish();
            if files.assert_old_or_copied() {
                copied += 1;
                files.restore_output();
            } else {
                old += 1;
            }
        }
    }
    assert!(
        old > 0,
        "no kill met a copy under way: {copied} were complete"
    );
}

#[test]
fn a_closed_standard_output_does_not_stop_the_copy() {
    needs_kvm!();
    let files = Files::random(2 << 20);
    let (reader, writer) = io::pipe().unwrap();
    let running = files.vmm().stdout(writer).start();
    let mut first = [0; 1];
    (&reader).read_exact(&mut first).unwrap();
    drop(reader);
    assert_eq!(running.finish().code(), Some(0));
    files.assert_copied();
}

#[test]
fn streams_without_any_reader_do_not_stop_the_copy() {
    needs_kvm!();
    let files = Files::random(100_000);
    let broken = || io::pipe().unwrap().1;
    let vmm = files.vmm().arg("--debug").stdout(broken()).stderr(broken());
    assert_eq!(vmm.run().code(), Some(0));
    files.assert_copied();
}

/// A run whose lines do not fit into a pipe that nobody reads, some time after it has filled it.
fn stuck(files: &Files) -> (Running, io::PipeReader) {
    let (reader, writer) = io::pipe().unwrap();
    let running = files.vmm().stdout(writer).start();
    running.wait_for_guest();
    std::thread::sleep(Duration::from_millis(300));
    assert!(!running.has_ended(), "its lines are lost");
    (running, reader)
}

#[test]
fn a_standard_output_that_is_read_late_gets_all_lines_of_an_exact_copy() {
    needs_kvm!();
    let files = Files::random(20 << 20);
    let (running, mut reader) = stuck(&files);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(running.finish().code(), Some(0));
    files.assert_copied();
    let progress = text.lines().filter(|line| line.starts_with("[PROGRESS]"));
    assert_eq!(
        progress.count(),
        4096 + 1,
        "sectors 1, 11, ... 40951, and 40960"
    );
    assert!(text.ends_with("count=40960 success=true\n"));
}

#[test]
fn a_signal_ends_a_run_whose_standard_output_is_stuck() {
    needs_kvm!();
    let files = Files::random(20 << 20).with_old_output(OLD);
    let (running, reader) = stuck(&files);
    // The guest may have ended already.
    let finished = interrupt_now(running, Signal::INT);
    finished.assert_failed(130, "ended by SIGINT");
    files.assert_old_or_copied();
    drop(reader);
}

/// What must hold of a run whose output could not be written at `offset` or behind it.
#[track_caller]
fn assert_write_failed(finished: &Finished, reason: &str) {
    finished.assert_failed(HOST_FAILED, "cannot write the output");
    for part in ["output.img", "at offset ", reason] {
        assert!(
            finished.stderr.contains(part),
            "expected {part:?} in {finished:?}"
        );
    }
    let error = "[ERROR] error op=write device=output sector=";
    assert!(finished.stdout.contains(error), "{finished:?}");
    assert!(finished.stdout.ends_with("success=false\n"), "{finished:?}");
}

#[test]
fn a_file_size_limit_is_found_before_anything_is_copied() {
    needs_kvm!();
    let files = Files::random(200_000).with_old_output(OLD);
    let finished = files.vmm().with_file_size_limit(100_000).run();
    finished.assert_failed(3, "200000 bytes long: File too large");
    assert_eq!(finished.stdout, "");
    files.assert_untouched();
}

#[test]
fn a_full_file_system_is_a_write_error_with_file_offset_and_reason() {
    needs_kvm!();
    let input = Files::random(3 << 20);
    let folder = tempfile::tempdir().unwrap();
    let mounted = Mounted::with("size=1m", "tmpfs", Path::new("none"), folder.path());
    let Some(_mounted) = mounted else {
        return;
    };
    let output = folder.path().join("output.img");
    fs::write(&output, OLD).unwrap();
    let finished = Vmm::copying(&input.input(), &output).run();
    assert_write_failed(&finished, "No space left on device");
    assert_eq!(fs::read(&output).unwrap(), OLD);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    input.assert_untouched();
}

/// Stops a slow copy in its middle, lets `change` happen, and returns how it went on.
fn change_during_a_copy(files: &Files, change: impl FnOnce()) -> Finished {
    let running = slow(files).start();
    running.meanwhile(change);
    running.finish()
}

#[test]
fn an_input_that_shrinks_during_the_copy_is_a_read_error() {
    needs_kvm!();
    let files = Files::random(LARGE);
    let finished = change_during_a_copy(&files, || {
        let input = File::options().write(true).open(files.input()).unwrap();
        input.set_len(1000).unwrap();
    });
    finished.assert_failed(HOST_FAILED, "has shrunk since");
    assert!(
        finished.stderr.contains("input.img at offset "),
        "{finished:?}"
    );
    let error = "[ERROR] error op=read device=input sector=";
    assert!(
        finished.stdout.contains(error),
        "no {error:?} on standard output"
    );
    assert!(!files.output().exists());
}

#[test]
fn an_output_folder_that_vanishes_during_the_copy_is_an_error() {
    needs_kvm!();
    let files = Files::random(1 << 20);
    let folder = files.path("folder");
    fs::create_dir(&folder).unwrap();
    let running = Vmm::copying(&files.input(), &folder.join("output.img"))
        .args(&["--request-size", "512", "--queue-depth", "1", "--quiet"])
        .start();
    running.meanwhile(|| fs::remove_dir(&folder).unwrap());
    let finished = running.finish();
    finished.assert_failed(HOST_FAILED, "in place");
    assert!(
        finished.stderr.contains("its folder is gone"),
        "{finished:?}"
    );
    assert!(!folder.exists());
    files.assert_untouched();
}
