//! The threads of a run: one for each worker, with an event loop of its own, and the vCPU's.
//!
//! They are all started and confined before the guest's first instruction, and wait at a gate until
//! the last of them is there. The crew owns the gate and the means to end every thread. Whatever
//! goes wrong, dropping the crew first sends the threads home that wait at the gate, then asks
//! those that work to end, and only then waits for all of them, for a limited time.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use event_manager::{
    EventManager, EventOps, EventSubscriber, Events, MutEventSubscriber, SubscriberOps,
};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::RunError;
use super::gate::Gate;
use super::member::{Member, PATIENCE, Stop, Stopper};
use super::processors::{KeptApart, Processors, give_up_real_time};
use crate::machine::{Nudger, SpentMachine, Vcpu, VcpuReport, Whereabouts, WithPoller};
use crate::reason::reason;
use crate::sandbox::{Calls, Filter, calls};
use crate::virtio::{QueueWorker, Service};

/// How many events a worker's loop takes at once.
const WORKER_EVENTS: usize = 4;

/// What a thread of its own serves: it waits for events.
pub trait Subscriber: EventSubscriber + Send + Sync {
    /// Why an event is not watched that this wants to be told of: the run does not begin then.
    /// Subscribing to events has no result of its own that could say so.
    fn unwatched(&self) -> Option<&event_manager::Error>;
}

impl<S: Service> Subscriber for QueueWorker<S> {
    fn unwatched(&self) -> Option<&event_manager::Error> {
        self.unwatched_kick()
    }
}

impl<D: Subscriber> Subscriber for WithPoller<D> {
    fn unwatched(&self) -> Option<&event_manager::Error> {
        self.device.unwatched()
    }
}

/// What is to be served by a thread of its own.
pub struct Worker {
    /// Its name. The system shows the first 15 bytes of it.
    pub name: &'static str,
    /// What waits for events there.
    pub subscriber: Arc<dyn Subscriber>,
    /// The system calls that it makes, beside waiting for events.
    pub calls: Calls,
}

/// Ends an event loop when its eventfd fires.
struct StopSubscriber {
    event: Arc<EventFd>,
    stop: Arc<AtomicBool>,
    /// The error if the eventfd could not be added to the event loop.
    failure: OnceLock<event_manager::Error>,
}

impl EventSubscriber for StopSubscriber {
    fn process(&self, _: Events, _: &mut EventOps<'_>) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn init(&self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.add(Events::new(&*self.event, EventSet::IN)) {
            let _ = self.failure.set(error);
        }
    }
}

impl Subscriber for StopSubscriber {
    fn unwatched(&self) -> Option<&event_manager::Error> {
        self.failure.get()
    }
}

/// All threads of a run.
pub(super) struct Crew {
    gate: Gate,
    members: Vec<Member>,
    /// Fires when a thread dies.
    alarm: Arc<EventFd>,
    /// Where the threads begin, if that is not left to the scheduler.
    processors: Option<Processors>,
    /// Where the vCPU's thread is.
    whereabouts: Arc<Whereabouts>,
    confined: bool,
    /// What each of them may do beside its own work.
    common: Calls,
}

impl Crew {
    /// A crew without members. `confined` says whether threads are to be confined, `common` what each
    /// of them may do beside its own work, and `whereabouts` where the vCPU's thread will be.
    pub(super) fn new(
        confined: bool,
        common: Calls,
        whereabouts: Arc<Whereabouts>,
    ) -> Result<Self, RunError> {
        Ok(Self {
            gate: Gate::new(),
            members: Vec::new(),
            alarm: Arc::new(eventfd()?),
            processors: Processors::two(),
            whereabouts,
            confined,
            common,
        })
    }

    /// Becomes readable when a thread has died.
    pub(super) fn alarm(&self) -> &EventFd {
        &self.alarm
    }

    /// Starts the thread of `worker`, behind the gate.
    pub(super) fn hire(&mut self, worker: Worker) -> Result<(), RunError> {
        let stop_event = Arc::new(eventfd()?);
        let stop = Arc::new(AtomicBool::new(false));
        let mut events = new_loop::<Arc<dyn Subscriber>>(WORKER_EVENTS)?;
        let stopping = Arc::new(StopSubscriber {
            event: stop_event.clone(),
            stop: stop.clone(),
            failure: OnceLock::new(),
        });
        let subscriber: Arc<dyn Subscriber> = match self.processors {
            Some(two) => Arc::new(KeptApart::new(
                worker.subscriber,
                two,
                self.whereabouts.clone(),
            )),
            None => worker.subscriber,
        };
        for subscriber in [subscriber, stopping] {
            events.add_subscriber(subscriber.clone());
            if let Some(error) = subscriber.unwatched() {
                return Err(loop_failed("watch a device's events", error));
            }
        }
        let filter = self.filter(&calls::device_loop().and(&worker.calls))?;
        let entrance = self.gate.entrance();
        let processors = self.processors;
        let work = move || {
            if let Some(processors) = processors {
                processors.begin_at_devices();
            }
            if !entrance.pass(install(filter)) {
                return Ok(());
            }
            while !stop.load(Ordering::Relaxed) {
                // An interrupted wait is no error.
                let waited = events.run();
                waited.map_err(|error| loop_failed("wait for a device's events", &error))?;
            }
            Ok(())
        };
        let stop = Stop::Event(stop_event);
        let member = Member::start(worker.name, stop, self.alarm.clone(), work)?;
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
        let stopper = Stopper {
            ender: vcpu.ender(),
            nudger: Arc::default(),
        };
        let (report_sender, report) = mpsc::sync_channel(1);
        let nudger = stopper.nudger.clone();
        let filter = self.filter(&calls::vcpu().and(helping))?;
        let entrance = self.gate.entrance();
        let processors = self.processors;
        let work = move || {
            if let Some(processors) = processors {
                processors.begin_at_vcpu();
            }
            give_up_real_time();
            let prepared = prepare_vcpu(&nudger).and_then(|()| install(filter));
            if entrance.pass(prepared) {
                let _ = report_sender.send(vcpu.run());
            }
            Ok(())
        };
        let stop = Stop::Vcpu(stopper.clone());
        let member = Member::start("vcpu", stop, self.alarm.clone(), work)?;
        let handle = VcpuHandle {
            stopper,
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

    /// Asks all threads to end and waits for them until `until`. Returns why one died, if any did, and
    /// the names of those that have not ended.
    pub(super) fn dismiss(&mut self, until: Instant) -> (Option<RunError>, Vec<&'static str>) {
        self.gate.abandon();
        self.members.iter().for_each(Member::ask_to_end);
        self.members
            .iter_mut()
            .for_each(|member| member.join(until));
        let stuck = self.members.iter().filter_map(Member::stuck).collect();
        let died = self.members.drain(..).find_map(|member| {
            // Once the thread has ended, nobody else holds the reason.
            Arc::into_inner(member.died).and_then(OnceLock::into_inner)
        });
        (died, stuck)
    }

    pub(super) fn filter(&self, calls: &Calls) -> Result<Option<Filter>, RunError> {
        let calls = calls.clone().and(&self.common);
        let filter = self.confined.then(|| Filter::new(&calls)).transpose();
        Ok(filter?)
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.dismiss(Instant::now() + PATIENCE);
    }
}

/// The vCPU's thread, for who watches it.
pub(super) struct VcpuHandle {
    stopper: Stopper,
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

    /// The thread, as the system numbers it, once it has [mustered](Crew::muster).
    pub(super) fn thread(&self) -> Option<libc::pid_t> {
        self.stopper.nudger.get().map(|nudger| nudger.thread())
    }

    /// Asks the vCPU to end. It may be about to enter the guest, so repeat until it has.
    pub(super) fn stop(&self) -> io::Result<()> {
        self.stopper.stop()
    }

    /// Makes the vCPU leave the guest, or look again if it waits.
    pub(super) fn nudge(&self) -> io::Result<()> {
        self.stopper.nudge()
    }
}

fn prepare_vcpu(nudger: &OnceLock<Nudger>) -> Result<(), RunError> {
    let prepared = Nudger::of_this_thread().map_err(RunError::host("prepare a thread"))?;
    let _ = nudger.set(prepared);
    Ok(())
}

/// An event loop for subscribers of one type.
pub(super) fn new_loop<S: MutEventSubscriber>(
    capacity: usize,
) -> Result<EventManager<S>, RunError> {
    EventManager::new_with_capacity(capacity)
        .map_err(|error| loop_failed("make an event loop", &error))
}

/// What an event loop could not do.
pub(super) fn loop_failed(what: &'static str, error: &event_manager::Error) -> RunError {
    let source = match error {
        event_manager::Error::Epoll(errno) if errno.errno() == libc::ENOSPC => {
            io::Error::other(format!(
                "{} (raise the limit: sysctl fs.epoll.max_user_watches)",
                reason(errno)
            ))
        }
        event_manager::Error::Epoll(errno) => io::Error::from_raw_os_error(errno.errno()),
        other => io::Error::other(other.to_string()),
    };
    RunError::Host { what, source }
}

/// Confines this thread, unless there is no filter because confinement is not wanted.
pub(super) fn install(filter: Option<Filter>) -> Result<(), RunError> {
    Ok(filter.map_or(Ok(()), |filter| filter.install())?)
}

pub(super) fn eventfd() -> Result<EventFd, RunError> {
    EventFd::new(EFD_NONBLOCK).map_err(RunError::host("make an eventfd"))
}
