//! The threads of a run: one for each disk, with an event loop of its own, and the vCPU's.
//!
//! They are all started, and confined, before the guest's first instruction, and wait at a gate
//! until everything is.

use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};

use event_manager::{
    EventManager, EventOps, EventSubscriber, Events, MutEventSubscriber, SubscriberOps,
};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::error::RunError;
use super::gate::Entrance;
use crate::machine::{ExitCounts, KICK_SIGNAL, Remains, Vcpu, VcpuControl, VcpuEnd, VcpuReport};
use crate::sandbox::{Filter, FilterError};

/// How many events a disk's loop takes at once: it has two sources.
const DISK_EVENTS: usize = 4;

/// Ends an event loop when its eventfd fires.
struct StopSubscriber {
    event: Arc<EventFd>,
    stop: Arc<AtomicBool>,
}

impl EventSubscriber for StopSubscriber {
    fn process(&self, _: Events, _: &mut EventOps<'_>) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn init(&self, ops: &mut EventOps<'_>) {
        // Cannot fail: the descriptor is open and new to this loop.
        let _ = ops.add(Events::new(&*self.event, EventSet::IN));
    }
}

/// A disk's thread.
pub(super) struct DiskThread {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl DiskThread {
    /// Starts the event loop of `disk`, confined by `filter`, behind a gate.
    pub(super) fn spawn(
        name: &str,
        disk: Arc<dyn EventSubscriber + Send + Sync>,
        entrance: Entrance,
        filter: Option<Filter>,
    ) -> Result<Self, RunError> {
        let stop_event =
            Arc::new(EventFd::new(EFD_NONBLOCK).map_err(RunError::host("make an eventfd"))?);
        let stop = Arc::new(AtomicBool::new(false));
        let mut events = new_loop::<Arc<dyn EventSubscriber + Send + Sync>>(DISK_EVENTS)?;
        events.add_subscriber(disk);
        events.add_subscriber(Arc::new(StopSubscriber {
            event: stop_event.clone(),
            stop: stop.clone(),
        }));
        let work = move || {
            if !entrance.pass(install(filter)) {
                return;
            }
            while !stop.load(Ordering::Relaxed) {
                // An interrupted wait is no error, and no other can occur.
                let _ = events.run();
            }
        };
        Ok(Self {
            stop: stop_event,
            thread: Some(spawn(name, work)?),
        })
    }
}

impl Drop for DiskThread {
    fn drop(&mut self) {
        let _ = self.stop.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The vCPU's thread.
pub(super) struct VcpuThread {
    control: VcpuControl,
    id: libc::pid_t,
    /// Gone once the thread has ended.
    thread: Option<JoinHandle<()>>,
    report: Receiver<(VcpuReport, Remains)>,
    ended: Arc<EventFd>,
}

impl VcpuThread {
    /// Starts the thread that runs `vcpu`, confined by `filter`, behind a gate.
    pub(super) fn spawn(
        vcpu: Vcpu,
        entrance: Entrance,
        filter: Option<Filter>,
    ) -> Result<Self, RunError> {
        let ended =
            Arc::new(EventFd::new(EFD_NONBLOCK).map_err(RunError::host("make an eventfd"))?);
        let control = vcpu.control();
        let (sender, report) = mpsc::sync_channel(1);
        let event = ended.clone();
        let (id_sender, id) = mpsc::sync_channel(1);
        let work = move || {
            // SAFETY: asks for the number of this thread and touches no memory.
            let _ = id_sender.send(unsafe { libc::gettid() });
            // Fires however this thread ends.
            let _fire = FireOnDrop(event);
            if !entrance.pass(install(filter)) {
                return;
            }
            let _ = sender.send(vcpu.run());
        };
        let thread = spawn("vcpu", work)?;
        let died = |_| io::Error::other("it ended at once");
        let id = id.recv().map_err(died);
        Ok(Self {
            control,
            id: id.map_err(RunError::host("start a thread"))?,
            thread: Some(thread),
            report,
            ended,
        })
    }

    /// The system's number of the thread.
    pub(super) fn id(&self) -> libc::pid_t {
        self.id
    }

    /// Becomes readable when the vCPU has ended.
    pub(super) fn ended(&self) -> &EventFd {
        &self.ended
    }

    /// How the run ended, once it has.
    pub(super) fn report(&mut self) -> Option<VcpuReport> {
        self.ended.read().ok()?;
        // It holds no more than this thread does then, which is the one that may close things.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let died = || VcpuReport {
            end: VcpuEnd::Unexpected("the vCPU's thread died".to_owned()),
            exits: ExitCounts::default(),
        };
        let report = self.report.try_recv().map(|(report, _remains)| report);
        Some(report.unwrap_or_else(|_| died()))
    }

    /// Asks the vCPU to end. It may be about to enter the guest, so repeat until it has.
    pub(super) fn stop(&self) {
        self.control.stop();
        self.kick();
    }

    /// Makes the vCPU leave the guest, or look again if it waits.
    pub(super) fn kick(&self) {
        if let Some(thread) = &self.thread {
            // SAFETY: the thread has not been joined, so that its handle is valid; the signal has
            // a handler.
            let _ = unsafe { libc::pthread_kill(thread.as_pthread_t(), KICK_SIGNAL()) };
        }
    }
}

struct FireOnDrop(Arc<EventFd>);

impl Drop for FireOnDrop {
    fn drop(&mut self) {
        let _ = self.0.write(1);
    }
}

/// An event loop for subscribers of one type.
pub(super) fn new_loop<S: MutEventSubscriber>(
    capacity: usize,
) -> Result<EventManager<S>, RunError> {
    EventManager::new_with_capacity(capacity).map_err(|error| RunError::Host {
        what: "make an event loop",
        source: io::Error::other(error.to_string()),
    })
}

/// Confines this thread, unless there is no filter because confinement is not wanted.
pub(super) fn install(filter: Option<Filter>) -> Result<(), FilterError> {
    filter.map_or(Ok(()), |filter| filter.install())
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, RunError> {
    thread::Builder::new()
        .name(name.to_owned())
        // Enough for page-sized buffers; a page that is not touched costs nothing.
        .stack_size(256 * 1024)
        .spawn(work)
        .map_err(RunError::host("start a thread"))
}
