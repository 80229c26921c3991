//! One thread of a run: how it is asked to end, and waited for.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::EventFd;

use super::crew::eventfd;
use super::{RunError, panics, ready};
use crate::machine::{Ender, Nudger};

/// How long a thread that is to end is waited for. One that hangs in the kernel, as in a read from
/// a network that does not answer, is left behind; when that call returns, the thread ends.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// The time between two nudges of a vCPU that is to end. A nudge that arrives just before the guest
/// is entered is lost, so they are repeated.
pub(super) const NUDGE_AGAIN: Duration = Duration::from_millis(1);

/// How a thread is asked to end.
pub(super) enum Stop {
    /// A worker's event loop looks at this.
    Event(Arc<EventFd>),
    /// The vCPU is told, and nudged.
    Vcpu(Stopper),
}

/// One thread.
pub(super) struct Member {
    name: &'static str,
    stop: Stop,
    /// Fires when it ends, however it does.
    pub(super) ended: Arc<EventFd>,
    /// Why it died, if it did.
    pub(super) died: Arc<OnceLock<RunError>>,
    thread: Option<JoinHandle<()>>,
}

impl Member {
    pub(super) fn start(
        name: &'static str,
        stop: Stop,
        alarm: Arc<EventFd>,
        work: impl FnOnce() -> Result<(), RunError> + Send + 'static,
    ) -> Result<Self, RunError> {
        let ended = Arc::new(eventfd()?);
        let died = Arc::new(OnceLock::new());
        let (fires, tells) = (ended.clone(), died.clone());
        let thread = thread::Builder::new()
            .name(name.to_owned())
            // This is enough for some buffers of a page each. A page that is not touched costs
            // nothing.
            .stack_size(256 * 1024)
            .spawn(move || {
                if let Err(error) = panics::catch(work).and_then(|done| done) {
                    let _ = tells.set(error);
                    let _ = alarm.write(1);
                }
                let _ = fires.write(1);
            })
            .map_err(RunError::host("start a thread"))?;
        Ok(Self {
            name,
            stop,
            ended,
            died,
            thread: Some(thread),
        })
    }

    pub(super) fn ask_to_end(&self) {
        match &self.stop {
            Stop::Event(event) => drop(event.write(1)),
            // An error would be met again at the next nudge, and there is nobody to tell.
            Stop::Vcpu(stopper) => drop(stopper.stop()),
        }
    }

    /// Its name, unless it has been [joined](Self::join).
    pub(super) fn stuck(&self) -> Option<&'static str> {
        self.thread.is_some().then_some(self.name)
    }

    /// Waits for its end, but not for ever.
    pub(super) fn join(&mut self, until: Instant) {
        while !wait_for(&self.ended, until.min(Instant::now() + NUDGE_AGAIN)) {
            if Instant::now() >= until {
                return;
            }
            self.ask_to_end();
        }
        if let Some(thread) = self.thread.take() {
            // The thread has caught its own panic: see `start`.
            let _ = thread.join();
        }
    }
}

/// Ends the vCPU's run.
#[derive(Clone)]
pub(super) struct Stopper {
    pub(super) ender: Ender,
    /// It exists as soon as the thread has prepared itself to be nudged.
    pub(super) nudger: Arc<OnceLock<Nudger>>,
}

impl Stopper {
    pub(super) fn stop(&self) -> io::Result<()> {
        self.ender.stop();
        self.nudge()
    }

    pub(super) fn nudge(&self) -> io::Result<()> {
        self.nudger.get().map_or(Ok(()), |nudger| nudger.nudge())
    }
}

/// Whether `event` fires before `until`.
fn wait_for(event: &EventFd, until: Instant) -> bool {
    // SAFETY: the descriptor is open for as long as `event` is borrowed.
    let fd = unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) };
    loop {
        match ready::wait(&mut [ready::readable(&fd)], Some(until)) {
            Ok(true) => return true,
            _ if Instant::now() >= until => return false,
            _ => {}
        }
    }
}
