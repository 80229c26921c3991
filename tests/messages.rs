//! What a person sees: the exact lines on standard output for every way to ask for them, debug
//! lines on standard error, and a progress bar on a terminal.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::program::Program;
use common::terminal::Terminal;
use common::{Files, needs_kvm, test};
use guest_abi::ports::COM2;

fn main() -> std::process::ExitCode {
    common::harness::main()
}

/// What comes before the progress of a copy of 50 sectors.
const PREPARATION: [&str; 9] = [
    "[INFO] init stage=config device=vmm address=0x3f8",
    "[INFO] init stage=probe device=input address=0x10000000",
    "[INFO] init stage=features device=input address=0x120000066",
    "[INFO] init stage=queue device=input address=0x100",
    "[INFO] capacity device=input sectors=50 bytes=25600",
    "[INFO] init stage=probe device=output address=0x10001000",
    "[INFO] init stage=features device=output address=0x120004246",
    "[INFO] init stage=queue device=output address=0x100",
    "[INFO] capacity device=output sectors=50 bytes=25600",
];
const SECTORS: usize = 50;
const COMPLETE: &str = "[COMPLETE] complete op=copy count=50 success=true";

fn fifty_sectors() -> Files {
    Files::random(SECTORS * 512)
}

fn progress_line(current: usize, total: usize) -> String {
    let percent = current * 100 / total;
    format!("[PROGRESS] progress op=copy {current}/{total} ({percent}%)")
}

/// The progress lines of a copy of `sectors` sectors with these options.
fn progress(sectors: usize, options: &[&str]) -> Vec<String> {
    let finished = Files::random(sectors * 512).vmm().args(options).succeed();
    let is_progress = |line: &&str| line.starts_with("[PROGRESS]");
    let lines = finished.lines();
    lines
        .into_iter()
        .filter(is_progress)
        .map(str::to_owned)
        .collect()
}

/// The counts to report, sector by sector as the documentation has it.
fn expected_counts(total: usize, percent: usize) -> Vec<usize> {
    let crossed = |count: usize| count * 100 / total / percent;
    (1..=total)
        .filter(|&count| match percent {
            0 => count % 10 == 1 || count == total,
            100 => false,
            _ => crossed(count) > crossed(count - 1) || count == total,
        })
        .collect()
}

#[test]
fn fifty_sectors_give_the_lines_of_the_reference() {
    needs_kvm!();
    let finished = fifty_sectors().vmm().succeed();
    let mut expected = PREPARATION.map(str::to_owned).to_vec();
    expected.extend([1, 11, 21, 31, 41, 50].map(|current| progress_line(current, 50)));
    expected.push(COMPLETE.to_owned());
    assert_eq!(finished.lines(), expected);
    assert_eq!(finished.stderr, "");
}

#[test]
fn capacity_and_progress_are_in_sectors_of_each_disks_size() {
    needs_kvm!();
    let finished = Files::random(10_000)
        .vmm()
        .args(&[
            "--input-sector-size",
            "4096",
            "--output-sector-size",
            "1024",
        ])
        .succeed();
    let lines = finished.lines();
    assert_eq!(
        lines[4],
        "[INFO] capacity device=input sectors=3 bytes=12288"
    );
    assert_eq!(
        lines[8],
        "[INFO] capacity device=output sectors=10 bytes=10240"
    );
    assert_eq!(lines[9], progress_line(1, 3));
    assert_eq!(lines[10], progress_line(3, 3));
    assert_eq!(
        lines[11],
        "[COMPLETE] complete op=copy count=3 success=true"
    );
}

#[test]
fn progress_comes_when_each_interval_is_crossed() {
    needs_kvm!();
    for total in [1, 7, 50, 100, 333] {
        for percent in [0, 1, 10, 30, 99, 100] {
            let counts = expected_counts(total, percent);
            let expected: Vec<_> = counts.iter().map(|&n| progress_line(n, total)).collect();
            let found = progress(total, &["--progress-percent", &percent.to_string()]);
            assert_eq!(found, expected, "{total} sectors, every {percent} %");
        }
    }
}

#[test]
fn the_lines_are_the_same_for_every_shape_of_requests() {
    needs_kvm!();
    let expected: Vec<_> = expected_counts(333, 0)
        .iter()
        .map(|&n| progress_line(n, 333))
        .collect();
    for request in ["512", "1024", "65536", "1048576"] {
        for depth in ["1", "2", "7", "682"] {
            let options = ["--request-size", request, "--queue-depth", depth];
            assert_eq!(progress(333, &options), expected, "{options:?}");
        }
    }
}

#[test]
fn an_empty_input_is_complete_without_progress() {
    needs_kvm!();
    let finished = Files::random(0).vmm().succeed();
    let lines = finished.lines();
    assert_eq!(
        lines.last(),
        Some(&"[COMPLETE] complete op=copy count=0 success=true")
    );
    assert!(!finished.stdout.contains("[PROGRESS]"), "{finished:?}");
}

#[test]
fn the_text_protocols_lines_are_passed_on_as_they_are() {
    needs_kvm!();
    let finished = fifty_sectors()
        .vmm()
        .args(&["--protocol", "text"])
        .succeed();
    let expected = [
        "Input: 50 sectors (25600 bytes)",
        "Output: 50 sectors (25600 bytes)",
        "Progress: 1/50",
        "Progress: 11/50",
        "Progress: 21/50",
        "Progress: 31/50",
        "Progress: 41/50",
        "Progress: 50/50",
        "Copy complete: 50 sectors",
    ];
    assert_eq!(finished.lines(), expected);
}

#[test]
fn quiet_prints_nothing_of_a_copy_that_succeeds() {
    needs_kvm!();
    for protocol in ["protobuf", "text"] {
        let options = ["--quiet", "--protocol", protocol];
        let finished = fifty_sectors().vmm().args(&options).succeed();
        assert_eq!(
            (finished.stdout.as_str(), finished.stderr.as_str()),
            ("", ""),
            "{protocol}"
        );
    }
}

#[test]
fn quiet_still_prints_the_reason_of_a_failure() {
    needs_kvm!();
    let mut files = fifty_sectors();
    let guest = files.add("guest", &Program::new().exit(1).build());
    let finished = files.vmm().arg("--quiet").arg(guest).run();
    finished.assert_failed(4, "(exit status 1)");
}

#[test]
fn debug_lines_go_to_standard_error_when_asked_for() {
    needs_kvm!();
    let finished = fifty_sectors().vmm().arg("--debug").succeed();
    assert!(!finished.stdout.contains("[DEBUG]"), "{finished:?}");
    let lines: Vec<&str> = finished.stderr.lines().collect();
    assert!(!lines.is_empty());
    assert!(
        lines.iter().all(|line| line.starts_with("[DEBUG] ")),
        "{finished:?}"
    );
}

#[test]
fn without_being_asked_for_the_last_debug_lines_are_shown_only_on_failure() {
    needs_kvm!();
    let mut files = fifty_sectors();
    let say = (0..20).fold(Program::new(), |program, number| {
        program.send(COM2, format!("line {number}\n").as_bytes())
    });
    let guest = files.add("guest", &say.exit(1).build());
    let finished = files.vmm().arg(guest).run();
    finished.assert_failed(4, "(exit status 1)");
    let lines: Vec<&str> = finished.stderr.lines().collect();
    assert_eq!(lines[lines.len() - 2], "[DEBUG] line 19");
    assert!(lines.len() < 12, "only the last few: {lines:?}");
    assert_eq!(fifty_sectors().vmm().succeed().stderr, "");
}

/// Runs a copy with both streams on one terminal and returns what it shows.
fn on_a_terminal(options: &[&str]) -> String {
    let files = fifty_sectors();
    let terminal = Terminal::open();
    let vmm = terminal.attach(files.vmm()).args(options);
    let finished = vmm.start();
    let shown = terminal.read_to_end();
    assert_eq!(finished.finish().code(), Some(0), "{shown}");
    files.assert_copied();
    shown
}

#[test]
fn on_a_terminal_there_is_a_bar_and_no_lines() {
    needs_kvm!();
    let shown = on_a_terminal(&[]);
    assert!(shown.contains("100%"), "{shown:?}");
    assert!(
        !shown.contains("[INFO]") && !shown.contains("[PROGRESS]"),
        "{shown:?}"
    );
}

#[test]
fn on_a_terminal_verbose_shows_the_bar_and_the_lines() {
    needs_kvm!();
    let shown = on_a_terminal(&["--verbose"]);
    assert!(shown.contains("100%"), "{shown:?}");
    assert!(
        shown.contains(PREPARATION[1]) && shown.contains(COMPLETE),
        "{shown:?}"
    );
}

#[test]
fn on_a_terminal_quiet_shows_nothing() {
    needs_kvm!();
    assert_eq!(on_a_terminal(&["--quiet"]), "");
}
