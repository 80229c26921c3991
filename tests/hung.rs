//! Files on a file system that does not answer: signals and the time limit end a run all the same,
//! before there is a machine, while it copies, when the output gets its name, and after that.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, Instant};

use common::files::assert_same_large;
use common::fuse::{Hanging, Silence};
use common::mount::can_unshare;
use common::process::binary;
use common::terminal::Terminal;
use common::{Files, Finished, Running, Vmm, hanging, needs_kvm, test};
use rustix::process::{Signal, kill_process};

fn main() -> std::process::ExitCode {
    common::harness::main()
}

const TIMED_OUT: i32 = 124;
const TERMINATED: i32 = 143;
const OLD: &[u8] = b"what was there before";
/// What a busy host may add to any time.
const SLACK: Duration = Duration::from_secs(8);
/// So long the runtime waits for a thread that hangs, or the watcher for the main thread.
const PATIENCE: Duration = Duration::from_secs(2).saturating_add(SLACK);
/// So long the watcher waits while the output gets its name, or when it has it.
const PATIENCE_IN_THE_END: Duration = Duration::from_secs(4).saturating_add(SLACK);
/// The same, if the time limit has passed and nobody has sent a signal.
const PATIENCE_FOR_A_COMMIT: Duration = Duration::from_secs(10).saturating_add(SLACK);

fn files() -> Files {
    Files::random(200 * 512).with_image().with_old_output(OLD)
}

/// Ends `running` by SIGTERM once it hangs, or lets the time limit do it, which must not take longer
/// than `patience`.
#[track_caller]
fn ended(running: Running, hanging: &Hanging, signal: bool, patience: Duration) -> Finished {
    hanging.wait();
    let begun = Instant::now();
    assert!(!running.has_ended(), "nothing hung: {:?}", running.finish());
    if signal {
        running.signal(Signal::TERM);
    }
    let finished = running.finish();
    let taken = begun.elapsed();
    assert!(taken < patience, "it took {taken:?}: {finished:?}");
    // Beside what tells which thread the system keeps.
    let lines = finished.stderr.lines();
    let reasons = lines.filter(|line| !line.starts_with("vmm: warning: the thread "));
    assert!(reasons.count() <= 1, "{finished:?}");
    finished
}

/// The status of a run that is ended like this, as a shell shows it.
#[track_caller]
fn status_of(running: Running, hanging: &Hanging, signal: bool) -> Option<i32> {
    let status = ended(running, hanging, signal, PATIENCE).status;
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
}

/// Runs, once for a signal and once for the time limit, what `run` makes of files and a file system
/// with this silence. The main thread hangs in a system call named `call`: the process ends, and a line
/// says where it hung and `what` more.
#[track_caller]
fn assert_the_main_thread_does_not_keep_the_run(
    silence: Silence,
    call: &str,
    what: &str,
    patience: [Duration; 2],
    run: impl Fn(&Files, &Hanging) -> Vmm,
) {
    for (signal, patience) in [true, false].into_iter().zip(patience) {
        let Some(hanging) = hanging(silence, true) else {
            return;
        };
        let files = files();
        let vmm = run(&files, &hanging).args(limit(signal));
        let finished = ended(vmm.start(), &hanging, signal, patience);
        assert_eq!(finished.code(), expected(signal), "{finished:?}");
        let line = &finished.stderr;
        let cause = match signal {
            true => "vmm: ended by SIGTERM while it waited for the system call ",
            false => {
                "vmm: the run was not over within the time limit of 2 s; it was ended while it \
                 waited for the system call "
            }
        };
        assert!(line.starts_with(cause), "{finished:?}");
        assert!(line[cause.len()..].starts_with(call), "{finished:?}");
        assert!(line.contains(what), "{finished:?}");
        files.assert_untouched();
    }
}

/// A new output on the file system.
fn new_output(files: &Files, hanging: &Hanging) -> Vmm {
    Vmm::copying(&files.input(), &hanging.folder().join("new"))
}

/// An output that is there already.
fn replaced_output(files: &Files, hanging: &Hanging) -> Vmm {
    Vmm::copying(&files.input(), &hanging.file())
}

/// The options that end a run after 2 s, unless a signal is to do it.
fn limit(signal: bool) -> &'static [&'static str] {
    if signal { &[] } else { &["--timeout", "2"] }
}

fn expected(signal: bool) -> Option<i32> {
    Some(if signal { TERMINATED } else { TIMED_OUT })
}

#[test]
fn a_guest_or_statistics_that_hang_do_not_keep_the_run() {
    needs_kvm!();
    let run = |with: &dyn Fn(&Files, &Path) -> Vmm| {
        for signal in [true, false] {
            let Some(hanging) = hanging(Silence::Lookups, true) else {
                return;
            };
            let files = files();
            let vmm = with(&files, &hanging.file()).args(limit(signal));
            assert_eq!(status_of(vmm.start(), &hanging, signal), expected(signal));
            files.assert_untouched();
        }
    };
    run(&|files, path| files.vmm().arg(path));
    run(&|files, path| files.vmm().arg("--stats-file").arg(path));
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
    hanging.wait();
    let begun = Instant::now();
    running.signal(Signal::TERM);
    let told: Vec<_> = BufReader::new(reader).lines().take(2).collect();
    let told = told.into_iter().map(Result::unwrap).collect::<Vec<_>>();
    let stuck = "vmm: warning: the thread input waits for the system, which may keep the process until \
                 it answers";
    assert_eq!(told, [stuck, "vmm: ended by SIGTERM"]);
    let taken = begun.elapsed();
    assert!(taken < PATIENCE, "it took {taken:?}");
    // The kernel keeps the process until the file system has answered: not even SIGKILL ends it.
    hanging.answer();
    assert_eq!(running.finish().code(), Some(TERMINATED));
    files.assert_untouched();
}

const NOT_REPLACED: &str = "; the output has not been replaced, and ";

#[test]
fn an_output_that_hangs_when_it_is_prepared_does_not_keep_the_run() {
    needs_kvm!();
    let patience = [PATIENCE; 2];
    assert_the_main_thread_does_not_keep_the_run(
        Silence::UnnamedFiles,
        "openat",
        NOT_REPLACED,
        patience,
        new_output,
    );
    assert_the_main_thread_does_not_keep_the_run(
        Silence::Attributes,
        "lgetxattr",
        NOT_REPLACED,
        patience,
        replaced_output,
    );
}

#[test]
fn an_input_whose_holes_are_not_told_does_not_keep_the_run() {
    needs_kvm!();
    let run = |files: &Files, hanging: &Hanging| Vmm::copying(&hanging.file(), &files.output());
    let patience = [PATIENCE; 2];
    let silence = Silence::Seeks;
    assert_the_main_thread_does_not_keep_the_run(silence, "lseek", NOT_REPLACED, patience, run);
}

#[test]
fn an_input_whose_holes_are_told_slowly_does_not_keep_the_run() {
    needs_kvm!();
    for signal in [true, false] {
        let Some(hanging) = hanging(Silence::SlowSeeks, true) else {
            return;
        };
        let files = files();
        let vmm = Vmm::copying(&hanging.file(), &files.output());
        let finished = ended(vmm.args(limit(signal)).start(), &hanging, signal, PATIENCE);
        assert_eq!(finished.code(), expected(signal), "{finished:?}");
        assert!(finished.stderr.contains(NOT_REPLACED), "{finished:?}");
        files.assert_untouched();
    }
}

#[test]
fn a_last_look_at_holes_that_are_told_slowly_is_no_hang_and_ends_with_a_signal() {
    needs_kvm!();
    let Some(hanging) = hanging(Silence::SlowSeeksInTheEnd, true) else {
        return;
    };
    let files = files();
    let running = Vmm::copying(&hanging.file(), &files.output()).start();
    let finished = ended(running, &hanging, true, PATIENCE);
    assert_eq!(finished.code(), Some(TERMINATED), "{finished:?}");
    assert_eq!(finished.stderr, "vmm: ended by SIGTERM\n");
    files.assert_untouched();
}

#[test]
fn a_check_of_a_folder_that_hangs_ends_with_its_last_object() {
    needs_kvm!();
    let check = |hanging: &Hanging| {
        let check = Vmm::bare().args(&["--check", "--format", "json"]);
        let running = check.arg(hanging.folder()).start();
        hanging.wait();
        running.signal(Signal::TERM);
        running
    };
    // One that goes on when it is told to end, and one that does not.
    for goes_on in [true, false] {
        let Some(hanging) = hanging(Silence::UnnamedFiles, true) else {
            return;
        };
        let running = check(&hanging);
        if goes_on {
            hanging.answer();
        }
        let finished = running.finish();
        assert_eq!(finished.code(), Some(TERMINATED), "{finished:?}");
        let line = "vmm: ended by SIGTERM";
        assert!(finished.stderr.starts_with(line), "{finished:?}");
        let last = "{\"type\":\"host_check\",\"would_run\":false,\"status\":143}";
        assert_eq!(finished.lines().last(), Some(&last), "{finished:?}");
        assert_eq!(finished.lines().len() > 1, goes_on, "{finished:?}");
    }
}

#[test]
fn lines_that_go_to_a_file_that_hangs_do_not_keep_the_run() {
    needs_kvm!();
    let run = |files: &Files, hanging: &Hanging| {
        let file = File::options().write(true).open(hanging.file()).unwrap();
        files.vmm().stdout(file)
    };
    let call = "write to standard output; ";
    let patience = [PATIENCE; 2];
    let silence = Silence::Writes;
    assert_the_main_thread_does_not_keep_the_run(silence, call, NOT_REPLACED, patience, run);
}

#[test]
fn serial_input_from_a_file_that_hangs_does_not_keep_the_run() {
    needs_kvm!();
    let run = |files: &Files, hanging: &Hanging| {
        let vmm = files.vmm().arg("--serial-input");
        vmm.stdin(File::open(hanging.file()).unwrap())
    };
    let call = "read from standard input; ";
    let patience = [PATIENCE; 2];
    let silence = Silence::Reads;
    assert_the_main_thread_does_not_keep_the_run(silence, call, NOT_REPLACED, patience, run);
}

#[test]
fn a_terminal_gets_its_settings_back_from_a_run_that_hangs() {
    needs_kvm!();
    let Some(hanging) = hanging(Silence::Writes, true) else {
        return;
    };
    let files = files();
    let terminal = Terminal::open();
    let before = terminal.settings();
    let file = File::options().write(true).open(hanging.file()).unwrap();
    let vmm = files.vmm().arg("--serial-input").stdout(file);
    let running = terminal.attach_stdin(vmm).start();
    running.wait_for_guest();
    assert_ne!(terminal.settings(), before);
    let finished = ended(running, &hanging, true, PATIENCE);
    assert_eq!(finished.code(), Some(TERMINATED), "{finished:?}");
    assert_eq!(terminal.settings(), before);
    files.assert_untouched();
}

#[test]
fn a_standard_error_that_hangs_keeps_the_line_and_not_the_run() {
    needs_kvm!();
    for signal in [true, false] {
        let Some(hanging) = hanging(Silence::Writes, true) else {
            return;
        };
        let files = files();
        let file = File::options().write(true).open(hanging.file()).unwrap();
        // It begins with a warning.
        let vmm = files.vmm().arg("--no-sandbox").stderr(file);
        let finished = ended(vmm.args(limit(signal)).start(), &hanging, signal, PATIENCE);
        assert_eq!(finished.code(), expected(signal), "{finished:?}");
        files.assert_untouched();
    }
}

#[test]
fn an_alarm_that_has_waited_since_before_the_start_does_not_keep_the_line() {
    needs_kvm!();
    let Some(hanging) = hanging(Silence::Lookups, true) else {
        return;
    };
    let files = files();
    let vmm = Vmm::copying(&hanging.file(), &files.output()).args(limit(false));
    let vmm = vmm.blocking(&[libc::SIGALRM]).before_start(|| {
        // SAFETY: the signal goes to this thread, in which it is blocked.
        unsafe { libc::raise(libc::SIGALRM) };
        Ok(())
    });
    let finished = ended(vmm.start(), &hanging, false, PATIENCE);
    assert_eq!(finished.code(), Some(TIMED_OUT), "{finished:?}");
    assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
}

/// The kernel drops a signal for such a process that would end any other.
#[test]
fn the_first_process_of_a_namespace_is_ended_by_a_signal_too() {
    needs_kvm!();
    if !can_unshare(&["--pid", "--fork", "--kill-child"]) {
        return;
    }
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let Some(hanging) = hanging(Silence::Lookups, true) else {
            return;
        };
        let files = files();
        let unshare = Vmm::of(Path::new("unshare")).args(&["--pid", "--fork", "--kill-child"]);
        let copy = unshare.arg(binary()).arg(hanging.file());
        let running = copy.arg(files.output()).start();
        hanging.wait();
        let Some(children) = running.children() else {
            return;
        };
        kill_process(children[0], signal).unwrap();
        let finished = running.finish();
        assert_eq!(finished.code(), Some(128 + signal.as_raw()), "{finished:?}");
        let line = "while it waited for the system call ";
        assert!(finished.stderr.contains(line), "{finished:?}");
        files.assert_untouched();
    }
}

#[test]
fn a_line_that_cannot_be_said_either_is_bounded_by_an_alarm() {
    needs_kvm!();
    let Some(hanging) = hanging(Silence::Writes, true) else {
        return;
    };
    let files = files();
    let open = || File::options().write(true).open(hanging.file()).unwrap();
    let running = files.vmm().stdout(open()).stderr(open()).start();
    let finished = ended(running, &hanging, true, PATIENCE + Duration::from_secs(2));
    assert_eq!(
        finished.status.signal(),
        Some(libc::SIGALRM),
        "{finished:?}"
    );
    files.assert_untouched();
}

#[test]
fn an_output_that_hangs_when_it_gets_its_name_does_not_keep_the_run() {
    needs_kvm!();
    let patience = [PATIENCE_IN_THE_END, PATIENCE_FOR_A_COMMIT];
    let what = "; the output may be in place, and is complete if it is; ";
    let (silence, call) = (Silence::LinksInTheEnd, "linkat");
    assert_the_main_thread_does_not_keep_the_run(silence, call, what, patience, new_output);
    let (silence, call) = (Silence::RenamesInTheEnd, "renameat");
    assert_the_main_thread_does_not_keep_the_run(silence, call, what, patience, replaced_output);
    let (silence, call) = (Silence::ClosesInTheEnd, "close");
    assert_the_main_thread_does_not_keep_the_run(silence, call, what, patience, new_output);
}

#[test]
fn a_folder_that_hangs_when_the_output_is_in_place_costs_a_warning_alone() {
    needs_kvm!();
    for signal in [true, false] {
        let Some(hanging) = hanging(Silence::FolderSyncs, true) else {
            return;
        };
        let files = files();
        let vmm = new_output(&files, &hanging)
            .arg("--fsync")
            .args(limit(signal));
        let finished = ended(vmm.start(), &hanging, signal, PATIENCE_FOR_A_COMMIT);
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        let line = &finished.stderr;
        assert!(line.starts_with("vmm: warning: "), "{finished:?}");
        let what = "the system call fsync; the output is complete and in place\n";
        assert!(line.ends_with(what), "{finished:?}");
    }
}

#[test]
fn a_name_that_was_given_although_the_answer_says_no_is_no_failure() {
    needs_kvm!();
    let Some(hanging) = hanging(Silence::LostAnswers, true) else {
        return;
    };
    let files = files();
    for vmm in [new_output, replaced_output] {
        let finished = vmm(&files, &hanging).run();
        assert_eq!(finished.code(), Some(0), "{finished:?}");
    }
    for output in [hanging.folder().join("new"), hanging.file()] {
        assert_same_large(&files.input(), &output);
    }
}

#[test]
fn a_hole_at_the_end_is_copied_where_files_grow_by_writes_alone() {
    needs_kvm!();
    let Some(hanging) = hanging(Silence::Lengths, true) else {
        return;
    };
    let files = files();
    let input = File::options().write(true).open(files.input()).unwrap();
    input.set_len(300_001).unwrap();
    let finished = new_output(&files, &hanging).run();
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    assert_same_large(&files.input(), &hanging.folder().join("new"));
}

#[test]
fn a_conversion_does_not_hang_in_its_output_either() {
    needs_kvm!();
    let patience = [PATIENCE_IN_THE_END, PATIENCE_FOR_A_COMMIT];
    let run = |files: &Files, hanging: &Hanging| {
        let vmm = Vmm::bare().arg("convert").arg(files.image());
        vmm.arg(hanging.folder().join("new"))
    };
    let (silence, call) = (Silence::LinksInTheEnd, "linkat");
    assert_the_main_thread_does_not_keep_the_run(silence, call, "complete", patience, run);
}

#[test]
fn statistics_that_hang_keep_neither_the_run_nor_the_copy() {
    needs_kvm!();
    for signal in [true, false] {
        let Some(hanging) = hanging(Silence::Writes, true) else {
            return;
        };
        let files = files();
        let vmm = files.vmm().arg("--stats-file").arg(hanging.file());
        let running = vmm.args(limit(signal)).start();
        let finished = ended(running, &hanging, signal, PATIENCE_IN_THE_END);
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        let line = &finished.stderr;
        assert!(line.starts_with("vmm: warning: "), "{finished:?}");
        let end = "for the system call write; the output is complete and in place\n";
        assert!(line.ends_with(end), "{finished:?}");
        files.assert_copied();
    }
}

#[test]
fn a_look_at_a_folder_that_hangs_is_ended_by_a_signal() {
    let Some(hanging) = hanging(Silence::UnnamedFiles, true) else {
        return;
    };
    let vmm = Vmm::bare().arg("--check").arg(hanging.folder());
    let finished = ended(vmm.start(), &hanging, true, PATIENCE);
    let line = "vmm: ended by SIGTERM while it waited for the system call openat\n";
    assert_eq!(finished.stderr, line, "{finished:?}");
    assert_eq!(finished.code(), Some(TERMINATED), "{finished:?}");
}

#[test]
fn a_program_that_reads_what_is_said_is_told_the_end_of_a_run_that_did_not_begin() {
    needs_kvm!();
    for signal in [true, false] {
        let Some(hanging) = hanging(Silence::UnnamedFiles, true) else {
            return;
        };
        let files = files();
        let vmm = new_output(&files, &hanging).args(&["--format", "json"]);
        let finished = ended(vmm.args(limit(signal)).start(), &hanging, signal, PATIENCE);
        assert_eq!(finished.code(), expected(signal), "{finished:?}");
        assert_eq!(finished.stdout.lines().count(), 1, "{finished:?}");
        let outcome = if signal { "interrupted" } else { "timed_out" };
        let field = format!("\"outcome\":\"{outcome}\"");
        assert!(
            finished.stdout.starts_with("{\"type\":\"result\""),
            "{finished:?}"
        );
        assert!(finished.stdout.contains(&field), "{finished:?}");
    }
}

#[test]
fn a_close_that_nothing_can_end_does_not_keep_the_user_from_being_told() {
    needs_kvm!();
    let Some(hanging) = hanging(Silence::ClosesInTheEnd, false) else {
        return;
    };
    let files = files();
    let (reader, writer) = io::pipe().unwrap();
    let running = new_output(&files, &hanging).stderr(writer).start();
    hanging.wait();
    let begun = Instant::now();
    running.signal(Signal::TERM);
    let mut line = String::new();
    BufReader::new(reader).read_line(&mut line).unwrap();
    let start = "vmm: ended by SIGTERM while it waited for the system call close; ";
    assert!(line.starts_with(start), "{line}");
    let taken = begun.elapsed();
    assert!(taken < PATIENCE_IN_THE_END, "it took {taken:?}");
    hanging.answer();
    assert_eq!(running.finish().code(), Some(TERMINATED));
}
