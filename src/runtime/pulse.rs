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
