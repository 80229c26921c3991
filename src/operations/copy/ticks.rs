//! The processor's time stamp counter (Intel SDM volume 3, "Time-Stamp Counter"), in which the
//! guest says how long it has computed. How fast it runs follows from the run itself, during which
//! the host has seen the same counter.

use std::time::Duration;

/// The counter at the start of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticks(u64);

impl Ticks {
    /// The counter now.
    pub(super) fn now() -> Self {
        // SAFETY: every x86-64 processor has the instruction, and Linux leaves it to all programs.
        Self(unsafe { core::arch::x86_64::_rdtsc() })
    }

    /// How many seconds `ticks` are, in a run that began with this and has lasted for `elapsed`
    /// until now. Not more than that, whatever a guest says.
    pub(super) fn seconds(self, ticks: u64, elapsed: Duration) -> f64 {
        seconds(ticks, Self::now().0.saturating_sub(self.0), elapsed)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a time for people to read")]
fn seconds(ticks: u64, all: u64, elapsed: Duration) -> f64 {
    let part = ticks.min(all) as f64 / all.max(1) as f64;
    part * elapsed.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_ticks_is_a_part_of_the_time_and_never_more_than_all() {
        let run = Duration::from_secs(4);
        for (ticks, all, expected) in [
            (250, 1000, 1.0),
            (0, 1000, 0.0),
            (u64::MAX, 1000, 4.0),
            (5, 0, 0.0),
        ] {
            let found = seconds(ticks, all, run);
            assert!((found - expected).abs() < 1e-9, "{found}");
        }
    }
}
