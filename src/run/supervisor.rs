//! The main loop of a run: signals, serial ports, the clock, and the end.
//!
//! Nothing in it waits but for an event, so that a signal or the time limit always gets through:
//! the guest's text is only taken while there is room for what becomes of it.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_manager::{
    EventManager, EventOps, Events, MutEventSubscriber, SubscriberId, SubscriberOps,
};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::timerfd::TimerFd;

use super::error::RunError;
use super::signals::Signals;
use super::threads::{VcpuThread, new_loop};
use crate::devices::{ByteQueue, Uart};
use crate::job::{ProtocolError, Said, Session};
use crate::machine::VcpuReport;
use crate::report::{Console, DebugLines, PIECE};

/// The beat of the loop's clock: bytes that KVM holds back, and a progress bar, are never older.
const TICK: Duration = Duration::from_millis(50);
/// How many events are taken at once; there are eight sources.
const EVENTS: usize = 8;

/// Why the loop ended, when it was not for the vCPU's own end.
#[derive(Debug)]
pub(super) enum Cut {
    /// A signal.
    Signal(u8),
    /// The time limit.
    TimedOut(Duration),
    /// The guest broke the protocol.
    Protocol(ProtocolError),
}

/// The guest's side of the loop.
pub(super) struct GuestPorts {
    pub(super) com1: Arc<Uart>,
    pub(super) com1_output: Arc<ByteQueue>,
    pub(super) com2: Arc<Uart>,
    pub(super) com2_output: Arc<ByteQueue>,
}

/// What the loop tells the rest of the run.
pub(super) struct Supervised {
    pub(super) report: VcpuReport,
    pub(super) cut: Option<Cut>,
    pub(super) session: Session,
    pub(super) debug: DebugLines,
    pub(super) console: Console,
    pub(super) signals: Signals,
}

/// The sources of events, as the data of each.
mod token {
    pub(super) const SIGNAL: u32 = 0;
    pub(super) const TICK: u32 = 1;
    pub(super) const VCPU: u32 = 2;
    pub(super) const COM1_EMPTY: u32 = 3;
    pub(super) const COM2_EMPTY: u32 = 4;
    pub(super) const COM1_OUTPUT: u32 = 5;
    pub(super) const COM2_OUTPUT: u32 = 6;
    pub(super) const ROOM: u32 = 7;
}

pub(super) struct Supervisor<P> {
    signals: Signals,
    timer: TimerFd,
    vcpu: VcpuThread,
    ports: GuestPorts,
    console: Console,
    session: Session,
    debug: DebugLines,
    progress: P,
    deadline: Option<(Instant, Duration)>,
    report: Option<VcpuReport>,
    cut: Option<Cut>,
    /// The descriptors that are watched for room.
    watched: Vec<RawFd>,
    /// Whether bytes of COM1 were left where they are for want of room.
    held_back: bool,
    received: Vec<u8>,
}

impl<P: Fn() -> u64> Supervisor<P> {
    /// A loop for a run that has just begun. `progress` tells how many bytes are written.
    pub(super) fn new(
        signals: Signals,
        vcpu: VcpuThread,
        ports: GuestPorts,
        console: Console,
        session: Session,
        progress: P,
        timeout: Option<Duration>,
    ) -> Result<Self, RunError> {
        let clock = |source: vmm_sys_util::errno::Error| RunError::Host {
            what: "make a timer",
            source: source.into(),
        };
        let mut timer = TimerFd::new().map_err(clock)?;
        timer.reset(TICK, Some(TICK)).map_err(clock)?;
        Ok(Self {
            signals,
            timer,
            vcpu,
            ports,
            console,
            session,
            debug: DebugLines::default(),
            progress,
            deadline: timeout.and_then(|limit| Some((Instant::now().checked_add(limit)?, limit))),
            report: None,
            cut: None,
            watched: Vec::new(),
            held_back: false,
            received: Vec::new(),
        })
    }

    /// Puts it in an event loop. From then on nothing has to be opened any more.
    pub(super) fn into_loop(self) -> Result<MainLoop<P>, RunError> {
        let mut events = new_loop(EVENTS)?;
        let id = events.add_subscriber(self);
        Ok(MainLoop { events, id })
    }

    fn finish(mut self) -> Result<Supervised, RunError> {
        let mut console = self.console;
        self.debug.finish(|line| console.debug(line));
        console.flush();
        let report = self
            .report
            .ok_or_else(|| RunError::Guest("the vCPU's thread died".into()))?;
        Ok(Supervised {
            report,
            cut: self.cut,
            session: self.session,
            debug: self.debug,
            console,
            signals: self.signals,
        })
    }

    fn end(&mut self, cut: Cut) {
        if self.cut.is_none() {
            self.cut = Some(cut);
            // A guest that waits for room in a queue must not wait any longer.
            self.ports.com1_output.close();
            self.ports.com2_output.close();
            self.vcpu.stop();
        }
    }

    fn tick(&mut self) {
        let _ = self.timer.wait();
        if let Some((deadline, limit)) = self.deadline
            && Instant::now() >= deadline
            && self.report.is_none()
        {
            self.end(Cut::TimedOut(limit));
        }
        // The guest may have left bytes with KVM, or buffers with a disk that it need not kick; and
        // one that waits must look whether there is still something to wait for.
        if self.report.is_none() {
            self.vcpu.kick();
        }
        self.console.tick((self.progress)());
    }

    /// Takes what the guest sent on COM1, unless so much waits to be printed that the guest
    /// should wait too.
    fn receive(&mut self) {
        self.held_back = self.console.is_full();
        if self.held_back {
            let _ = self.ports.com1_output.event().read();
        } else {
            self.receive_all();
        }
    }

    fn receive_all(&mut self) {
        self.ports.com1_output.take(&mut self.received);
        if self.cut.is_some() {
            return;
        }
        let console = &mut self.console;
        for piece in self.received.chunks(PIECE) {
            let shown = self.session.receive(piece, |said| match said {
                Said::Message(message) => console.message(message),
                Said::Text(text) => console.text(text),
            });
            if let Err(error) = shown {
                self.end(Cut::Protocol(error));
                return;
            }
        }
    }

    fn receive_debug(&mut self) {
        self.ports.com2_output.take(&mut self.received);
        let console = &mut self.console;
        self.debug.push(&self.received, |line| console.debug(line));
    }

    /// The vCPU has ended: what it sent before is still in the queues.
    fn vcpu_ended(&mut self) {
        if let Some(report) = self.vcpu.report() {
            self.receive_all();
            self.receive_debug();
            self.report = Some(report);
        }
    }

    /// Watches what waits for room.
    fn watch_for_room(&mut self, ops: &mut EventOps<'_>) {
        let waiting: Vec<RawFd> = self.console.waiting().collect();
        let out = |fd| Events::with_data_raw(fd, token::ROOM, EventSet::OUT);
        for fd in &waiting {
            if !self.watched.contains(fd) {
                let _ = ops.add(out(*fd));
            }
        }
        for fd in &self.watched {
            if !waiting.contains(fd) {
                let _ = ops.remove(out(*fd));
            }
        }
        self.watched = waiting;
    }
}

/// The main loop, ready to run.
pub(super) struct MainLoop<P> {
    events: EventManager<Supervisor<P>>,
    id: SubscriberId,
}

impl<P: Fn() -> u64> MainLoop<P> {
    /// Runs until the vCPU has ended.
    pub(super) fn run(mut self) -> Result<Supervised, RunError> {
        let failed = |error: event_manager::Error| RunError::Host {
            what: "wait for events",
            source: std::io::Error::other(error.to_string()),
        };
        loop {
            let this = self.events.subscriber_mut(self.id).map_err(failed)?;
            if this.report.is_some() {
                break;
            }
            let stopping = this.cut.is_some();
            // A kick can come just before the vCPU enters the guest: repeat it.
            let wait = if stopping { 1 } else { -1 };
            if self.events.run_with_timeout(wait).map_err(failed)? == 0 && stopping {
                self.events
                    .subscriber_mut(self.id)
                    .map_err(failed)?
                    .vcpu
                    .stop();
            }
        }
        self.events
            .remove_subscriber(self.id)
            .map_err(failed)?
            .finish()
    }
}

impl<P: Fn() -> u64> MutEventSubscriber for Supervisor<P> {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        let sources = [
            (self.signals.as_raw_fd(), token::SIGNAL),
            (self.timer.as_raw_fd(), token::TICK),
            (self.vcpu.ended().as_raw_fd(), token::VCPU),
            (self.ports.com1.empty_event().as_raw_fd(), token::COM1_EMPTY),
            (self.ports.com2.empty_event().as_raw_fd(), token::COM2_EMPTY),
            (
                self.ports.com1_output.event().as_raw_fd(),
                token::COM1_OUTPUT,
            ),
            (
                self.ports.com2_output.event().as_raw_fd(),
                token::COM2_OUTPUT,
            ),
        ];
        for (fd, token) in sources {
            // Cannot fail: the descriptors are open and new to this loop.
            let _ = ops.add(Events::with_data_raw(fd, token, EventSet::IN));
        }
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match events.data() {
            token::SIGNAL => {
                if let Some(signal) = self.signals.next() {
                    self.end(Cut::Signal(signal));
                }
            }
            token::TICK => self.tick(),
            token::VCPU => self.vcpu_ended(),
            token::COM1_EMPTY => self.ports.com1.refill(),
            token::COM2_EMPTY => self.ports.com2.refill(),
            token::COM1_OUTPUT => self.receive(),
            token::COM2_OUTPUT => self.receive_debug(),
            _ => self.console.flush(),
        }
        if self.held_back {
            self.receive();
        }
        self.watch_for_room(ops);
    }
}
