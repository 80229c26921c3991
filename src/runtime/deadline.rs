//! The time limit of a run. It counts from the start of the process. Who holds the run to it is the
//! main loop, and before and after that, and where the main loop does not come back, the
//! [watcher](super::watcher).

use std::time::{Duration, Instant};

/// When a run has to be over.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    end: Instant,
    limit: Duration,
}

impl Deadline {
    /// A run that begins now and may take `limit`; `None` if that is longer than a clock can tell.
    #[must_use]
    pub fn after(limit: Duration) -> Option<Self> {
        let end = Instant::now().checked_add(limit)?;
        Some(Self { end, limit })
    }

    /// How long the run may take.
    #[must_use]
    pub fn limit(self) -> Duration {
        self.limit
    }

    /// When it has to be over.
    #[must_use]
    pub fn end(self) -> Instant {
        self.end
    }

    /// Whether the time is over.
    #[must_use]
    pub fn is_over(self) -> bool {
        Instant::now() >= self.end
    }

    /// When a clock that ticks every `tick` has to tick first, so that one of its ticks comes as soon as
    /// the time is over.
    pub(super) fn first_tick(self, tick: Duration) -> Duration {
        first_tick(self.end.saturating_duration_since(Instant::now()), tick)
    }
}

/// The first of ticks of which one comes right after `left`. A clock that is set to nothing does not
/// tick.
fn first_tick(left: Duration, tick: Duration) -> Duration {
    let part = left.as_nanos() % tick.as_nanos().max(1);
    Duration::from_nanos(u64::try_from(part).unwrap_or(0)) + Duration::from_micros(1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_clock_ticks_as_soon_as_the_time_is_over() {
        for (left, first) in [(0, 0), (1, 1), (49, 49), (50, 0), (51, 1), (3_600_020, 20)] {
            let [left, first, tick] = [left, first, 50].map(Duration::from_millis);
            let found = first_tick(left, tick);
            assert_eq!(found, first + Duration::from_micros(1), "{left:?}");
        }
        let deadline = Deadline::after(Duration::from_secs(600)).unwrap();
        assert!(deadline.first_tick(Duration::from_secs(1)) <= Duration::from_secs(2));
    }

    #[test]
    fn a_limit_beyond_all_clocks_is_none() {
        assert!(Deadline::after(Duration::MAX).is_none());
        assert!(Deadline::after(Duration::ZERO).unwrap().is_over());
    }
}
