//! Images that lie: each is refused for the right reason or read right, in little time, with few
//! reads and in little memory.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a failure in a test is to panic"
)]

#[path = "hostile/others.rs"]
mod others;
#[path = "hostile/polyglots.rs"]
mod polyglots;
#[path = "hostile/qcow2.rs"]
mod qcow2;
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

use guest_formats::{Image, Options, Reason, inspect};
use support::Counting;

/// The most memory that looking into and mapping an image may take: what the crate promises.
const MOST_MEMORY: usize = 320 << 10;
/// The most reads for the headers.
const MOST_READS: u64 = 5000;
/// The longest that one image may take, in a build without optimisation.
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

/// What became of an image: all reasons, those of its tables too.
fn reasons(bytes: &[u8], options: &Options) -> Vec<Reason> {
    let mut source = Counting::new(bytes);
    let info = inspect(&mut source, options).unwrap();
    assert!(
        source.reads < MOST_READS,
        "{} reads for the headers",
        source.reads
    );
    let mut reasons: Vec<_> = info.findings.iter().map(|finding| finding.reason).collect();
    let opened = Image::open(&mut source, options);
    let allowed = |reason: &&Reason| options.allowed.contains(**reason);
    let refused = reasons.iter().filter(|reason| !allowed(reason)).count();
    assert_eq!(opened.is_err(), refused > 0, "{reasons:?}");
    let Ok((mut image, _)) = opened else {
        return reasons;
    };
    let mut at = 0;
    for _ in 0..5000 {
        if at >= image.virtual_size() {
            break;
        }
        match image.map(&mut source, at) {
            Ok(extent) => {
                assert!(extent.length > 0);
                at += extent.length;
            }
            Err(error) => {
                reasons.push(error.reason().unwrap());
                break;
            }
        }
    }
    reasons
}

/// Checks one image: `expected` is among the reasons, or nothing speaks against it.
fn judge(name: &str, bytes: &[u8], options: &Options, expected: Option<Reason>) {
    let start = Instant::now();
    let before = NOW.get();
    PEAK.set(before);
    let found = reasons(bytes, options);
    let peak = PEAK.get() - before;
    assert!(peak < MOST_MEMORY, "{name}: {peak} bytes of memory");
    assert!(start.elapsed() < LONGEST, "{name}: {:?}", start.elapsed());
    match expected {
        Some(reason) => assert!(found.contains(&reason), "{name}: {found:?}"),
        None => assert_eq!(found, [], "{name}"),
    }
}

/// `bytes` after `change`.
fn spoilt(bytes: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    change(&mut bytes);
    bytes
}

/// A change to an image, and the reason for which it is refused then.
type Case = (&'static str, fn(&mut Vec<u8>), Reason);

/// Each case, applied to `good`, is refused; `good` itself is not.
fn judge_all(good: &[u8], cases: &[Case]) {
    judge("the good image", good, &Options::default(), None);
    for (name, change, reason) in cases {
        judge(
            name,
            &spoilt(good, change),
            &Options::default(),
            Some(*reason),
        );
    }
}
