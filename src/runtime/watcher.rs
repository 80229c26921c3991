//! The watcher: a thread that ends the process where the main thread does not come back from a system
//! call, as on a file system that does not answer, and the run is to end.
//!
//! A signal with a handler does not end such a call, only the end of the process does. So this thread
//! lives from the first file that is opened to the end of the process. It waits for a signal or for
//! the time limit, then gives the main thread [some time](patience) to react, and if that does not,
//! says [one line](last_line) and ends the process. It is confined before it does anything, and never
//! waits for the main thread.

mod last_line;
mod patience;

use std::fmt::Write;
use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::EventFd;

pub use patience::Stage;

use super::crew::{eventfd, install};
use super::signals::{is_first_process, let_through, unblock_ending, with_ending_blocked};
use super::{Deadline, RunError, Signals};
use crate::lock::lock;
use crate::ready;
use crate::sandbox::{self, Calls, Filter, calls};
use crate::stack_line::{StackLine, write_if_room};
use last_line::{LastLine, StuckIn};
use patience::{LOOK, Patience, Seen, Why};

/// The watcher's stack, in bytes. It has a line on it, and little else.
const STACK: usize = 64 * 1024;
/// How long the last line may take, in seconds. An alarm ends the process then: standard error may be
/// a file on the same file system that does not answer.
const LAST_LINE: libc::c_uint = 2;

/// What the watcher has to know of a run.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// When the run has to be over.
    pub deadline: Option<Deadline>,
    /// Whether the process is going to be confined, as the watcher then is from the beginning.
    pub confined: bool,
    /// Whether the run makes an output, which can be in place.
    pub makes_output: bool,
    /// What tells a program that reads what is said, if one does.
    pub last_object: Option<LastObject>,
    /// What the last act of the process takes; see [`sandbox::before_a_violation_ends`].
    pub last_act: Calls,
}

/// Makes the last object of a run that has said nothing yet and is ended because of an error, after so
/// much time.
pub type LastObject = fn(&RunError, Duration) -> String;

/// The main thread's side of the watcher. Without a watcher it does nothing.
#[derive(Clone, Default)]
pub struct Watch(Option<Arc<Shared>>);

/// What both threads see.
struct Shared {
    watched: Watched,
    begun: Instant,
    stage: AtomicU8,
    /// How often the main thread has shown that it goes on.
    beats: Arc<AtomicU32>,
    /// The signal that the main thread has taken, or 0.
    taken: AtomicU8,
    /// Where signals arrive, once they have been taken over.
    signals: OnceLock<Signals>,
    /// Fires when there is something new to look at.
    wake: EventFd,
    /// What the kernel says of the main thread, where it says that.
    main_thread: Option<File>,
    /// Tells whether the watcher has been confined. It is asked once.
    confined: Mutex<Option<Receiver<Result<(), RunError>>>>,
}

impl Watch {
    /// Starts the watcher, for a run on this thread. Signals that end a run end the process until they
    /// are [taken over](Self::take_over_signals). The first process of a namespace is not ended by the
    /// kernel then, but by the watcher.
    ///
    /// # Errors
    ///
    /// The thread, or its filter, cannot be made.
    pub fn start(watched: Watched) -> Result<Self, RunError> {
        let list = calls::watcher().and(&watched.last_act);
        let filter = watched.confined.then(|| Filter::new(&list)).transpose()?;
        if watched.confined {
            sandbox::catch_violations()?;
        }
        let (tell, confined) = sync_channel(1);
        let shared = Arc::new(Shared {
            watched,
            begun: Instant::now(),
            stage: AtomicU8::new(Stage::Opening as u8),
            beats: Arc::default(),
            taken: AtomicU8::new(0),
            signals: OnceLock::new(),
            wake: eventfd()?,
            main_thread: File::open("/proc/thread-self/syscall").ok(),
            confined: Mutex::new(Some(confined)),
        });
        let seen = shared.clone();
        let work = move || {
            let ready = install(filter);
            let watches = ready.is_ok();
            let _ = tell.send(ready);
            if watches {
                seen.watch();
            }
        };
        let thread = Builder::new().name("watcher".to_owned()).stack_size(STACK);
        with_ending_blocked(|| thread.spawn(work))
            .and_then(|started| started.map(drop))
            .map_err(RunError::host("start a thread"))?;
        if is_first_process() {
            let signals = Signals::take_over().map_err(RunError::host("take over signals"))?;
            let _ = shared.signals.set(signals);
            shared.wake();
        } else {
            // The watcher does not look at signals before they are taken over.
            unblock_ending().map_err(RunError::host("unblock signals"))?;
        }
        Ok(Self(Some(shared)))
    }

    /// Takes over the signals that end a run. From here on files may be made.
    ///
    /// # Errors
    ///
    /// The system's reason.
    pub fn take_over_signals(&self) -> Result<Signals, RunError> {
        let signals = Signals::take_over().map_err(RunError::host("take over signals"))?;
        if let Some(shared) = &self.0 {
            if shared.stage() == Stage::Opening {
                self.enter(Stage::Preparing);
            }
            // The first descriptor is as good as another.
            let _ = shared.signals.set(signals.share());
            shared.wake();
        }
        Ok(signals)
    }

    /// Waits until the watcher is confined, so that nothing untrusted runs before.
    ///
    /// # Errors
    ///
    /// Why it is not.
    pub(super) fn confined(&self) -> Result<(), RunError> {
        let Some(shared) = &self.0 else {
            return Ok(());
        };
        let mut confined = lock(&shared.confined);
        confined.take().map_or(Ok(()), |confined| {
            let died = |_| RunError::Died("the watcher has died".to_owned());
            confined.recv().map_err(died).and_then(|ready| ready)
        })
    }

    /// To be called when all is done, and whatever was open is closed: the watcher ends.
    pub fn run_is_over(&self) {
        self.enter(Stage::Over);
        if let Some(shared) = &self.0 {
            shared.wake();
        }
    }

    /// Says what the main thread does from now on. If the watcher is about to end the process, this
    /// does not return.
    pub fn enter(&self, stage: Stage) {
        let Some(shared) = &self.0 else {
            return;
        };
        let go_on = |now| (now != Stage::Ended as u8).then_some(stage as u8);
        let order = Ordering::SeqCst;
        while shared.stage.fetch_update(order, order, go_on).is_err() {
            thread::sleep(LOOK);
        }
        self.beat();
    }

    /// Says that the result is final: if it is an output, it is in place.
    pub(super) fn has_committed(&self) {
        let makes_output = self.0.as_ref().is_some_and(|it| it.watched.makes_output);
        self.enter(if makes_output {
            Stage::InPlace
        } else {
            Stage::Ending
        });
    }

    /// Shows that the main thread goes on.
    pub(super) fn beat(&self) {
        if let Some(shared) = &self.0 {
            shared.beats.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The number of beats, for what the main thread does in another place.
    #[must_use]
    pub fn beats(&self) -> Arc<AtomicU32> {
        let shared = self.0.as_ref();
        shared.map_or_else(Arc::default, |shared| shared.beats.clone())
    }

    /// Takes the signal that has arrived, if one has.
    pub(super) fn take(&self, signals: &Signals) -> Option<u8> {
        let signal = signals.next()?;
        if let Some(shared) = &self.0 {
            shared.taken.store(signal, Ordering::SeqCst);
            shared.wake();
        }
        Some(signal)
    }
}

impl Shared {
    fn wake(&self) {
        // There is nothing to do about an error: the eventfd is readable already.
        let _ = self.wake.write(1);
    }

    /// Watches until the main thread has done its work, or does not go on.
    fn watch(&self) {
        let mut patience = Patience::new();
        loop {
            let seen = self.look();
            if seen.stage == Stage::Over {
                return;
            }
            if let Some(why) = patience.look(&seen) {
                self.end_process(why);
            }
            self.sleep(&seen);
        }
    }

    fn stage(&self) -> Stage {
        Stage::of(self.stage.load(Ordering::SeqCst))
    }

    fn look(&self) -> Seen {
        let signal = self.taken.load(Ordering::SeqCst) != 0;
        Seen {
            stage: self.stage(),
            beats: self.beats.load(Ordering::Relaxed),
            late: self.watched.deadline.is_some_and(Deadline::is_over),
            signal: signal || self.signals.get().is_some_and(Signals::is_waiting),
        }
    }

    /// Waits until the next look.
    fn sleep(&self, seen: &Seen) {
        if seen.is_asked_to_end() {
            return thread::sleep(LOOK);
        }
        // SAFETY: the descriptor is open for as long as `self` is borrowed.
        let wake = unsafe { BorrowedFd::borrow_raw(self.wake.as_raw_fd()) };
        let end = self.watched.deadline.map(Deadline::end);
        let waited = match self.signals.get() {
            Some(signals) => {
                let mut entries = [ready::readable(&wake), ready::readable(signals)];
                ready::wait(&mut entries, end)
            }
            None => ready::wait(&mut [ready::readable(&wake)], end),
        };
        // It is looked at again in any case, and at once only if that can be waited for.
        if waited.is_err() {
            thread::sleep(LOOK);
        }
        let _ = self.wake.read();
    }

    /// Ends the process, unless the main thread has just done its work.
    fn end_process(&self, why: Why) {
        let ended = Stage::Ended as u8;
        let stage = Stage::of(self.stage.swap(ended, Ordering::SeqCst));
        if stage == Stage::Over {
            return self.stage.store(stage as u8, Ordering::SeqCst);
        }
        bound_the_last_line();
        let error = match (why, self.watched.deadline) {
            (Why::Late, Some(deadline)) => RunError::TimedOut(deadline.limit()),
            _ => RunError::Signal(self.signal()),
        };
        let stuck = self.main_thread.as_ref().and_then(StuckIn::read);
        let status = match stage {
            Stage::InPlace => 0,
            _ => error.exit_code(),
        };
        if !stuck.is_some_and(StuckIn::is_about_standard_error) {
            let mut line = StackLine::new();
            let last = LastLine {
                stage,
                why: &error,
                stuck,
                makes_output: self.watched.makes_output,
            };
            // It cannot fail: what does not fit is dropped.
            let _ = write!(line, "{last}");
            line.write();
        }
        // Once lines have been printed, the last of them may not be whole.
        let last_object = self.watched.last_object;
        if let Some(last_object) = last_object.filter(|_| stage < Stage::Running) {
            let object = last_object(&error, self.begun.elapsed());
            write_if_room(libc::STDOUT_FILENO, object.as_bytes());
        }
        sandbox::last_act();
        // SAFETY: the call ends the process. What was registered to run at its end does not run, since
        // the thread that would have to run it is stuck.
        unsafe { libc::_exit(status.into()) };
    }

    /// The signal that has arrived. Nobody takes it from the main thread, unless the process ends.
    fn signal(&self) -> u8 {
        let taken = || Some(self.taken.load(Ordering::SeqCst)).filter(|signal| *signal != 0);
        let waiting = || self.signals.get().and_then(Signals::next);
        // The main thread may be just between taking it and saying so.
        let signal = taken().or_else(waiting).or_else(taken);
        signal.unwrap_or(libc::SIGTERM.to_le_bytes()[0])
    }
}

/// Has an alarm end the process if the last line cannot be said. The kernel does not let it end the first
/// process of a namespace, in which only a thread that is not stuck could do so.
fn bound_the_last_line() {
    // If it cannot be set, the line is said without it.
    if let_through(libc::SIGALRM).is_ok() {
        // SAFETY: the call takes a number and touches no memory.
        unsafe { libc::syscall(libc::SYS_alarm, LAST_LINE) };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn start(limit: Duration) -> Watch {
        let watched = Watched {
            deadline: Deadline::after(limit),
            ..Watched::default()
        };
        Watch::start(watched).unwrap()
    }

    #[test]
    fn a_run_that_is_over_has_no_watcher_any_more_and_no_time_limit() {
        let watch = start(Duration::from_millis(300));
        watch.enter(Stage::Preparing);
        watch.confined().unwrap();
        watch.confined().unwrap();
        watch.run_is_over();
        let shared = watch.0.unwrap();
        let begun = Instant::now();
        // The watcher has the other one.
        while Arc::strong_count(&shared) > 1 {
            assert!(begun.elapsed() < Duration::from_secs(60));
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn who_has_no_watcher_may_say_all_of_it() {
        let watch = Watch::default();
        watch.confined().unwrap();
        watch.enter(Stage::Running);
        watch.has_committed();
        watch.beat();
        assert_eq!(watch.beats().load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_result_is_in_place_only_if_there_is_an_output() {
        for (makes_output, stage) in [(true, Stage::InPlace), (false, Stage::Ending)] {
            let watched = Watched {
                makes_output,
                ..Watched::default()
            };
            let watch = Watch::start(watched).unwrap();
            watch.has_committed();
            let shared = watch.0.as_ref().unwrap();
            assert_eq!(shared.stage(), stage);
            watch.run_is_over();
        }
    }
}
