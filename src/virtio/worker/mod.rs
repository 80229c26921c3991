//! What all virtio devices do with their queues in the same way (virtio 1.2, sections 2.7.7, 2.7.8
//! and 2.7.10): take a kick, look at the queue for a bounded time, publish what was used, notify
//! the driver, and stop at a fault. A device is a [`Service`], which only serves chains; a
//! [`QueueWorker`] makes a [`VirtioDevice`](super::VirtioDevice) and an event subscriber of it.

mod device;
mod fault;
mod habit;
mod lane;
mod turn;

use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use thiserror::Error;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use fault::FirstFault;
pub use lane::QueueCounters;
pub use turn::Turn;

use super::{ActivateError, ChainError, NotificationLine, Notifier, QueueError};
#[cfg(test)]
pub(crate) use lane::Counts;
use lane::Lane;

/// A device, apart from everything that devices have in common.
///
/// ```
/// use vm_memory::Bytes;
/// use vmm::virtio::{QueueFault, Service, Turn};
///
/// /// An entropy device (virtio 1.2, section 5.4) of a kind that nobody should use.
/// struct Zeros;
///
/// impl Service for Zeros {
///     type Room = ();
///
///     fn device_type(&self) -> u32 {
///         4
///     }
///
///     fn queue_sizes(&self) -> &[u16] {
///         &[8]
///     }
///
///     fn serve(&self, turn: &mut Turn<'_>, (): &mut ()) -> Result<(), QueueFault> {
///         while let Some(mut chain) = turn.next_chain()? {
///             let head = chain.head();
///             let first = chain.next_descriptor().map_err(QueueFault::chain(head))?;
///             // One byte is enough for a request, but it must be one that the device may write.
///             let may_fill = first.filter(|part| part.is_write_only() && part.len() > 0);
///             if let Some(part) = may_fill {
///                 let filled = turn.memory().write_obj(0_u8, part.addr());
///                 filled.map_err(QueueFault::chain(head))?;
///             }
///             turn.count_bytes(may_fill.map_or(0, |_| 1));
///             turn.complete(head, may_fill.map_or(0, |_| 1));
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait Service: Send + Sync {
    /// What one queue keeps between turns, such as lists whose room is used again. Never needed by
    /// two threads at once.
    type Room: Default + Send;

    /// The device type (virtio 1.2, section 5).
    fn device_type(&self) -> u32;

    /// The feature bits of the device type. The worker adds those of the transport and the queues.
    /// [`Turn::features`] says which of all these the driver has chosen.
    fn features(&self) -> u64 {
        0
    }

    /// The largest size of each queue, a power of two; as many entries as there are queues.
    fn queue_sizes(&self) -> &[u16];

    /// Copies the configuration space from `offset` up to `data`, which holds zeros.
    fn read_config(&self, _offset: usize, _data: &mut [u8]) {}

    /// Changes the configuration space; what the driver may not change is ignored. The vCPU's thread
    /// calls this, as it does [`read_config`](Self::read_config), while the guest waits for it: for
    /// system calls of its own there is [`Runner::vcpu_calls`](crate::runtime::Runner::vcpu_calls).
    fn write_config(&self, _offset: usize, _data: &[u8]) {}

    /// Serves chains of one queue for a bounded time. Called again as long as it took any.
    ///
    /// # Errors
    ///
    /// What stops the device until its driver resets it: a chain that cannot be answered.
    fn serve(&self, turn: &mut Turn<'_>, room: &mut Self::Room) -> Result<(), QueueFault>;

    /// Whether something outside the machine may still use a buffer that lies in `queue`, as input
    /// that has not ended may. A guest that waits is not told then that nothing is under way.
    fn expects(&self, _queue: usize) -> bool {
        false
    }

    /// Called when `queue` has been stopped, by its driver or because of a fault: nothing lies in
    /// it any more, and what was kept of its chains is to be forgotten. By the driver it is stopped on
    /// the vCPU's thread, with the calls of [`write_config`](Self::write_config), and because of a
    /// fault on whatever thread served it.
    fn stopped(&self, _queue: usize) {}
}

/// Why a queue was stopped: nothing that could be answered.
#[derive(Debug, Error)]
pub enum QueueFault {
    /// The rings.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The descriptor table.
    #[error("cannot use the descriptor table: {0}")]
    Table(ChainError),
    /// One chain.
    #[error("cannot answer the request at descriptor {head}: {fault}")]
    Chain {
        /// Index of its first descriptor.
        head: u16,
        /// What is wrong with it.
        fault: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl QueueFault {
    /// For use with `map_err` on what went wrong with the chain that starts at `head`.
    pub fn chain<E>(head: u16) -> impl FnOnce(E) -> Self
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        move |fault| Self::Chain {
            head,
            fault: Box::new(fault),
        }
    }
}

/// Why a device does not work any more, or never did. As text it is the reason alone.
#[derive(Debug, Error)]
pub enum DeviceFault {
    /// Its driver set DRIVER_OK without having set up what the device needs.
    #[error("{0}")]
    NotStarted(#[from] ActivateError),
    /// A queue was broken while it ran.
    #[error("{0}")]
    Queue(#[from] QueueFault),
}

impl DeviceFault {
    /// Whether this one must have been mended where `later` comes after it.
    fn is_mended_by(&self, later: &Self) -> bool {
        match (self, later) {
            (Self::NotStarted(first), Self::NotStarted(later)) => {
                matches!(first, ActivateError::Features { .. }) && later.is_of_accepted_features()
            }
            _ => false,
        }
    }

    /// The fault as a sentence without its end, of the device that is called `what`: "the console".
    pub(crate) fn of(&self, what: &str) -> String {
        match self {
            Self::NotStarted(why) => format!("{what} did not start: {why}"),
            Self::Queue(why) => format!("the guest's driver broke a queue of {what}: {why}"),
        }
    }
}

/// A virtio device over a [`Service`].
///
/// Add it, in an [`Arc`], to an [`EventManager`](event_manager::EventManager) on a thread of its
/// own, and to a machine, which puts it on the MMIO bus.
pub struct QueueWorker<S: Service> {
    service: S,
    memory: GuestMemoryMmap,
    notifier: Notifier,
    kicks: Vec<EventFd>,
    lanes: Vec<Lane<S::Room>>,
    fault: FirstFault,
    /// Whether an event loop has it.
    subscribed: AtomicBool,
    /// Why a kick is not watched.
    unwatched: OnceLock<event_manager::Error>,
}

impl<S: Service> QueueWorker<S> {
    /// A device that reads and writes `memory` and nothing else of the guest: the regions in it
    /// are those that the guest may hand to devices. It notifies through `line`.
    ///
    /// # Errors
    ///
    /// The host has no eventfd for a queue.
    pub fn serving(
        service: S,
        memory: GuestMemoryMmap,
        line: Arc<NotificationLine>,
    ) -> io::Result<Self> {
        let queues = service.queue_sizes().len();
        let kicks = (0..queues).map(|_| EventFd::new(EFD_NONBLOCK));
        Ok(Self {
            memory,
            notifier: Notifier::new(line),
            kicks: kicks.collect::<Result<_, _>>()?,
            lanes: (0..queues).map(|_| Lane::default()).collect(),
            fault: FirstFault::default(),
            subscribed: AtomicBool::new(false),
            unwatched: OnceLock::new(),
            service,
        })
    }

    /// The device itself.
    #[must_use]
    pub fn service(&self) -> &S {
        &self.service
    }

    /// What queue `index` has counted; zeros if there is no such queue.
    #[must_use]
    pub fn queue_counters(&self, index: usize) -> QueueCounters {
        self.lanes
            .get(index)
            .map_or_else(QueueCounters::default, Lane::counters)
    }

    /// Why the event loop that this was added to does not watch the kicks of all queues, if that is
    /// so: a limit, or a lack of memory.
    #[must_use]
    pub fn unwatched_kick(&self) -> Option<&event_manager::Error> {
        self.unwatched.get()
    }

    /// Makes the device's thread look at queue `index` again: something has come for a buffer
    /// that rests there.
    pub fn look_again(&self, index: usize) {
        if let Some(kick) = self.kicks.get(index) {
            // The only failure is a counter that is full, and then the queue is looked at anyway.
            let _ = kick.write(1);
        }
    }
}

#[cfg(test)]
mod tests;
