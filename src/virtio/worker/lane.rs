//! One queue of a device at work: rounds of bounded length, and who may be working on it.
//!
//! Two threads may want to work on a queue: the device's own, which kicks wake, and one that helps
//! (see [`VirtioDevice::serve_here`](crate::virtio::VirtioDevice::serve_here)). All of a lane's
//! state is behind one lock, so that there is no moment at which neither of them looks.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};

use virtio_bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;

use super::fault::FirstFault;
use super::habit::Habit;
use super::{QueueFault, Service, Turn};
use crate::lock::lock;
use crate::virtio::{DescriptorTable, Notifier, QueueError, UsedElement};

/// A round ends after so many bytes, so that the device's thread comes back to its event loop,
/// which may have been asked to stop.
const ROUND_BYTES: u64 = 16 << 20;
/// A round also ends after so many chains and descriptors: a chain need not have data, and may have
/// many descriptors. What else takes long is counted as many of them ([`Turn::count_work`]).
const ROUND_WORK: usize = 32 << 10;

/// What a queue counts. The counters only ever grow, over resets too, and are exact once the
/// device is at rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounters {
    /// Times that the device's thread was woken by the queue's eventfd.
    pub kicks: u64,
    /// Chains put into the used ring.
    pub used: u64,
    /// Used buffer notifications sent.
    pub notifications: u64,
}

/// What [`QueueCounters`] are made of, counted by one thread while others read.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(super) kicks: AtomicU64,
    pub(super) used: AtomicU64,
    pub(super) notifications: AtomicU64,
}

/// Whose thread does a round of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thread {
    OfDevice,
    OfHelper,
}

/// How a round of work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Round {
    /// The queue is empty, and someone will look again when it no longer is.
    Done,
    /// There may be more, and the driver need not kick.
    More,
}

/// A queue's state behind its lock.
#[derive(Debug, Default)]
pub(super) struct Work<R> {
    /// `None` unless the driver has started the device.
    active: Option<Active>,
    room: R,
    used: Vec<UsedElement>,
    habit: Habit,
}

#[derive(Debug)]
struct Active {
    queue: Queue,
    /// What the driver has chosen of the device's features.
    features: u64,
}

impl Active {
    fn table<'m>(&self, memory: &'m GuestMemoryMmap) -> Result<DescriptorTable<'m>, QueueFault> {
        let indirect = self.features & (1 << VIRTIO_RING_F_INDIRECT_DESC) != 0;
        DescriptorTable::new(&self.queue, memory, indirect).map_err(QueueFault::Table)
    }
}

/// One queue of a device.
#[derive(Debug, Default)]
pub(super) struct Lane<R> {
    work: Mutex<Work<R>>,
    /// How many threads are about to look at the queue or do so. Each counts itself before it takes
    /// what has called it, a kick or the wish for help, and no longer once it has looked, so that at
    /// any time one of the two tells of work to come.
    busy: AtomicU32,
    /// What [`Habit::wants_help`] said after the last turn. A helper reads it without the lock.
    wants_help: AtomicBool,
    /// Whether a helper serves this queue again and again. As long as its help is wanted the driver
    /// is not asked to kick. Cleared with the lock held.
    has_helper: AtomicBool,
    pub(super) counts: Counts,
}

/// What a lane works with.
pub(super) struct LaneContext<'a, S> {
    pub(super) index: usize,
    pub(super) service: &'a S,
    pub(super) memory: &'a GuestMemoryMmap,
    pub(super) notifier: &'a Notifier,
    pub(super) fault: &'a FirstFault,
}

impl<R: Default + Send> Lane<R> {
    pub(super) fn counters(&self) -> QueueCounters {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        QueueCounters {
            kicks: load(&self.counts.kicks),
            used: load(&self.counts.used),
            notifications: load(&self.counts.notifications),
        }
    }

    pub(super) fn start(&self, queue: Queue, features: u64) {
        let mut work = lock(&self.work);
        let size = usize::from(queue.size());
        work.active = Some(Active { queue, features });
        work.habit = Habit::default();
        self.wants_help.store(false, Ordering::SeqCst);
        // No more chains can be complete at once than there are descriptors.
        work.used.clear();
        work.used.reserve(size);
    }

    /// Returns when nothing of the queue is in flight any more.
    pub(super) fn stop<S: Service<Room = R>>(&self, context: &LaneContext<'_, S>) {
        let mut work = lock(&self.work);
        work.active = None;
        work.used.clear();
        context.service.stopped(context.index);
    }

    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::SeqCst) != 0
    }

    /// Does what a kick asks for; `take_kick` makes the eventfd unreadable. Without an active queue
    /// the kick is lost, as one before DRIVER_OK is to be.
    pub(super) fn on_kick<S: Service<Room = R>>(
        &self,
        context: &LaneContext<'_, S>,
        take_kick: impl FnOnce(),
        look_again: impl FnOnce(),
    ) {
        self.busy.fetch_add(1, Ordering::SeqCst);
        take_kick();
        self.counts.kicks.fetch_add(1, Ordering::Relaxed);
        if self.round(&mut lock(&self.work), context, Thread::OfDevice) == Round::More {
            look_again();
        }
        self.busy.fetch_sub(1, Ordering::SeqCst);
    }

    /// Does what the queue asks for on the thread of a helper, if it wants help. Returns whether
    /// that used any chains.
    pub(super) fn help<S: Service<Room = R>>(
        &self,
        context: &LaneContext<'_, S>,
        look_again: impl FnOnce(),
    ) -> bool {
        self.has_helper.store(true, Ordering::SeqCst);
        if !self.wants_help.load(Ordering::SeqCst) {
            return false;
        }
        // Another helper no longer comes here once this round has found that help is not wanted. It
        // sees then that someone is at work.
        self.busy.fetch_add(1, Ordering::SeqCst);
        // Whoever has the lock counts, so that what is counted meanwhile is this round's.
        let helped = |mut work: MutexGuard<'_, Work<R>>| {
            let before = self.counters().used;
            let round = self.round(&mut work, context, Thread::OfHelper);
            (round, self.counters().used != before)
        };
        let (round, used) = match self.work.try_lock() {
            Ok(work) => helped(work),
            Err(TryLockError::Poisoned(poisoned)) => helped(poisoned.into_inner()),
            // Another thread works on the queue. It may have looked at it for the last time already.
            Err(TryLockError::WouldBlock) => (Round::More, false),
        };
        if round == Round::More {
            look_again();
        }
        self.busy.fetch_sub(1, Ordering::SeqCst);
        used
    }

    /// Leaves the queue to the device's thread. Returns whether a helper had it until now.
    pub(super) fn leave(&self) -> bool {
        let _work = lock(&self.work);
        self.has_helper.swap(false, Ordering::SeqCst)
    }

    fn round<S: Service<Room = R>>(
        &self,
        work: &mut Work<R>,
        context: &LaneContext<'_, S>,
        who: Thread,
    ) -> Round {
        self.process(work, context, who).unwrap_or_else(|fault| {
            // The lock is held, so that a reset happens before all of this or after all of it.
            work.active = None;
            work.used.clear();
            context.service.stopped(context.index);
            context.fault.set(fault.into());
            context.notifier.set_needs_reset();
            Round::Done
        })
    }

    /// Serves what is available until the queue is empty or enough for one round.
    fn process<S: Service<Room = R>>(
        &self,
        work: &mut Work<R>,
        context: &LaneContext<'_, S>,
        who: Thread,
    ) -> Result<Round, QueueFault> {
        // A fault of one queue stops the device, and that is all of its queues.
        if context.notifier.needs_reset() {
            return Ok(Round::Done);
        }
        let Work {
            active: Some(active),
            room,
            used,
            habit,
        } = work
        else {
            return Ok(Round::Done);
        };
        let (mut bytes, mut steps) = (0, 0);
        while steps < ROUND_WORK {
            active
                .queue
                .disable_notification(context.memory)
                .map_err(QueueError::from)?;
            let rests = loop {
                let table = active.table(context.memory)?;
                let told = (context.notifier, &self.counts);
                let mut turn = Turn {
                    index: context.index,
                    features: active.features,
                    ..Turn::new(&mut active.queue, table, context.memory, used, told)
                };
                let served = context.service.serve(&mut turn, room);
                // The chains before a fault were sound and have been answered: they are published.
                turn.publish()?;
                served?;
                let taken = turn.taken;
                if taken == 0 {
                    break turn.rests;
                }
                bytes += turn.bytes();
                steps += turn.steps();
                habit.note(taken, turn.bytes(), turn.written);
                self.wants_help.store(habit.wants_help(), Ordering::SeqCst);
                if who == Thread::OfHelper && turn.notified && habit.wants_help() {
                    // The driver wants to go on, and its helper comes again.
                    return Ok(Round::Done);
                }
                if bytes >= ROUND_BYTES || steps >= ROUND_WORK {
                    return Ok(Round::More);
                }
            };
            if habit.wants_help() && self.has_helper.load(Ordering::SeqCst) {
                return Ok(Round::Done);
            }
            // Looks once more: the driver does not kick for what it made available before it could
            // see that a kick is wanted.
            let more = active.queue.enable_notification(context.memory);
            if !more.map_err(QueueError::from)? || rests {
                return Ok(Round::Done);
            }
            // This counts, since a driver that moves its index to and fro could keep this loop busy
            // for ever.
            steps += 1;
        }
        Ok(Round::More)
    }

    /// Does `act` while nobody else can work on the queue.
    #[cfg(test)]
    pub(super) fn while_locked(&self, act: impl FnOnce()) {
        let _work = lock(&self.work);
        act();
    }
}
