//! The transmit queue of a console: buffers of the driver's into a queue of bytes, which may have
//! room for a part of one only.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use vm_memory::{Address, Bytes, GuestMemoryMmap};

use super::BufferError;
use crate::devices::ByteQueue;
use crate::virtio::{Chain, QueueFault, Turn};

/// How much is copied at once, in bytes.
const PIECE: usize = 4096;
/// No chain is begun after so many bytes in a turn: whoever stops the device waits for it.
const TURN: u64 = 1 << 20;

/// Where transmitted bytes go, and how far that has come.
pub(super) struct Output {
    bytes: Arc<ByteQueue>,
    /// How much of the next chain has been taken already, in bytes.
    taken: AtomicU64,
    /// Whether a chain is left in the queue because there was no room.
    waits: AtomicBool,
}

impl Output {
    pub(super) fn new(bytes: Arc<ByteQueue>) -> Self {
        Self {
            bytes,
            taken: AtomicU64::new(0),
            waits: AtomicBool::new(false),
        }
    }

    /// Whether a buffer is used once there is room. It is true until a turn has found nothing more
    /// to do, and by then the used ring shows what was done.
    pub(super) fn waits_for_room(&self) -> bool {
        self.waits.load(Ordering::SeqCst)
    }

    pub(super) fn forget(&self) {
        self.taken.store(0, Ordering::SeqCst);
        self.waits.store(false, Ordering::SeqCst);
    }

    pub(super) fn serve(&self, turn: &mut Turn<'_>) -> Result<(), QueueFault> {
        let memory = turn.memory();
        let (mut served, mut bytes) = (false, 0);
        while bytes < TURN {
            let Some(mut chain) = turn.next_chain()? else {
                break;
            };
            let (head, mut moved) = (chain.head(), 0);
            let is_done = self.take(&mut chain, memory, &mut moved);
            turn.count_bytes(moved);
            if !is_done.map_err(QueueFault::chain(head))? {
                turn.put_back();
                turn.leave_rest();
                self.waits.store(true, Ordering::SeqCst);
                return Ok(());
            }
            bytes += moved;
            turn.complete(head, 0);
            served = true;
        }
        if !served {
            self.waits.store(false, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Takes as much of `chain` as there is room for, and adds what it took to `moved`, in bytes.
    /// Returns whether that was the rest of the chain.
    fn take(
        &self,
        chain: &mut Chain<'_, '_>,
        memory: &GuestMemoryMmap,
        moved: &mut u64,
    ) -> Result<bool, BufferError> {
        let mut piece = [0; PIECE];
        let mut skip = self.taken.load(Ordering::SeqCst);
        while let Some(descriptor) = chain.next_descriptor()? {
            if descriptor.is_write_only() {
                return Err(BufferError::Direction("transmit"));
            }
            let mut at = u64::from(descriptor.len()).min(skip);
            skip -= at;
            while at < descriptor.len().into() {
                let left = u64::from(descriptor.len()) - at;
                let len = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
                // A sum that wraps is no address of guest memory either.
                let address = descriptor.addr().unchecked_add(at);
                memory.read_slice(&mut piece[..len], address)?;
                let taken = self.bytes.offer(&piece[..len]);
                at += taken as u64;
                *moved += taken as u64;
                self.taken.fetch_add(taken as u64, Ordering::SeqCst);
                if taken < len {
                    return Ok(false);
                }
            }
        }
        self.taken.store(0, Ordering::SeqCst);
        Ok(true)
    }
}
