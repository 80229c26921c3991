//! The device: it fills buffers with random bytes (virtio 1.2, section 5.4). Everything that devices
//! have in common is done by the worker around it.

use std::fs::File;

use vm_memory::GuestMemoryBackend;
use vm_memory::io::ReadVolatile;
use vmm::virtio::{QueueFault, Service, Turn};

/// What a request gets at the most, in bytes. A device may use less than the whole buffer (section
/// 5.4.6.2). However large the buffers are, a turn takes no longer than some hundred times this.
const MOST: u32 = 4096;

pub(crate) struct Entropy {
    pub(crate) source: File,
}

impl Service for Entropy {
    type Room = ();

    fn device_type(&self) -> u32 {
        4
    }

    fn queue_sizes(&self) -> &[u16] {
        &[8]
    }

    fn serve(&self, turn: &mut Turn<'_>, (): &mut ()) -> Result<(), QueueFault> {
        let memory = turn.memory();
        while let Some(mut chain) = turn.next_chain()? {
            let head = chain.head();
            let mut filled = 0;
            while filled < MOST
                && let Some(part) = chain.next_descriptor().map_err(QueueFault::chain(head))?
            {
                if !part.is_write_only() {
                    // The driver must not put it there (section 5.4.6.1), nor the device write it.
                    continue;
                }
                let size = part.len().min(MOST - filled);
                let buffer = memory.get_slice(part.addr(), size as usize);
                let mut buffer = buffer.map_err(QueueFault::chain(head))?;
                if (&self.source).read_exact_volatile(&mut buffer).is_err() {
                    // What the driver is told to be written has no gap.
                    break;
                }
                filled += size;
            }
            // The device must give one byte at least (section 5.4.6.2). There are none only if there is
            // no room for any, or the source has failed. A request of this device has no status that
            // could say so, and to return a `QueueFault` would end the device for one bad request.
            turn.count_bytes(filled.into());
            turn.complete(head, filled);
        }
        Ok(())
    }
}
