//! The virtio console device (virtio 1.2, section 5.3) with one port, as a way out: bytes travel to
//! the host in batches through its transmit queue.
//!
//! A batch is copied to a buffer of the queue's memory, made available, and the device is notified
//! if it wants that. The receive queue is set up, since the device has one, and never given a
//! buffer: a guest takes no input by this way.

use guest_abi::ports::IDLE;
use thiserror::Error;

use super::mmio::{F_EVENT_IDX, Transport, TransportError};
use super::ring::{Ring, RingError};
use crate::dma::DmaRegion;
use crate::hardware::{Ports, Registers};

/// Device type (section 5).
pub const DEVICE_ID: u32 = 3;
/// The queue of the port 0 by which the guest receives (section 5.3.2).
pub const RECEIVE_QUEUE: u16 = 0;
/// The queue of the port 0 by which the guest transmits.
pub const TRANSMIT_QUEUE: u16 = 1;
/// Bytes of a transmit buffer.
pub const BUFFER_LEN: usize = 8192;
/// How many transmit buffers there are, unless the device's queue is shorter.
pub const BUFFERS: u16 = 7;

/// Descriptors of each queue, at most: a power of two that the buffers fit.
const QUEUE_SIZE: u16 = 8;
/// Where the buffers begin in the memory; before them are the two rings.
const BUFFERS_START: usize = 8192;
/// How often the ring is looked at before the processor blocks: a microsecond or two.
const SPINS: u32 = 32;

/// Why a console cannot be used, or cannot any more.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ConsoleError {
    /// The transport or the initialisation.
    #[error("cannot use the console: {0}")]
    Transport(#[from] TransportError),
    /// A queue is not to be used, or the device did with it what no conforming one does.
    #[error("cannot use the console's queues: {0}")]
    Ring(#[from] RingError),
    /// A buffer came back that is not with the device.
    #[error("the console used buffer {0}, which was not offered")]
    NotOffered(u16),
    /// The device met an error by itself.
    #[error("the console has failed and needs a reset")]
    NeedsReset,
}

/// A console that has been initialised.
#[derive(Debug)]
pub struct Console<R> {
    transport: Transport<R>,
    transmit: Ring,
    buffers: DmaRegion,
    /// Which buffers the device does not have.
    free: heapless::Vec<u16, { BUFFERS as usize }>,
}

impl<R: Registers> Console<R> {
    /// Initialises the device behind `registers` with queues and buffers in `memory`, which is
    /// aligned to 16 bytes and has 64 KiB.
    ///
    /// # Errors
    ///
    /// [`ConsoleError`]. If it is such a device it has been told that its driver has given up.
    pub fn init(registers: R, memory: DmaRegion) -> Result<Self, ConsoleError> {
        let mut transport = Transport::probe(registers, DEVICE_ID)?;
        match set_up(&mut transport, memory) {
            Ok((transmit, buffers)) => {
                transport.start();
                let count = transmit.size().min(BUFFERS);
                Ok(Self {
                    transport,
                    transmit,
                    buffers,
                    free: (0..count).collect(),
                })
            }
            Err(error) => {
                transport.fail();
                Err(error)
            }
        }
    }

    /// Sends `bytes`, waiting for the device only where no buffer is free. They are with the device
    /// when this returns, in the order of the calls, but not yet seen: see [`Console::finish`].
    ///
    /// # Errors
    ///
    /// [`ConsoleError`] if the device fails meanwhile; some of the bytes may have been sent.
    pub fn send(&mut self, ports: &impl Ports, bytes: &[u8]) -> Result<(), ConsoleError> {
        for part in bytes.chunks(BUFFER_LEN) {
            let buffer = loop {
                self.take_back()?;
                match self.free.pop() {
                    Some(buffer) => break buffer,
                    None => self.wait(ports)?,
                }
            };
            self.offer(buffer, part);
        }
        Ok(())
    }

    /// Whether the device has nothing to do: all that was sent has been taken.
    ///
    /// # Errors
    ///
    /// [`ConsoleError`] if the device did what no conforming one does.
    pub fn is_quiet(&mut self) -> Result<bool, ConsoleError> {
        self.take_back()?;
        Ok(self.transmit.in_flight() == 0)
    }

    /// Waits until the device has taken all that was sent.
    ///
    /// # Errors
    ///
    /// [`ConsoleError`] if the device fails meanwhile.
    pub fn finish(&mut self, ports: &impl Ports) -> Result<(), ConsoleError> {
        while !self.is_quiet()? {
            self.wait(ports)?;
        }
        Ok(())
    }

    fn offer(&mut self, buffer: u16, bytes: &[u8]) {
        let start = usize::from(buffer) * BUFFER_LEN;
        self.buffers.write(start, bytes);
        let address = self.buffers.address(start);
        // A part is no longer than a buffer.
        let len = u32::try_from(bytes.len()).unwrap_or(0);
        self.transmit.set_buffer(buffer, address, len);
        self.transmit.set_link(buffer, 0, 0);
        self.transmit.push(buffer);
        if self.transmit.publish() {
            self.transport.notify(TRANSMIT_QUEUE);
        }
    }

    /// Takes back the buffers that the device has used. How many bytes it says that it wrote to
    /// them does not matter: nobody reads them.
    fn take_back(&mut self) -> Result<(), ConsoleError> {
        while let Some(used) = self.transmit.pop()? {
            let buffer = used.head;
            let is_ours = buffer < self.transmit.size().min(BUFFERS);
            if !is_ours || self.free.contains(&buffer) || self.free.push(buffer).is_err() {
                return Err(ConsoleError::NotOffered(buffer));
            }
        }
        Ok(())
    }

    /// Waits until a buffer has come back, or for no reason at all. Only of use while the device
    /// has one.
    ///
    /// The idle port serves all devices. A wake-up that another one has sent for may be taken here:
    /// whoever waits for that device looks at its ring after asking to be woken and before
    /// blocking, as this does.
    fn wait(&mut self, ports: &impl Ports) -> Result<(), ConsoleError> {
        if self.spin() {
            return Ok(());
        }
        self.transmit.arm(1);
        let waits = !self.transmit.has_used();
        // The wake-up by which the device says that it has failed may have been taken elsewhere, so
        // this is asked before blocking and not after it.
        let failed = waits && self.transport.needs_reset();
        if waits && !failed {
            ports.read(IDLE);
        }
        self.transmit.disarm();
        match failed {
            true => Err(ConsoleError::NeedsReset),
            false => Ok(()),
        }
    }

    fn spin(&self) -> bool {
        (0..SPINS).any(|_| {
            core::hint::spin_loop();
            self.transmit.has_used()
        })
    }
}

/// Steps 1 to 7 of section 3.1.1: the transmit queue and the memory of its buffers.
fn set_up<R: Registers>(
    transport: &mut Transport<R>,
    memory: DmaRegion,
) -> Result<(Ring, DmaRegion), ConsoleError> {
    transport.reset()?;
    let features = transport.negotiate(F_EVENT_IDX)?;
    let event_idx = features & F_EVENT_IDX != 0;
    let (rings, buffers) = memory.split_at(BUFFERS_START);
    let (receive, transmit) = rings.split_at(Ring::footprint(QUEUE_SIZE));
    set_up_queue(transport, RECEIVE_QUEUE, receive, event_idx)?;
    let transmit = set_up_queue(transport, TRANSMIT_QUEUE, transmit, event_idx)?;
    Ok((transmit, buffers))
}

fn set_up_queue<R: Registers>(
    transport: &mut Transport<R>,
    queue: u16,
    memory: DmaRegion,
    event_idx: bool,
) -> Result<Ring, ConsoleError> {
    // A queue of none is refused by the ring.
    let size = transport.queue_size_max(queue)?.min(QUEUE_SIZE);
    let ring = Ring::new(memory, size, event_idx)?;
    transport.enable_queue(size, ring.addresses());
    Ok(ring)
}

#[cfg(test)]
#[path = "console_tests.rs"]
mod tests;
