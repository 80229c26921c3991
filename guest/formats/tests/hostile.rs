//! Images that lie: each is refused for the right reason or read right, in little time, with few
//! reads and in little memory.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a failure in a test is to panic"
)]

#[path = "hostile/mod.rs"]
mod cases;
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use guest_formats::qcow2::{Check, CheckOptions};
use guest_formats::{Image, Options, Reason, Survey, inspect};
use support::Counting;

/// The most memory that looking into and mapping an image may take: what the crate promises.
const MOST_MEMORY: usize = 320 << 10;
/// The most reads for the headers.
const MOST_READS: u64 = 500;
/// The longest that one image may take on a processor, in a build without optimisation.
const LONGEST: Duration = Duration::from_secs(2);

thread_local! {
    static NOW: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, which counts for each thread.
struct Counted;

#[global_allocator]
static ALLOCATOR: Counted = Counted;

// SAFETY: all calls go to the system's allocator as they come; the counters allocate nothing.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = NOW.try_with(|now| {
            now.set(now.get().saturating_add(layout.size()));
            let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now.get())));
        });
        // SAFETY: the caller keeps to the contract of this same function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let _ = NOW.try_with(|now| now.set(now.get().saturating_sub(layout.size())));
        // SAFETY: the caller keeps to the contract of this same function.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// How long this thread has been on a processor (proc(5)): others may use the host as well.
fn on_processor() -> Duration {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = times.split(' ').next().and_then(|time| time.parse().ok());
    Duration::from_nanos(first.unwrap_or(0))
}

/// Checks one image: `expected` is among the reasons, or nothing speaks against it.
fn judge(name: &str, bytes: &[u8], options: &Options, expected: Option<Reason>) {
    let start = on_processor();
    let before = NOW.get();
    PEAK.set(before);
    let found = cases::reasons(bytes, options);
    let peak = PEAK.get() - before;
    assert!(peak < MOST_MEMORY, "{name}: {peak} bytes of memory");
    let taken = on_processor().saturating_sub(start);
    assert!(taken < LONGEST, "{name}: {taken:?}");
    match expected {
        Some(reason) => assert!(found.contains(&reason), "{name}: {found:?}"),
        None => assert_eq!(found, [], "{name}"),
    }
    let mut source = Counting::new(bytes);
    inspect(&mut source, options).unwrap();
    assert!(source.reads < MOST_READS, "{name}: {} reads", source.reads);
}

/// Checks the tables of an image with much memory and with little: `problem` is found, the same is
/// found each time, and the image can be opened nevertheless.
fn judge_check(name: &str, bytes: &[u8], problem: &str) {
    let sorted = |window| {
        let mut found = problems(bytes, window);
        found.sort_unstable();
        found
    };
    let found = sorted(1 << 16);
    assert!(found.contains(&problem), "{name}: {found:?}");
    for window in [64, 128, 192] {
        assert_eq!(sorted(window), found, "{name}, window {window}");
    }
}

/// The names of what a check finds.
fn problems(bytes: &[u8], window: u32) -> Vec<&'static str> {
    let mut source = Counting::new(bytes);
    let options = CheckOptions {
        window,
        most_entries: 1 << 20,
    };
    // What is read counts as work, whatever the image makes of it.
    let counts = |source: &Counting<'_>, before, entries: u64| {
        let reads = source.reads - before;
        assert!(
            reads <= 3 * (entries / 2000 + 8),
            "{reads} reads, {entries} entries"
        );
    };
    match support::open(bytes).unwrap() {
        Image::Qcow2(image) => {
            let mut check = Check::new(&image, &source, &options);
            while !check.step(&mut source).unwrap() {}
            counts(&source, 0, check.report().entries);
            let problems = check.report().problems.iter();
            problems.map(|problem| problem.kind.name()).collect()
        }
        mut image => {
            let mut survey = Survey::new(&image, &source, window);
            while !survey.step(&mut image, &mut source, 1000).unwrap() {}
            assert!(survey.entries < options.most_entries);
            counts(&source, 0, survey.entries);
            let findings = survey.findings.iter();
            findings.map(|finding| finding.reason.name()).collect()
        }
    }
}

#[test]
fn a_check_finds_nothing_in_good_images_whatever_memory_it_has() {
    for (index, bytes) in support::mutate::images(false).iter().enumerate() {
        for window in [1, 64, 200, 1 << 16] {
            let found = problems(bytes, window);
            assert_eq!(found, [""; 0], "image {index}, window {window}");
        }
    }
}
