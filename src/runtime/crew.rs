//! The threads of a run: one for each worker, with an event loop of its own, and the vCPU's.
//!
//! They are all started, and confined, before the guest's first instruction, and wait at a gate
//! until everything is. The crew owns the gate: whatever goes wrong while it is brought together,
//! letting go of it first sends the threads home and only then waits for them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use event_manager::{
    EventManager, EventOps, EventSubscriber, Events, MutEventSubscriber, SubscriberOps,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::RunError;
use super::gate::Gate;
use crate::machine::{Ender, Kicker, SpentMachine, Vcpu, VcpuReport};
use crate::sandbox::{Calls, Filter, calls};

/// How many events a worker's loop takes at once.
const WORKER_EVENTS: usize = 4;
/// How long a thread that is to end is waited for. One that hangs in the kernel, as in a read from
/// a network that does not answer, is left behind: it does nothing any more but end.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is to be served by a thread of its own.
pub struct Worker {
    /// Its name, as the system shows it; at most 15 bytes are.
    pub name: &'static str,
    /// What waits for events there.
    pub subscriber: Arc<dyn EventSubscriber + Send + Sync>,
    /// The system calls that it makes, beside waiting for events.
    pub calls: Calls,
}

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

/// One thread.
struct Member {
    name: &'static str,
    /// Asks it to end; the vCPU's is asked otherwise.
    stop: Option<Arc<EventFd>>,
    /// Fires when it ends, however it does.
    ended: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Member {
    fn start(
        name: &'static str,
        stop: Option<Arc<EventFd>>,
        alarm: Arc<EventFd>,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<Self, RunError> {
        let ended = Arc::new(eventfd()?);
        let fire = FireAtEnd {
            ended: ended.clone(),
            alarm,
        };
        let thread = thread::Builder::new()
            .name(name.to_owned())
            // Enough for page-sized buffers; a page that is not touched costs nothing.
            .stack_size(256 * 1024)
            .spawn(move || {
                let _fire = fire;
                work();
            })
            .map_err(RunError::host("start a thread"))?;
        Ok(Self {
            name,
            stop,
            ended,
            thread: Some(thread),
        })
    }

    /// Waits for its end, but not for ever; whether it panicked.
    fn join(&mut self, until: Instant) -> bool {
        if self.thread.is_none() || !wait_for(&self.ended, until) {
            return false;
        }
        self.thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
    }
}

/// All threads of a run.
pub(super) struct Crew {
    gate: Gate,
    members: Vec<Member>,
    /// Fires when a thread panics.
    alarm: Arc<EventFd>,
    confined: bool,
    /// What each of them may do beside its own work.
    common: Calls,
}

impl Crew {
    /// A crew without members; `confined` says whether threads are to be confined, and `common`
    /// what each of them may do beside its own work.
    pub(super) fn new(confined: bool, common: Calls) -> Result<Self, RunError> {
        Ok(Self {
            gate: Gate::new(),
            members: Vec::new(),
            alarm: Arc::new(eventfd()?),
            confined,
            common,
        })
    }

    /// Becomes readable when a thread has panicked.
    pub(super) fn alarm(&self) -> &EventFd {
        &self.alarm
    }

    /// Starts the thread of `worker`, behind the gate.
    pub(super) fn hire(&mut self, worker: Worker) -> Result<(), RunError> {
        let stop_event = Arc::new(eventfd()?);
        let stop = Arc::new(AtomicBool::new(false));
        let mut events = new_loop::<Arc<dyn EventSubscriber + Send + Sync>>(WORKER_EVENTS)?;
        events.add_subscriber(worker.subscriber);
        events.add_subscriber(Arc::new(StopSubscriber {
            event: stop_event.clone(),
            stop: stop.clone(),
        }));
        let filter = self.filter(&calls::event_loop().and(&worker.calls))?;
        let entrance = self.gate.entrance();
        let work = move || {
            if !entrance.pass(install(filter)) {
                return;
            }
            while !stop.load(Ordering::Relaxed) {
                // An interrupted wait is no error, and no other can occur.
                let _ = events.run();
            }
        };
        let member = Member::start(worker.name, Some(stop_event), self.alarm.clone(), work)?;
        self.members.push(member);
        Ok(())
    }

    /// Starts the thread that runs `vcpu`, behind the gate. It may make the `helping` calls too, as
    /// it does the work of a device while the guest waits.
    pub(super) fn hire_vcpu(
        &mut self,
        vcpu: Vcpu,
        helping: &Calls,
    ) -> Result<VcpuHandle, RunError> {
        let ender = vcpu.ender();
        let (report_sender, report) = mpsc::sync_channel(1);
        let (kicker_sender, kicker) = mpsc::sync_channel(1);
        let filter = self.filter(&calls::vcpu().and(helping))?;
        let entrance = self.gate.entrance();
        let work = move || {
            let prepared = prepare_vcpu(&kicker_sender).and_then(|()| install(filter));
            if entrance.pass(prepared) {
                let _ = report_sender.send(vcpu.run());
            }
        };
        let member = Member::start("vcpu", None, self.alarm.clone(), work)?;
        let handle = VcpuHandle {
            ender,
            kicker: None,
            new_kicker: kicker,
            report,
            ended: member.ended.clone(),
        };
        self.members.push(member);
        Ok(handle)
    }

    /// Waits until all are here and confined.
    pub(super) fn muster(&self) -> Result<(), RunError> {
        self.gate.wait_for(self.members.len())
    }

    /// Lets everyone go to work.
    pub(super) fn go(&self) {
        self.gate.open();
    }

    /// Asks all workers to end and waits for them, but not for ever. Returns the name of one that
    /// panicked, if any did.
    pub(super) fn dismiss(&mut self) -> Option<&'static str> {
        self.gate.abandon();
        for member in &self.members {
            if let Some(stop) = &member.stop {
                let _ = stop.write(1);
            }
        }
        let until = Instant::now() + PATIENCE;
        let mut panicked = None;
        for member in &mut self.members {
            if member.join(until) {
                panicked.get_or_insert(member.name);
            }
        }
        panicked
    }

    pub(super) fn filter(&self, calls: &Calls) -> Result<Option<Filter>, RunError> {
        let calls = calls.clone().and(&self.common);
        let filter = self.confined.then(|| Filter::new(&calls)).transpose();
        Ok(filter?)
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.dismiss();
    }
}

/// The vCPU's thread, for who watches it.
pub(super) struct VcpuHandle {
    ender: Ender,
    kicker: Option<Kicker>,
    new_kicker: Receiver<Kicker>,
    report: Receiver<(VcpuReport, SpentMachine)>,
    ended: Arc<EventFd>,
}

impl VcpuHandle {
    /// Becomes readable when the thread has ended.
    pub(super) fn ended(&self) -> &EventFd {
        &self.ended
    }

    /// How the run ended, once the thread has; nothing if it died.
    pub(super) fn report(&self) -> Option<VcpuReport> {
        self.report.try_recv().ok().map(|(report, _spent)| report)
    }

    /// The means to kick it, once it has [mustered](Crew::muster).
    pub(super) fn kicker(&mut self) -> Result<Kicker, RunError> {
        if self.kicker.is_none() {
            self.kicker = self.new_kicker.try_recv().ok();
        }
        self.kicker
            .ok_or_else(|| RunError::Died("the thread of the vCPU".into()))
    }

    /// Asks the vCPU to end. It may be about to enter the guest, so repeat until it has.
    pub(super) fn stop(&self) -> io::Result<()> {
        self.ender.stop();
        self.kick()
    }

    /// Makes the vCPU leave the guest, or look again if it waits.
    pub(super) fn kick(&self) -> io::Result<()> {
        self.kicker.map_or(Ok(()), Kicker::kick)
    }
}

fn prepare_vcpu(kicker: &mpsc::SyncSender<Kicker>) -> Result<(), RunError> {
    let prepared = Kicker::of_this_thread().map_err(RunError::host("prepare a thread"))?;
    // There is room for one, and whoever does not want it has given up.
    let _ = kicker.send(prepared);
    Ok(())
}

struct FireAtEnd {
    ended: Arc<EventFd>,
    alarm: Arc<EventFd>,
}

impl Drop for FireAtEnd {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.alarm.write(1);
        }
        let _ = self.ended.write(1);
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
pub(super) fn install(filter: Option<Filter>) -> Result<(), RunError> {
    Ok(filter.map_or(Ok(()), |filter| filter.install())?)
}

fn eventfd() -> Result<EventFd, RunError> {
    EventFd::new(EFD_NONBLOCK).map_err(RunError::host("make an eventfd"))
}

/// Whether `event` fires before `until`.
fn wait_for(event: &EventFd, until: Instant) -> bool {
    use std::os::fd::{AsRawFd, BorrowedFd};
    // SAFETY: the descriptor is open for as long as `event` is borrowed.
    let fd = unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) };
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let limit = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(
            &mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)],
            Some(&limit),
        ) {
            Ok(ready) => return ready > 0,
            Err(_) if left.is_zero() => return false,
            Err(_) => {}
        }
    }
}
