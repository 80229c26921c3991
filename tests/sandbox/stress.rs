//! Hundreds of runs under readers of every kind, on terminals, with floods: the sandbox ends none
//! of them, and every copy that is said to be complete is exact.
//!
//! `STRESS_RUNS` is how many runs there are (240).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::common::{Vmm, needs_kvm, test};
use crate::conditions::{Conditions, Reader, Streams, Work};

/// How many runs are under way at once: more than there are processors on a small host.
const AT_ONCE: usize = 6;
/// What a run copies, in bytes: from less than a sector to many requests. Odd sizes, so that the
/// kinds of runs meet all of them.
const LENGTHS: [usize; 7] = [1, 511, 4096, 70_001, 300_000, 1 << 20, 9_000_001];

/// The run with this number; any numbers in a row are of different kinds.
fn conditions(number: usize) -> Conditions {
    let readers = Reader::ALL;
    let out = readers[number % readers.len()];
    let err = readers[number / readers.len() % readers.len()];
    let len = LENGTHS[number % LENGTHS.len()];
    let options: [&[&str]; 5] = [
        &[],
        &["--debug"],
        &["--debug", "--stats", "--fsync"],
        &["--request-size", "512", "--queue-depth", "256", "--debug"],
        &["--verbose", "--stats"],
    ];
    let copy = |options| Conditions::new(Work::Copy, len, options);
    let run = match number % 11 {
        3 | 7 => return copy(options[number % 5]).streams(Streams::Terminal),
        5 => Conditions::new(Work::Flood, 4096, &["--debug"]),
        // Small requests of a large input would take too long.
        _ if len > 1 << 20 => copy(options[number % 3]).replacing(),
        _ => copy(options[number % 5]),
    };
    run.streams(Streams::Pipes(out, err))
}

#[test]
fn the_sandbox_ends_none_of_hundreds_of_runs() {
    needs_kvm!();
    let runs = std::env::var("STRESS_RUNS").map_or(240, |runs| runs.parse().unwrap());
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= runs {
                        break;
                    }
                    let conditions = conditions(number);
                    conditions.run(&conditions.files(), Vmm::bare());
                }
            });
        }
    });
}
