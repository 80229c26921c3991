//! The time limit of a run. It counts from the start of the process, and holds before there is a
//! main loop too: to open a file on a network that does not answer can take for ever.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::RunError;

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

    /// Ends the process when the time is over, unless the alarm that this returns has been dropped
    /// by then. It is meant for the time in which files are opened and nothing has to be taken back
    /// yet. `say_why` tells the user, and returns the exit status.
    ///
    /// The alarm is a thread, because a signal with a handler does not end a system call that waits
    /// for a server that does not answer (NFS). Only the end of the process does.
    ///
    /// # Errors
    ///
    /// The system's reason.
    pub fn set_alarm(
        self,
        say_why: impl FnOnce(&RunError) -> u8 + Send + 'static,
    ) -> io::Result<Alarm> {
        let (keep, kept) = channel::<()>();
        let wait = move || {
            let left = self.end.saturating_duration_since(Instant::now());
            if kept.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
                let status = say_why(&RunError::TimedOut(self.limit));
                // SAFETY: the call ends the process. What was registered to run at its end does not
                // run, since the thread that would have to run it may hang.
                unsafe { libc::_exit(status.into()) };
            }
        };
        let thread = Builder::new().name("alarm".to_owned()).spawn(wait)?;
        Ok(Alarm {
            keep: Some(keep),
            thread: Some(thread),
        })
    }
}

/// An alarm that is set. Dropping it takes it back.
#[derive(Debug)]
pub struct Alarm {
    keep: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        drop(self.keep.take());
        if let Some(thread) = self.thread.take() {
            // It is gone before the process is confined.
            let _ = thread.join();
        }
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
    fn an_alarm_that_is_taken_back_does_nothing_and_leaves_no_thread() {
        let deadline = Deadline::after(Duration::from_secs(600)).unwrap();
        let begun = Instant::now();
        drop(deadline.set_alarm(|_| 1).unwrap());
        assert!(begun.elapsed() < Duration::from_secs(60));
        assert!(!deadline.is_over());
    }

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
