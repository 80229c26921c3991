//! Runs a machine: threads behind a gate, each confined; a main loop that signals and the time
//! limit always reach; a watcher for where the system keeps the main thread; and an end in three
//! steps, of which the last is the only one that changes anything. It runs any [`Operation`] and
//! knows none.

mod channels;
mod crew;
mod deadline;
mod driver_faults;
mod end;
mod error;
pub mod exit_status;
mod gate;
mod main_loop;
mod member;
mod memory;
mod operation;
mod panics;
mod processors;
mod pulse;
mod raw_terminal;
mod room;
mod serial_input;
mod signals;
mod streams;
mod watcher;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::process::getpid;

pub use channels::{SerialPort, report_queue};
pub use crew::{Subscriber, Worker};
pub use deadline::Deadline;
pub use end::{Outcome, main, say_goodbye};
pub use error::RunError;
pub(crate) use memory::check_memory;
pub use memory::{Heap, check_stack};
pub use operation::{GuestEnd, JustRun, Operation, ReportSource};
pub use panics::{catch, describe_panics};
pub use pulse::Pulse;
pub use serial_input::SerialInput;
pub use signals::{Signals, fail_writes, hold_ending};
pub use streams::{abandon_stderr, abandon_stdout, hold_closed_streams};
pub use watcher::{LastObject, Stage, Watch, Watched};

use crate::devices::ByteQueue;
use crate::limits;
use crate::machine::{NUDGE_SIGNAL, Vcpu};
use crate::report::Console;
use crate::sandbox::{self, Calls, calls};
use crate::virtio::VirtioDevice;
use channels::Channels;
use crew::{Crew, install};
use main_loop::Parts;

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
    input: Option<SerialInput>,
    signals: Option<Signals>,
    watch: Watch,
    deadline: Option<Deadline>,
    confined: bool,
    folders: Vec<BorrowedFd<'a>>,
    main_calls: Calls,
    vcpu_calls: Calls,
}

impl<'a> Runner<'a> {
    /// A run of `vcpu`, confined, without anything else.
    #[must_use]
    pub fn new(vcpu: Vcpu) -> Self {
        Self {
            vcpu,
            workers: Vec::new(),
            channels: Channels::default(),
            input: None,
            signals: None,
            watch: Watch::default(),
            deadline: None,
            confined: true,
            folders: Vec::new(),
            main_calls: Calls::new(),
            vcpu_calls: Calls::new(),
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
        self.listen(ReportSource::Serial, port.output.clone())
    }

    /// Listens to another way on which the guest reports.
    #[must_use]
    pub fn listen(mut self, source: ReportSource, queue: Arc<ByteQueue>) -> Self {
        self.channels.reports.push((source, queue));
        self
    }

    /// When the guest has ended, still hears all that `device` has taken from it or is about to
    /// take. It is a device that reports go through.
    #[must_use]
    pub fn hear_out(mut self, device: Arc<dyn VirtioDevice>) -> Self {
        self.channels.devices.push(device);
        self
    }

    /// Listens to a port for debug text.
    #[must_use]
    pub fn debug(mut self, port: &SerialPort) -> Self {
        self.channels.refills.push(port.uart.clone());
        self.channels.debug.push(port.output.clone());
        self
    }

    /// Reads standard input for one of the ports until the run ends.
    #[must_use]
    pub fn serial_input(mut self, input: Option<SerialInput>) -> Self {
        self.input = input;
        self
    }

    /// Uses signals that have been taken over already. Without this they are taken over when the
    /// run begins.
    #[must_use]
    pub fn signals(mut self, signals: Signals) -> Self {
        self.signals = Some(signals);
        self
    }

    /// Tells a watcher how the run goes. Without this nobody ends the process if the main thread does
    /// not come back from a system call.
    #[must_use]
    pub fn watched_by(mut self, watch: &Watch) -> Self {
        self.watch = watch.clone();
        self
    }

    /// Ends the run when its time is over.
    #[must_use]
    pub fn deadline(mut self, deadline: Option<Deadline>) -> Self {
        self.deadline = deadline;
        self
    }

    /// Whether the process is to be confined, which cannot be undone. Without this it is.
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

    /// Lets the vCPU's thread make `calls`. It handles what the guest does with ports and registers: all
    /// of a port's device or a page's, and of a [`Service`](crate::virtio::Service) the configuration
    /// space and what follows from a reset. While the guest waits it also serves the devices that an
    /// idle port helps, and then makes the calls of their own threads.
    #[must_use]
    pub fn vcpu_calls(mut self, calls: &Calls) -> Self {
        self.vcpu_calls = self.vcpu_calls.and(calls);
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
    /// The run could not begin, as where a virtio device has no worker. How it went once it had begun is
    /// in the [`Outcome`].
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
            limits::remember();
            // The first random numbers of a thread's hash maps are asked for here, where the system's
            // file of them can be opened if a filter forbids the call.
            let _ = std::hash::RandomState::new();
            sandbox::catch_violations()?;
            sandbox::confine_process(&self.folders)?;
        }
        let calls_of_input = self.input.as_ref().map(SerialInput::any_thread_calls);
        let whereabouts = self.vcpu.whereabouts();
        let mut crew = Crew::new(
            self.confined,
            calls_of_input.unwrap_or_default(),
            whereabouts,
        )?;
        for worker in self.workers {
            crew.hire(worker)?;
        }
        if let Some(slot) = self.vcpu.unattended() {
            let text =
                format!("the device in slot {slot} has no thread: give it one with Runner::worker");
            return Err(RunError::host("begin the run")(io::Error::other(text)));
        }
        let vcpu = crew.hire_vcpu(self.vcpu, &self.vcpu_calls)?;
        crew.muster()?;
        self.watch.confined()?;
        let thread = vcpu
            .thread()
            .ok_or_else(|| RunError::Died("the vCPU has no thread".to_owned()))?;
        let input_calls = self.input.as_ref().map(SerialInput::main_calls);
        let main_calls = main_calls(thread)
            .and(&self.main_calls)
            .and(&input_calls.unwrap_or_default());
        let own_filter = crew.filter(&main_calls)?;
        let parts = Parts {
            operation,
            console,
            channels: self.channels,
            input: self.input,
            vcpu,
            signals,
            watch: self.watch,
            alarm: crew.alarm(),
            deadline: self.deadline,
        };
        let ended = main_loop::run(parts, || {
            install(own_filter)?;
            crew.go();
            Ok(())
        })?;
        Ok(end::finish(ended, &mut crew, operation, self.deadline))
    }
}

fn main_calls(vcpu_thread: libc::pid_t) -> Calls {
    calls::main_loop(getpid().as_raw_pid(), vcpu_thread, NUDGE_SIGNAL)
}
