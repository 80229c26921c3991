//! The receive queue of a console: bytes for the driver into buffers that it has offered. They may
//! lie there for ever.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use vm_memory::{Bytes, GuestMemoryMmap};

use super::BufferError;
use crate::lock::lock;
use crate::virtio::{Chain, QueueFault, Turn};

/// What the driver has still to receive.
#[derive(Default)]
pub(super) struct Input {
    bytes: Mutex<VecDeque<u8>>,
    more: AtomicBool,
}

impl Input {
    pub(super) fn push(&self, bytes: &[u8]) {
        lock(&self.bytes).extend(bytes);
    }

    /// Says whether more bytes may come.
    pub(super) fn expect(&self, more: bool) {
        self.more.store(more, Ordering::SeqCst);
    }

    pub(super) fn is_expected(&self) -> bool {
        self.more.load(Ordering::SeqCst)
    }

    /// Fills buffers for as long as there is something to fill them with.
    pub(super) fn serve(&self, turn: &mut Turn<'_>) -> Result<(), QueueFault> {
        let memory = turn.memory();
        let mut bytes = lock(&self.bytes);
        while !bytes.is_empty() {
            let Some(mut chain) = turn.next_chain()? else {
                return Ok(());
            };
            let head = chain.head();
            let filled = fill(&mut chain, memory, &mut bytes);
            turn.complete(head, filled.map_err(QueueFault::chain(head))?);
        }
        turn.leave_rest();
        Ok(())
    }
}

/// Moves as many of `bytes` as fit to the chain's buffers; returns how many.
fn fill(
    chain: &mut Chain<'_, '_>,
    memory: &GuestMemoryMmap,
    bytes: &mut VecDeque<u8>,
) -> Result<u32, BufferError> {
    let mut filled = 0;
    while let Some(descriptor) = chain.next_descriptor()? {
        if !descriptor.is_write_only() {
            return Err(BufferError::Direction("receive"));
        }
        let len = usize::try_from(descriptor.len()).map_or(bytes.len(), |len| len.min(bytes.len()));
        let (part, _) = bytes.make_contiguous().split_at(len);
        memory.write_slice(part, descriptor.addr())?;
        bytes.drain(..len);
        // A chain may name the same memory many times. Its length then says nothing of how much
        // memory there is.
        filled = u32::saturating_add(filled, u32::try_from(len).unwrap_or(u32::MAX));
    }
    Ok(filled)
}
