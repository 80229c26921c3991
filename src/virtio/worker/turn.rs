//! One turn of a device at one of its queues: the chains that are available, and the answers to
//! them, which go to the used ring.

use std::sync::atomic::Ordering;

use virtio_queue::{Queue, QueueOwnedT};
use vm_memory::GuestMemoryMmap;

use super::QueueFault;
use super::lane::Counts;
use crate::virtio::{
    Chain, DescriptorTable, Notifier, QueueError, UsedElement, needs_notification, publish_used,
};

/// Most chains that [`Turn::next_chain`] gives in one turn. A turn has to end now and then, since
/// whoever stops the device waits for it.
const MAX_CHAINS: usize = 256;
/// A turn gives no more chains once those that it has given had so many descriptors: some have as many
/// as the queue, all of them empty.
const MAX_STEPS: usize = 16 << 10;

/// A queue's state for the time of one turn.
pub struct Turn<'a> {
    pub(super) index: usize,
    pub(super) features: u64,
    pub(super) queue: &'a mut Queue,
    pub(super) memory: &'a GuestMemoryMmap,
    pub(super) table: DescriptorTable<'a>,
    pub(super) notifier: &'a Notifier,
    pub(super) counts: &'a Counts,
    pub(super) used: &'a mut Vec<UsedElement>,
    pub(super) taken: usize,
    pub(super) bytes: u64,
    /// Work beside chains, descriptors and bytes.
    pub(super) work: usize,
    /// Bytes that were written to the guest's memory.
    pub(super) written: u64,
    /// Whether the driver was notified.
    pub(super) notified: bool,
    pub(super) rests: bool,
}

impl<'a> Turn<'a> {
    /// A turn at `queue`, which is queue 0 and has no features until the caller says otherwise. Its
    /// chains begin in `table`, and what is complete waits in `used`.
    pub(crate) fn new(
        queue: &'a mut Queue,
        table: DescriptorTable<'a>,
        memory: &'a GuestMemoryMmap,
        used: &'a mut Vec<UsedElement>,
        (notifier, counts): (&'a Notifier, &'a Counts),
    ) -> Self {
        Self {
            index: 0,
            features: 0,
            queue,
            memory,
            table,
            notifier,
            counts,
            used,
            taken: 0,
            bytes: 0,
            work: 0,
            written: 0,
            notified: false,
            rests: false,
        }
    }

    /// How many bytes the turn has moved up to now.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Which of the device's queues it is.
    #[must_use]
    pub fn queue_index(&self) -> usize {
        self.index
    }

    /// The feature bits that the driver has chosen of those that the device offers.
    #[must_use]
    pub fn features(&self) -> u64 {
        self.features
    }

    /// The guest memory that the device may use.
    #[must_use]
    pub fn memory(&self) -> &'a GuestMemoryMmap {
        self.memory
    }

    /// The next chain, or `None` if there is none or the turn has lasted long enough.
    ///
    /// # Errors
    ///
    /// The available ring is not as a driver may leave it.
    pub fn next_chain(&mut self) -> Result<Option<Chain<'a, '_>>, QueueFault> {
        if self.taken >= MAX_CHAINS || self.table.steps() >= MAX_STEPS {
            return Ok(None);
        }
        let mut heads = self.queue.iter(self.memory).map_err(QueueError::from)?;
        let Some(head) = heads.next().map(|chain| chain.head_index()) else {
            return Ok(None);
        };
        self.taken += 1;
        Ok(Some(self.table.chain(head)))
    }

    /// Takes back the last chain that [`next_chain`](Self::next_chain) gave, which will be given
    /// again: for a device that has to look at a chain to see that it cannot serve it yet.
    pub fn put_back(&mut self) {
        if self.taken > 0 {
            self.taken -= 1;
            self.queue.go_to_previous_position();
        }
    }

    /// Hands each available chain to `take` until it returns `false` or they had very many
    /// descriptors: for devices that take many before they carry any of them out.
    ///
    /// # Errors
    ///
    /// The errors of [`next_chain`](Self::next_chain), and the first error of `take`.
    pub fn take(
        &mut self,
        mut take: impl FnMut(Chain<'a, '_>) -> Result<bool, QueueFault>,
    ) -> Result<(), QueueFault> {
        let heads = self.queue.iter(self.memory).map_err(QueueError::from)?;
        for chain in heads {
            self.taken += 1;
            let more = take(self.table.chain(chain.head_index()))?;
            if !more || self.table.steps() >= MAX_STEPS {
                break;
            }
        }
        Ok(())
    }

    /// Says that the chain that starts at `head` is used, with `len` bytes written to its writable
    /// part. The driver sees it when the turn ends, or after [`publish`](Self::publish).
    pub fn complete(&mut self, head: u16, len: u32) {
        self.written += u64::from(len);
        self.used.push(UsedElement::new(head, len));
    }

    /// Counts bytes of data that the turn has moved. They decide whether requests count as large,
    /// and how soon the thread goes back to its event loop.
    pub fn count_bytes(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// Counts work that neither chains nor bytes tell of, such as a call of the host that takes long:
    /// as much as so many chains or descriptors. It decides how soon the thread goes back to its event
    /// loop, and nothing else.
    pub fn count_work(&mut self, work: usize) {
        self.work += work;
    }

    /// All work of the turn but that of moving bytes.
    pub(super) fn steps(&self) -> usize {
        self.taken + self.table.steps() + self.work
    }

    /// Says that the chains that were not taken are left where they are, until
    /// [`QueueWorker::look_again`](super::QueueWorker::look_again).
    pub fn leave_rest(&mut self) {
        self.rests = true;
    }

    /// Puts what is complete into the used ring and notifies the driver if it wants to know. Only
    /// needed in the middle of a long turn, so that the driver has something to do before it ends.
    ///
    /// # Errors
    ///
    /// The rings are not where they were when the queue was checked, or more is complete than the queue
    /// has room for.
    pub fn publish(&mut self) -> Result<(), QueueFault> {
        if self.used.is_empty() {
            return Ok(());
        }
        let count = publish_used(self.queue, self.memory, self.used)?;
        self.used.clear();
        self.notifier.count_used(u64::from(count));
        let add = |counter: &std::sync::atomic::AtomicU64, value| {
            counter.fetch_add(value, Ordering::Relaxed);
        };
        add(&self.counts.used, u64::from(count));
        if needs_notification(self.queue, self.memory, count)? {
            self.notifier.signal_used();
            self.notified = true;
            add(&self.counts.notifications, 1);
        }
        Ok(())
    }
}
