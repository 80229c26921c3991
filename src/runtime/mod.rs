//! Runs a machine: threads behind a gate, each confined; a main loop that signals and the time
//! limit always reach; and an end in three steps, of which the last is the only one that changes
//! anything. It runs any [`Operation`] and knows none.

mod channels;
mod crew;
mod deadline;
mod error;
mod gate;
mod main_loop;
mod operation;
mod signals;

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use channels::SerialPort;
pub use crew::Worker;
pub use deadline::{Alarm, Deadline};
pub use error::{EXIT_USAGE, RunError};
pub use operation::{GuestEnd, JustRun, Operation, Source};
pub use signals::Signals;

use crate::devices::ByteQueue;
use crate::machine::{ExitCounts, KICK_SIGNAL, Vcpu};
use crate::report::{Console, DebugLines, Drained};
use crate::sandbox::{self, Calls, calls};
use channels::Channels;
use crew::{Crew, install};
use main_loop::{Ended, Parts, READER_PATIENCE};

/// How long the last words of a run may take, and a reader that takes none of them.
const GOODBYE: Duration = Duration::from_secs(10);
const GOODBYE_PATIENCE: Duration = Duration::from_secs(1);

/// A machine with a guest in it, and what a run of it needs.
///
/// ```standalone_crate
/// use std::time::Duration;
/// use vmm::machine::{Machine, open_kvm};
/// use vmm::report::Console;
/// use vmm::runtime::{Deadline, JustRun, RunError, Runner};
///
/// # fn main() -> Result<(), RunError> {
/// # if open_kvm().is_err() {
/// #     return Ok(());
/// # }
/// // A guest that runs round in circles: jmp .
/// let vcpu = Machine::new(open_kvm()?, 0)?.boot(&[0xeb, 0xfe])?;
/// let runner = Runner::new(vcpu).deadline(Deadline::after(Duration::from_millis(100)));
/// let outcome = runner.run(&mut JustRun, Console::default())?;
/// assert!(matches!(outcome.result, Err(RunError::TimedOut(_))));
/// # Ok(())
/// # }
/// ```
pub struct Runner<'a> {
    vcpu: Vcpu,
    workers: Vec<Worker>,
    channels: Channels,
    signals: Option<Signals>,
    deadline: Option<Deadline>,
    confined: bool,
    folders: Vec<BorrowedFd<'a>>,
    main_calls: Calls,
    helping_calls: Calls,
}

/// What a run has come to.
pub struct Outcome {
    /// Whether it is good: warnings, or why it is not.
    pub result: Result<Vec<String>, RunError>,
    /// The exits it took.
    pub exits: ExitCounts,
    /// The last debug lines of the guest, for a run that failed by its fault.
    pub debug: DebugLines,
    /// For what is still to be said.
    pub console: Console,
    /// For who says it, to be told of a signal meanwhile.
    pub signals: Signals,
}

impl<'a> Runner<'a> {
    /// A run of `vcpu`, confined, without anything else.
    #[must_use]
    pub fn new(vcpu: Vcpu) -> Self {
        Self {
            vcpu,
            workers: Vec::new(),
            channels: Channels::default(),
            signals: None,
            deadline: None,
            confined: true,
            folders: Vec::new(),
            main_calls: Calls::new(),
            helping_calls: Calls::new(),
        }
    }

    /// Serves something on a thread of its own.
    #[must_use]
    pub fn worker(mut self, worker: Worker) -> Self {
        self.workers.push(worker);
        self
    }

    /// Listens to a port on which the guest reports.
    #[must_use]
    pub fn reports(mut self, port: &SerialPort) -> Self {
        self.channels.refills.push(port.uart.clone());
        self.listen(Source::Serial, port.output.clone())
    }

    /// Listens to another way on which the guest reports.
    #[must_use]
    pub fn listen(mut self, source: Source, queue: Arc<ByteQueue>) -> Self {
        self.channels.reports.push((source, queue));
        self
    }

    /// Listens to a port for debug text.
    #[must_use]
    pub fn debug(mut self, port: &SerialPort) -> Self {
        self.channels.refills.push(port.uart.clone());
        self.channels.debug.push(port.output.clone());
        self
    }

    /// Uses signals that have been taken over already. They are when the run begins, if they were
    /// not before.
    #[must_use]
    pub fn signals(mut self, signals: Signals) -> Self {
        self.signals = Some(signals);
        self
    }

    /// Ends the run when its time is over.
    #[must_use]
    pub fn deadline(mut self, deadline: Option<Deadline>) -> Self {
        self.deadline = deadline;
        self
    }

    /// Whether the process is to be confined, for good. It is unless this says otherwise.
    #[must_use]
    pub fn confined(mut self, confined: bool) -> Self {
        self.confined = confined;
        self
    }

    /// Lets the main thread make entries in `folder`, for a file that gets its name there.
    #[must_use]
    pub fn folder(mut self, folder: BorrowedFd<'a>) -> Self {
        self.folders.push(folder);
        self
    }

    /// Lets the main thread make `calls`, which committing the result takes.
    #[must_use]
    pub fn main_calls(mut self, calls: &Calls) -> Self {
        self.main_calls = self.main_calls.and(calls);
        self
    }

    /// Lets the vCPU's thread make `calls`, which doing the work of a device takes while the guest
    /// waits.
    #[must_use]
    pub fn helping_calls(mut self, calls: &Calls) -> Self {
        self.helping_calls = self.helping_calls.and(calls);
        self
    }

    /// Runs `operation` to its end, and shows on `console` what there is to see.
    ///
    /// The end has three steps: the operation judges; what is to be shown is shown, as far as
    /// anyone reads it; the operation commits. Before the last step a signal ends the run and
    /// nothing has changed; after it nothing can fail any more.
    ///
    /// # Errors
    ///
    /// The run could not begin. How it went once it had begun is in the [`Outcome`].
    pub fn run(
        mut self,
        operation: &mut dyn Operation,
        console: Console,
    ) -> Result<Outcome, RunError> {
        let signals = match self.signals.take() {
            Some(signals) => signals,
            None => Signals::take_over().map_err(RunError::host("take over signals"))?,
        };
        if self.confined {
            sandbox::catch_violations()?;
            sandbox::confine_process(&self.folders)?;
        }
        let mut crew = Crew::new(self.confined)?;
        for worker in self.workers {
            crew.hire(worker)?;
        }
        let mut vcpu = crew.hire_vcpu(self.vcpu, &self.helping_calls)?;
        crew.muster()?;
        let kicker = vcpu.kicker()?;
        let main_calls = main_calls(kicker.thread()).and(&self.main_calls);
        let own_filter = crew.filter(&main_calls)?;
        let parts = Parts {
            operation,
            console,
            channels: self.channels,
            vcpu,
            signals,
            alarm: crew.alarm(),
            deadline: self.deadline,
        };
        let ended = main_loop::run(parts, || {
            install(own_filter)?;
            crew.go();
            Ok(())
        })?;
        Ok(finish(ended, &mut crew, operation, self.deadline))
    }
}

fn main_calls(vcpu_thread: libc::pid_t) -> Calls {
    // SAFETY: the call takes nothing and cannot fail.
    let process = unsafe { libc::getpid() };
    calls::main_loop(process, vcpu_thread, KICK_SIGNAL)
}

/// The end: judge, show, commit.
fn finish(
    ended: Ended,
    crew: &mut Crew,
    operation: &mut dyn Operation,
    deadline: Option<Deadline>,
) -> Outcome {
    let Ended {
        cut,
        report,
        debug,
        mut console,
        signals,
    } = ended;
    let panicked = crew.dismiss();
    let exits = report.as_ref().map(|report| report.exits);
    let judged = match (panicked, cut, &report) {
        (Some(thread), ..) => Err(RunError::Died(format!("the thread {thread}").into())),
        (_, Some(cut), _) => Err(cut),
        (_, None, None) => Err(RunError::Died("the thread vcpu".into())),
        (_, None, Some(report)) => GuestEnd::of(&report.end).and_then(|end| operation.judge(end)),
    };
    let result = judged
        .and_then(|()| show_rest(&mut console, &signals, deadline))
        .and_then(|()| operation.commit());
    Outcome {
        result,
        exits: exits.unwrap_or_default(),
        debug,
        console,
        signals,
    }
}

/// Shows what waits to be shown. A reader that takes nothing any more, or not within the time
/// limit, costs the lines and not the result; a signal costs the result.
fn show_rest(
    console: &mut Console,
    signals: &Signals,
    deadline: Option<Deadline>,
) -> Result<(), RunError> {
    loop {
        let end = deadline.map_or_else(|| Instant::now() + READER_PATIENCE * 360, Deadline::end);
        match console.drain(end, READER_PATIENCE, signals.as_fd()) {
            Drained::Done | Drained::GaveUp { .. } => return Ok(()),
            Drained::Interrupted => {
                if let Some(signal) = signals.next() {
                    return Err(RunError::Signal(signal));
                }
            }
        }
    }
}

impl Outcome {
    /// Shows `message` if the run was good, and what there is to say beside that, for a program
    /// that has nothing else to do.
    ///
    /// # Errors
    ///
    /// Why the run was not good; [`main`] shows it.
    pub fn end(mut self, message: &str) -> Result<(), RunError> {
        let result = self.result.map(|warnings| {
            warnings.iter().for_each(|line| self.console.warn(line));
            self.console.line(message);
        });
        say_goodbye(&mut self.console, self.signals.as_fd());
        result
    }
}

/// The main function of a program that runs a machine: shows the error of `run`, if there is one,
/// and makes an exit status of it.
pub fn main(run: impl FnOnce() -> Result<(), RunError>) -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be open no longer; there is nothing to do about it.
            let _ = writeln!(io::stderr(), "vmm: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// Lets readers take what they still want to read, for a short time or until `interrupt` becomes
/// readable: nothing that happens now changes what has come of the run.
pub fn say_goodbye(console: &mut Console, interrupt: BorrowedFd<'_>) {
    console.drain(Instant::now() + GOODBYE, GOODBYE_PATIENCE, interrupt);
}
