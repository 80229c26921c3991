//! The pulse of a run that makes its result final: what is done then can take long, and the main loop,
//! which else sees signals and shows that the run goes on, has ended.

use super::{RunError, Signals, Watch};

/// Tells the watcher that the run goes on, and the run that a signal is to end it.
pub struct Pulse<'a> {
    watch: &'a Watch,
    signals: &'a Signals,
}

impl<'a> Pulse<'a> {
    pub(super) const fn new(watch: &'a Watch, signals: &'a Signals) -> Self {
        Self { watch, signals }
    }

    /// To be called before each step, as long as nothing has been changed. The time limit does not
    /// matter any more: the guest has ended in time.
    ///
    /// # Errors
    ///
    /// A signal has arrived: the run has to end.
    pub fn beat(&self) -> Result<(), RunError> {
        self.watch.beat();
        let signal = self.watch.take(self.signals);
        signal.map_or(Ok(()), |signal| Err(RunError::Signal(signal)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::Ordering;
    use std::thread;

    use super::*;
    use crate::runtime::Watched;

    #[test]
    fn each_beat_is_seen_and_a_signal_is_taken_once() {
        // The mask is that of a thread of its own.
        let thread = thread::spawn(|| {
            let watch = Watch::start(Watched::default()).unwrap();
            let signals = watch.take_over_signals().unwrap();
            let pulse = Pulse::new(&watch, &signals);
            let beats = || watch.beats().load(Ordering::Relaxed);
            let before = beats();
            for beat in 1..4 {
                pulse.beat().unwrap();
                assert_eq!(beats(), before + beat);
            }
            // SAFETY: the signal goes to this thread, in which it is blocked.
            unsafe { libc::raise(libc::SIGTERM) };
            // Whoever has started the tests may have it ignored.
            if signals.is_waiting() {
                let number = libc::SIGTERM.to_le_bytes()[0];
                let ended = pulse.beat();
                assert!(matches!(ended, Err(RunError::Signal(signal)) if signal == number));
            }
            pulse.beat().unwrap();
            watch.run_is_over();
        });
        thread.join().unwrap();
    }
}
