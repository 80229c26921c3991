//! The main loop of a run: signals, what the guest says, the clock, and the end.
//!
//! The loop never waits for anything but an event, so that a signal or the time limit always gets
//! through. It takes the guest's words only while there is room for the lines that they become, and
//! only so many at once.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use event_manager::{EventOps, Events, MutEventSubscriber, SubscriberOps};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::timerfd::TimerFd;

use super::channels::{Channels, DEBUG_QUEUE};
use super::crew::{VcpuHandle, loop_failed, new_loop};
use super::member::{NUDGE_AGAIN, PATIENCE};
use super::room::Room;
use super::{Deadline, Operation, RunError, SerialInput, Signals, Stage, Watch};
use crate::machine::VcpuReport;
use crate::report::{Console, DebugLines, PIECE};

/// The time between two ticks. Bytes that KVM holds back, and the progress bar, are never older.
const TICK: Duration = Duration::from_millis(50);
/// How many events are taken at once.
const EVENTS: usize = 16;
/// How many pieces of the guest's words are taken from a queue before other events have their turn: a
/// guest can fill it faster than it is emptied.
const PIECES_AT_ONCE: usize = 16;
// When the vCPU has ended, all of its debug text is taken at once.
const _: () = assert!(PIECES_AT_ONCE * PIECE >= DEBUG_QUEUE);
/// How long a reader of standard output may take nothing before it is no longer waited for.
pub(super) const READER_PATIENCE: Duration = Duration::from_secs(10);

/// The sources of events, as the data of each. Those of which there are several are counted from
/// their number up.
mod token {
    pub(super) const SIGNAL: u32 = 0;
    pub(super) const TICK: u32 = 1;
    pub(super) const VCPU: u32 = 2;
    pub(super) const ALARM: u32 = 3;
    pub(super) const ROOM: u32 = 4;
    pub(super) const INPUT: u32 = 5;
    pub(super) const REFILL: u32 = 0x100;
    pub(super) const REPORT: u32 = 0x200;
    pub(super) const DEBUG: u32 = 0x300;
}

/// What the loop works with.
pub(super) struct Parts<'a> {
    pub(super) operation: &'a mut dyn Operation,
    pub(super) console: Console,
    pub(super) channels: Channels,
    pub(super) input: Option<SerialInput>,
    pub(super) vcpu: VcpuHandle,
    pub(super) signals: Signals,
    pub(super) watch: Watch,
    pub(super) alarm: &'a EventFd,
    pub(super) deadline: Option<Deadline>,
}

/// What is left when the guest has ended, or has been ended, and all it said has been heard.
pub(super) struct Ended {
    /// Why the run was ended from outside, if it was.
    pub(super) ended_from_outside: Option<RunError>,
    /// Nothing if the vCPU's thread died, or could not be ended.
    pub(super) report: Option<VcpuReport>,
    pub(super) debug: DebugLines,
    pub(super) console: Console,
    pub(super) signals: Signals,
    pub(super) watch: Watch,
    /// How many bytes of lines were dropped, since nobody read them in time.
    pub(super) dropped: usize,
    /// Until when threads that were asked to end are waited for, if any were.
    pub(super) patience_ends: Option<Instant>,
}

struct MainLoop<'a> {
    parts: Parts<'a>,
    timer: TimerFd,
    debug: DebugLines,
    ended_from_outside: Option<RunError>,
    /// Until when a vCPU that was asked to end is waited for.
    patience_ends: Option<Instant>,
    report: Option<VcpuReport>,
    vcpu_ended: bool,
    dropped: usize,
    /// Why an event is not watched.
    failure: Option<RunError>,
    /// Whether bytes were left in their queue for want of room.
    held_back: bool,
    room: Room,
    buffer: [u8; PIECE],
}

/// Runs until the vCPU has ended and what it said has been heard. `go` is called when everything is
/// ready; from then on nothing has to be opened any more, and a loop that fails ends the run as
/// anything else does that ends it from outside.
pub(super) fn run<'a>(
    parts: Parts<'a>,
    go: impl FnOnce() -> Result<(), RunError>,
) -> Result<Ended, RunError> {
    let clock = |source: vmm_sys_util::errno::Error| RunError::Host {
        what: "make a timer",
        source: source.into(),
    };
    let mut timer = TimerFd::new().map_err(clock)?;
    let first = parts.deadline.map_or(TICK, |limit| limit.first_tick(TICK));
    timer.reset(first, Some(TICK)).map_err(clock)?;
    let mut events = new_loop::<MainLoop<'a>>(EVENTS)?;
    let id = events.add_subscriber(MainLoop {
        parts,
        timer,
        debug: DebugLines::default(),
        ended_from_outside: None,
        patience_ends: None,
        report: None,
        vcpu_ended: false,
        dropped: 0,
        failure: None,
        held_back: false,
        room: Room::new(),
        buffer: [0; PIECE],
    });
    let failed = |error| loop_failed("wait for events", &error);
    if let Some(error) = events.subscriber_mut(id).map_err(failed)?.failure.take() {
        return Err(error);
    }
    go()?;
    let this = events.subscriber_mut(id).map_err(failed)?;
    this.parts.watch.enter(Stage::Running);
    let again = i32::try_from(NUDGE_AGAIN.as_millis()).unwrap_or(1);
    loop {
        let this = events.subscriber_mut(id).map_err(failed)?;
        if this.is_over() {
            break;
        }
        let wait = match this.patience_ends {
            // Devices send no event when they come to rest, so they are asked again and again.
            None if this.vcpu_ended && !this.held_back => again,
            None => -1,
            Some(end) if Instant::now() >= end => break,
            Some(_) => {
                this.stop_vcpu();
                again
            }
        };
        // The process is confined by now, and its console is the loop's: the run still ends in order.
        if let Err(error) = events.run_with_timeout(wait) {
            let this = events.subscriber_mut(id).map_err(failed)?;
            this.end(failed(error));
            break;
        }
    }
    let mut this = events.remove_subscriber(id).map_err(failed)?;
    let console = &mut this.parts.console;
    this.debug.finish(|line| console.debug(line));
    Ok(Ended {
        ended_from_outside: this.ended_from_outside,
        report: this.report,
        debug: this.debug,
        console: this.parts.console,
        signals: this.parts.signals,
        watch: this.parts.watch,
        dropped: this.dropped,
        patience_ends: this.patience_ends,
    })
}

impl MainLoop<'_> {
    /// Whether the guest has ended and all it said has been heard, or need not be heard any more.
    fn is_over(&self) -> bool {
        self.vcpu_ended && (self.ended_from_outside.is_some() || self.parts.channels.are_silent())
    }

    fn end(&mut self, why: RunError) {
        if self.ended_from_outside.is_none() {
            self.parts.watch.enter(Stage::Ending);
            self.ended_from_outside = Some(why);
            self.patience_ends = Some(Instant::now() + PATIENCE);
            self.parts.operation.cancel();
            // A guest that waits for room in a queue must not wait any longer.
            self.parts.channels.close();
            self.stop_vcpu();
        }
    }

    fn stop_vcpu(&mut self) {
        if !self.vcpu_ended {
            // An error here was met at an earlier tick already, and has been reported.
            let _ = self.parts.vcpu.stop();
        }
    }

    fn tick(&mut self) {
        let _ = self.timer.wait();
        self.parts.watch.beat();
        if let Some(deadline) = self.parts.deadline
            && deadline.is_over()
        {
            self.is_late(deadline);
        }
        // The guest may have left bytes with KVM, or buffers with a device that it need not kick;
        // and one that waits must look whether there is still something to wait for.
        if !self.vcpu_ended
            && let Err(error) = self.parts.vcpu.nudge()
        {
            self.end(RunError::host("nudge the vCPU")(error));
        }
        self.parts.console.tick(self.parts.operation.progress());
        if self.vcpu_ended {
            self.dropped += self.parts.console.give_up_stuck(READER_PATIENCE);
        }
    }

    /// Ends the run because its time is over. If the guest has ended already, only its words are
    /// still to be shown, and they matter less than the result.
    fn is_late(&mut self, deadline: Deadline) {
        if self.vcpu_ended {
            self.dropped += self.parts.console.give_up();
        } else {
            self.end(RunError::TimedOut(deadline.limit()));
        }
    }

    /// Takes what the guest reported, unless so much waits to be printed that the guest should
    /// wait too.
    fn receive(&mut self) {
        self.held_back = false;
        for index in 0..self.parts.channels.reports.len() {
            self.receive_from(index);
        }
    }

    fn receive_from(&mut self, index: usize) {
        let Parts {
            operation,
            console,
            channels,
            ..
        } = &mut self.parts;
        let (source, queue) = &channels.reports[index];
        for _ in 0..PIECES_AT_ONCE {
            if console.is_full() && self.ended_from_outside.is_none() {
                // The event is taken all the same: otherwise the loop would be told of it again and
                // again while there is no room.
                let _ = queue.event().read();
                self.held_back = true;
                return;
            }
            let len = queue.take(&mut self.buffer);
            if len == 0 {
                return;
            }
            if self.ended_from_outside.is_none()
                && let Err(error) = operation.receive(*source, &self.buffer[..len], console)
            {
                self.end(error);
                return;
            }
        }
        // There may be more, and its event may have been taken when there was no room. One without
        // bytes does no harm.
        let _ = queue.event().write(1);
    }

    fn receive_debug(&mut self, index: usize) {
        let Parts {
            console, channels, ..
        } = &mut self.parts;
        for _ in 0..PIECES_AT_ONCE {
            let len = channels.debug[index].take(&mut self.buffer);
            if len == 0 {
                return;
            }
            let bytes = &self.buffer[..len];
            self.debug.push(bytes, |line| console.debug(line));
        }
    }

    /// Refills a port, and has the one that takes standard input take more of it.
    fn refill(&mut self, index: usize, ops: &mut EventOps<'_>) {
        let uart = &self.parts.channels.refills[index];
        uart.refill();
        if let Some(input) = &mut self.parts.input
            && std::sync::Arc::ptr_eq(input.uart(), uart)
        {
            let note = input.on_taken(ops, token::INPUT);
            self.warn(note);
        }
    }

    fn read_input(&mut self, ops: &mut EventOps<'_>) {
        let input = self.parts.input.as_mut();
        let note = input.and_then(|input| input.on_readable(ops));
        self.warn(note);
    }

    fn warn(&mut self, note: Option<String>) {
        if let Some(note) = note {
            self.parts.console.warn(&note);
        }
    }

    /// Takes note that the vCPU has ended. What it sent before is still in the queues.
    fn vcpu_has_ended(&mut self, ops: &mut EventOps<'_>) {
        // The event is not read: it stays readable for whoever waits for the thread.
        let _ = ops.remove(Events::new(self.parts.vcpu.ended(), EventSet::IN));
        self.vcpu_ended = true;
        self.report = self.parts.vcpu.report();
        self.receive();
        for index in 0..self.parts.channels.debug.len() {
            self.receive_debug(index);
        }
    }
}

impl MutEventSubscriber for MainLoop<'_> {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        let mut failure = None;
        let mut add = |fd: &dyn AsRawFd, token| {
            let added = ops.add(Events::with_data_raw(fd.as_raw_fd(), token, EventSet::IN));
            if let Err(error) = added {
                failure.get_or_insert(loop_failed("watch the run's events", &error));
            }
        };
        add(&self.parts.signals, token::SIGNAL);
        add(&self.timer, token::TICK);
        add(self.parts.vcpu.ended(), token::VCPU);
        add(self.parts.alarm, token::ALARM);
        let channels = &self.parts.channels;
        for (uart, token) in channels.refills.iter().zip(token::REFILL..) {
            add(uart.empty_event(), token);
        }
        for ((_, queue), token) in channels.reports.iter().zip(token::REPORT..) {
            add(queue.event(), token);
        }
        for (queue, token) in channels.debug.iter().zip(token::DEBUG..) {
            add(queue.event(), token);
        }
        let input = self.parts.input.as_mut();
        let note = input.and_then(|input| input.start(ops, token::INPUT));
        self.warn(note);
        self.failure = failure;
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        let at = |token: u32, first: u32| (token - first) as usize;
        match events.data() {
            token::SIGNAL => {
                if let Some(signal) = self.parts.watch.take(&self.parts.signals) {
                    self.end(RunError::Signal(signal));
                }
            }
            token::TICK => self.tick(),
            token::VCPU => self.vcpu_has_ended(ops),
            token::ALARM => {
                let _ = self.parts.alarm.read();
                self.end(RunError::Died("a thread has died".to_owned()));
            }
            token @ token::DEBUG.. => self.receive_debug(at(token, token::DEBUG)),
            token @ token::REPORT.. => self.receive_from(at(token, token::REPORT)),
            token @ token::REFILL.. => self.refill(at(token, token::REFILL), ops),
            token::INPUT => self.read_input(ops),
            _ => self.parts.console.flush(),
        }
        if self.held_back {
            self.receive();
        }
        self.room.watch(&self.parts.console, token::ROOM, ops);
    }
}
