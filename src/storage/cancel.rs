//! The one rule for system calls that a signal interrupts: they are repeated as long as the run
//! goes on, and no longer. A read of a file that hangs ends when the run does.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tells those who wait for storage that the run is over. All clones are one token.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A token for a run that goes on.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the run. A call that is under way ends when a signal interrupts it: to send one is the
    /// caller's to do.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether the run has ended.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// For who is about to begin something that may take long.
    ///
    /// # Errors
    ///
    /// Of kind [`Interrupted`](io::ErrorKind::Interrupted) if the run has ended.
    pub fn check(&self) -> io::Result<()> {
        match self.is_cancelled() {
            false => Ok(()),
            true => Err(io::ErrorKind::Interrupted.into()),
        }
    }

    /// Makes `call` until it is not interrupted, or the run has ended.
    ///
    /// # Errors
    ///
    /// That of the call; of kind [`Interrupted`](io::ErrorKind::Interrupted) if the run has ended.
    pub fn repeat<T, E: Into<io::Error>>(
        &self,
        mut call: impl FnMut() -> Result<T, E>,
    ) -> io::Result<T> {
        loop {
            match call().map_err(Into::into) {
                Err(error)
                    if error.kind() == io::ErrorKind::Interrupted && !self.is_cancelled() => {}
                result => return result,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_interrupted_call_is_repeated_until_the_run_ends() {
        let cancel = Cancel::new();
        let mut calls = 0;
        let interrupted = || io::Error::from(io::ErrorKind::Interrupted);
        let result = cancel.repeat(|| {
            calls += 1;
            if calls < 5 {
                Err(interrupted())
            } else {
                Ok(calls)
            }
        });
        assert_eq!(result.unwrap(), 5);
        let result = cancel.clone().repeat(|| {
            calls += 1;
            cancel.cancel();
            Err::<(), _>(interrupted())
        });
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert_eq!(calls, 6);
    }

    #[test]
    fn nothing_is_begun_once_the_run_has_ended() {
        let cancel = Cancel::new();
        assert!(cancel.check().is_ok());
        cancel.clone().cancel();
        let error = cancel.check().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    }

    #[test]
    fn other_errors_are_not_repeated() {
        let full = || Err::<(), _>(io::Error::from_raw_os_error(libc::ENOSPC));
        assert_eq!(
            Cancel::new().repeat(full).unwrap_err().raw_os_error(),
            Some(libc::ENOSPC)
        );
    }
}
