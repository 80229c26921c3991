//! The virtio block device (virtio 1.2, section 5.2): its initialisation and configuration, and
//! its request queue with the notifications both ways.

use thiserror::Error;

use super::mmio::{F_EVENT_IDX, Transport, TransportError};
use super::requests::{Completion, Request, RequestError, RequestQueue, SLOT_DESCRIPTORS};
use super::ring::MAX_SIZE;
use crate::dma::DmaRegion;
use crate::hardware::Registers;

/// Unit of capacities and sector numbers on the wire, whatever the disk's sector size is.
pub const WIRE_SECTOR: u32 = 512;
/// Device type (section 5).
pub const DEVICE_ID: u32 = 2;

/// Feature: the largest data segment is given.
pub const F_SIZE_MAX: u64 = 1 << 1;
/// Feature: the largest number of data segments is given; this driver uses one.
pub const F_SEG_MAX: u64 = 1 << 2;
/// Feature: the disk cannot be written.
pub const F_RO: u64 = 1 << 5;
/// Feature: the sector size is given.
pub const F_BLK_SIZE: u64 = 1 << 6;
/// Feature: the device has a cache that can be flushed.
pub const F_FLUSH: u64 = 1 << 9;

/// Feature: parts of the disk can be made zero without data.
pub const F_WRITE_ZEROES: u64 = 1 << 14;

/// Offsets in the configuration (section 5.2.4).
const CONFIG_CAPACITY: u16 = 0;
const CONFIG_SIZE_MAX: u16 = 8;
const CONFIG_BLK_SIZE: u16 = 20;
const CONFIG_MAX_WRITE_ZEROES_SECTORS: u16 = 48;
const CONFIG_MAX_WRITE_ZEROES_SEG: u16 = 52;
/// The only queue: requests (section 5.2.2).
const QUEUE: u16 = 0;
/// Size of a queue unless more slots are wanted or fewer are possible.
const USUAL_QUEUE_SIZE: u16 = 256;

/// What a disk is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Reading alone.
    Read,
    /// Writing, and flushing and declaring zeros if the device can. It can be read, too.
    Write,
}

/// A stage of the initialisation that has been passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// There is a block device.
    Probe,
    /// These feature bits were negotiated.
    Features(u64),
    /// The queue is set up, with this many descriptors.
    Queue(u16),
}

/// Why a disk cannot be used, or cannot any more.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BlockError {
    /// The transport or the initialisation.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The queue.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The queue has no room for a request.
    #[error("the device's queue takes at most {0} descriptors, and a request needs 3")]
    QueueSize(u16),
    /// A disk to write that cannot be written.
    #[error("the disk is read-only")]
    ReadOnly,
    /// The device met an error by itself.
    #[error("the device has failed and needs a reset")]
    NeedsReset,
}

/// What the device says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockConfig {
    /// Its capacity in units of [`WIRE_SECTOR`].
    pub capacity: u64,
    /// Its sector size in bytes.
    pub sector_size: u32,
    /// Most data bytes that a request may have.
    pub size_max: u32,
    /// Whether it can be flushed.
    pub flush: bool,
    /// What it takes of [`Kind::WriteZeroes`](super::requests::Kind::WriteZeroes), if it does.
    pub zeroes: Option<ZeroLimits>,
}

/// What a request to make parts of the disk zero may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZeroLimits {
    /// Most sectors of 512 bytes of a part.
    pub sectors: u32,
    /// Most parts.
    pub segments: u32,
}

/// A block device that has been initialised.
#[derive(Debug)]
pub struct BlockDevice<R> {
    transport: Transport<R>,
    queue: RequestQueue,
    config: BlockConfig,
}

impl<R: Registers> BlockDevice<R> {
    /// Initialises the device behind `registers` with a queue in `memory` (aligned to 16 bytes)
    /// that has room for `slots` requests, or for as many as the device and the memory allow.
    ///
    /// # Errors
    ///
    /// [`BlockError`]. If it is such a device it has been told that its driver has given up.
    pub fn init(
        registers: R,
        memory: DmaRegion,
        purpose: Purpose,
        slots: u16,
        mut on_stage: impl FnMut(Stage),
    ) -> Result<Self, BlockError> {
        let mut transport = Transport::probe(registers, DEVICE_ID)?;
        on_stage(Stage::Probe);
        match set_up(&mut transport, memory, purpose, slots, on_stage) {
            Ok((queue, config)) => {
                transport.start();
                Ok(Self {
                    transport,
                    queue,
                    config,
                })
            }
            Err(error) => {
                transport.fail();
                Err(error)
            }
        }
    }

    /// What the device says of itself.
    #[must_use]
    pub const fn config(&self) -> &BlockConfig {
        &self.config
    }

    /// How many requests can be under way at once.
    #[must_use]
    pub fn slots(&self) -> u16 {
        self.queue.slots()
    }

    /// How many requests are under way.
    #[must_use]
    pub const fn in_flight(&self) -> u16 {
        self.queue.ring().in_flight()
    }

    /// Puts `request` into a free slot; [`BlockDevice::kick`] starts all that were submitted.
    pub fn submit(&mut self, slot: u16, request: Request) {
        self.queue.submit(slot, request);
    }

    /// Shows the device what was submitted, and notifies it if it wants that.
    pub fn kick(&mut self) {
        if self.queue.ring_mut().publish() {
            self.transport.notify(QUEUE);
        }
    }

    /// Takes the next request that has come back.
    ///
    /// # Errors
    ///
    /// [`BlockError::Request`] if the device did what no conforming one does.
    pub fn complete(&mut self) -> Result<Option<Completion>, BlockError> {
        Ok(self.queue.complete()?)
    }

    /// Whether a request has come back.
    #[must_use]
    pub fn has_completions(&self) -> bool {
        self.queue.ring().has_used()
    }

    /// Asks for a notification when `count` more requests have come back, one at least.
    pub fn arm(&mut self, count: u16) {
        self.queue.ring_mut().arm(count);
    }

    /// Asks for no notifications.
    pub fn disarm(&mut self) {
        self.queue.ring_mut().disarm();
    }

    /// Looks whether the device has failed by itself.
    ///
    /// # Errors
    ///
    /// [`BlockError::NeedsReset`] if it has.
    pub fn check(&self) -> Result<(), BlockError> {
        match self.transport.needs_reset() {
            true => Err(BlockError::NeedsReset),
            false => Ok(()),
        }
    }
}

/// Steps 1 to 7 of section 3.1.1.
fn set_up<R: Registers>(
    transport: &mut Transport<R>,
    memory: DmaRegion,
    purpose: Purpose,
    slots: u16,
    mut on_stage: impl FnMut(Stage),
) -> Result<(RequestQueue, BlockConfig), BlockError> {
    transport.reset()?;
    let features = transport.negotiate(wanted_features(purpose))?;
    on_stage(Stage::Features(features));
    if purpose == Purpose::Write && features & F_RO != 0 {
        return Err(BlockError::ReadOnly);
    }
    let size = queue_size(transport.queue_size_max(QUEUE)?, slots)?;
    let queue = RequestQueue::new(memory, size, features & F_EVENT_IDX != 0)?;
    transport.enable_queue(size, queue.ring().addresses());
    on_stage(Stage::Queue(size));
    Ok((queue, read_config(transport, features)?))
}

const fn wanted_features(purpose: Purpose) -> u64 {
    let always = F_EVENT_IDX | F_SIZE_MAX | F_SEG_MAX | F_RO | F_BLK_SIZE;
    match purpose {
        Purpose::Read => always,
        Purpose::Write => always | F_FLUSH | F_WRITE_ZEROES,
    }
}

/// The size to use: a power of two with room for `slots`, or the largest that the device allows.
fn queue_size(max: u16, slots: u16) -> Result<u16, BlockError> {
    let wanted = slots
        .saturating_mul(SLOT_DESCRIPTORS)
        .checked_next_power_of_two()
        .unwrap_or(MAX_SIZE)
        .clamp(USUAL_QUEUE_SIZE, MAX_SIZE);
    let size = max.min(wanted);
    match size >= SLOT_DESCRIPTORS {
        true => Ok(size),
        false => Err(BlockError::QueueSize(max)),
    }
}

fn read_config<R: Registers>(
    transport: &Transport<R>,
    features: u64,
) -> Result<BlockConfig, TransportError> {
    // A field is only there if its feature is.
    let has = |feature| features & feature != 0;
    transport.read_config(|read| BlockConfig {
        capacity: u64::from(read(CONFIG_CAPACITY)) | u64::from(read(CONFIG_CAPACITY + 4)) << 32,
        sector_size: match has(F_BLK_SIZE) {
            true => read(CONFIG_BLK_SIZE),
            false => WIRE_SECTOR,
        },
        size_max: match has(F_SIZE_MAX) {
            true => read(CONFIG_SIZE_MAX),
            false => u32::MAX,
        },
        flush: has(F_FLUSH),
        zeroes: has(F_WRITE_ZEROES).then(|| ZeroLimits {
            sectors: read(CONFIG_MAX_WRITE_ZEROES_SECTORS),
            segments: read(CONFIG_MAX_WRITE_ZEROES_SEG),
        }),
    })
}

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;
