//! The virtio console device (virtio 1.2, section 5.3) with one port and no features: what the
//! driver transmits goes to a bounded queue of bytes, and what it receives comes from whoever has
//! something to say to it.
//!
//! Nothing waits for a reader: a buffer for which there is no room in the queue of bytes stays with
//! the device, so that a driver which sends faster than anyone reads runs out of buffers.

mod receive;
#[cfg(test)]
mod tests;
mod transmit;

use std::io;
use std::sync::Arc;

use thiserror::Error;
use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;
use vm_memory::{GuestMemoryError, GuestMemoryMmap};

use super::{ChainError, NotificationLine, QueueFault, QueueWorker, Service, Turn, VirtioDevice};
use crate::devices::ByteQueue;
use receive::Input;
use transmit::Output;

/// The queue of port 0 by which the driver receives (section 5.3.2).
pub const RECEIVE_QUEUE: usize = 0;
/// The queue of port 0 by which the driver transmits.
pub const TRANSMIT_QUEUE: usize = 1;
/// The largest size of each queue.
const QUEUE_SIZES: [u16; 2] = [64, 64];

/// A buffer that the console cannot use.
#[derive(Debug, Error)]
enum BufferError {
    /// Its chain is broken.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// It is not where devices may read and write.
    #[error("a buffer is not within guest memory: {0}")]
    Memory(#[from] GuestMemoryError),
    /// It is for the other direction (section 5.3.6).
    #[error("a buffer of the {0} queue is for the other direction")]
    Direction(&'static str),
}

/// A console.
pub type Console = QueueWorker<ConsoleService>;

/// What a console does with its buffers.
pub struct ConsoleService {
    input: Input,
    output: Output,
}

impl Console {
    /// Makes a console that transmits into `transmitted`. It reads and writes `memory` and nothing
    /// else of the guest, and notifies through `line`.
    ///
    /// # Errors
    ///
    /// The host has no eventfd to spare.
    pub fn new(
        transmitted: Arc<ByteQueue>,
        memory: GuestMemoryMmap,
        line: Arc<NotificationLine>,
    ) -> io::Result<Self> {
        let service = ConsoleService {
            input: Input::default(),
            output: Output::new(transmitted.clone()),
        };
        let console = Self::serving(service, memory, line)?;
        // Its thread looks at the transmit queue when it is kicked, and when there is room again.
        if let Some(kick) = console.queue_events().get(TRANSMIT_QUEUE) {
            transmitted.tell_of_room(kick.try_clone()?);
        }
        Ok(console)
    }

    /// Queues `bytes` for the driver to receive, however many; buffers that its driver has offered
    /// take them.
    pub fn send_input(&self, bytes: &[u8]) {
        self.service().input.push(bytes);
        self.look_again(RECEIVE_QUEUE);
    }

    /// Says whether input may still come, at first that none will: only while it may, a guest can
    /// wait for it.
    pub fn expect_input(&self, more: bool) {
        self.service().input.expect(more);
        // A guest that waits for it finds out that it is over.
        self.notifier().signal_used();
    }
}

impl Service for ConsoleService {
    type Room = ();

    fn device_type(&self) -> u32 {
        VIRTIO_ID_CONSOLE
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn serve(&self, turn: &mut Turn<'_>, (): &mut ()) -> Result<(), QueueFault> {
        match turn.queue_index() {
            TRANSMIT_QUEUE => self.output.serve(turn),
            _ => self.input.serve(turn),
        }
    }

    fn expects(&self, queue: usize) -> bool {
        match queue {
            TRANSMIT_QUEUE => self.output.waits_for_room(),
            _ => self.input.is_expected(),
        }
    }

    fn stopped(&self, queue: usize) {
        if queue == TRANSMIT_QUEUE {
            self.output.forget();
        }
    }
}
