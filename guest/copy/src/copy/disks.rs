//! Both disks together: kicking them, and waiting until one of them has done something.
//!
//! Waiting never spins for long: on a machine whose processors have other work, a spinning
//! processor takes the time that the disks need.

use core::hint::spin_loop;

use guest_abi::ports::IDLE;

use super::Observer;
use crate::config::Side;
use guest_kit::hardware::{Ports, Registers};
use guest_kit::virtio::block::{BlockDevice, BlockError};
use guest_kit::virtio::requests::{Completion, Request};

/// How often the rings are looked at, at most, before the processor blocks: a microsecond or two.
const SPINS: u32 = 32;
/// The guest is woken when one part in so many of all that is under way is left to write. One half:
/// while the output writes it, the other half is read, and each waking up costs an exit.
const RESERVE: u16 = 2;
/// So many requests are enough for that in any case: even the smallest takes half a microsecond.
const MAX_RESERVE: u16 = 64;

/// What a disk did that it cannot recover from.
#[derive(Debug, PartialEq, Eq)]
pub struct DiskFault {
    /// The disk.
    pub disk: Side,
    /// What it did.
    pub error: BlockError,
}

/// The input disk, the output disk, and the port to wait at for both.
#[derive(Debug)]
pub struct Disks<'a, P, R> {
    /// The ports.
    pub ports: &'a P,
    /// What is read.
    pub input: BlockDevice<R>,
    /// What is written.
    pub output: BlockDevice<R>,
    spins: u32,
}

impl<'a, P: Ports, R: Registers> Disks<'a, P, R> {
    /// Two disks that have been initialised.
    pub const fn new(ports: &'a P, input: BlockDevice<R>, output: BlockDevice<R>) -> Self {
        Self {
            ports,
            input,
            output,
            spins: SPINS,
        }
    }

    /// One of the two.
    pub const fn get(&mut self, disk: Side) -> &mut BlockDevice<R> {
        match disk {
            Side::Input => &mut self.input,
            Side::Output => &mut self.output,
        }
    }

    /// Starts whatever was submitted.
    pub fn kick(&mut self) {
        self.input.kick();
        self.output.kick();
    }

    /// Whether nothing is under way.
    #[must_use]
    pub const fn is_quiet(&self) -> bool {
        self.input.in_flight() == 0 && self.output.in_flight() == 0
    }

    /// The next request that came back from `disk`.
    ///
    /// # Errors
    ///
    /// [`DiskFault`] if the disk did what no conforming one does.
    pub fn complete(&mut self, disk: Side) -> Result<Option<Completion>, DiskFault> {
        let completion = self.get(disk).complete();
        completion.map_err(|error| DiskFault { disk, error })
    }

    /// Waits until a request has come back. It may return although none has. Only to be called while
    /// something is under way.
    ///
    /// Whether a disk has failed is asked only after a wake-up that brought nothing, since each
    /// such question leaves the virtual machine.
    ///
    /// # Errors
    ///
    /// [`DiskFault`] if a disk has failed by itself.
    pub fn wait(&mut self, observer: &mut impl Observer) -> Result<(), DiskFault> {
        if self.spin() {
            return Ok(());
        }
        observer.idle();
        self.arm();
        // What came back before the wish for a notification was seen would never cause one.
        let slept = !self.has_completions();
        if slept {
            self.ports.read(IDLE);
        }
        self.input.disarm();
        self.output.disarm();
        if slept && !self.has_completions() {
            return self.check();
        }
        Ok(())
    }

    /// Does one request while nothing else is under way, and returns its status.
    ///
    /// # Errors
    ///
    /// [`DiskFault`] if a disk fails meanwhile.
    pub fn run(
        &mut self,
        disk: Side,
        request: Request,
        observer: &mut impl Observer,
    ) -> Result<u8, DiskFault> {
        self.get(disk).submit(0, request);
        self.get(disk).kick();
        loop {
            if let Some(completion) = self.complete(disk)? {
                return Ok(completion.status);
            }
            self.wait(observer)?;
        }
    }

    /// Asks for the notifications that are worth waking up for.
    ///
    /// The output is the slower of the two, and must never run dry: while it has enough to do, it
    /// alone wakes the guest, when a reserve is left that lasts until there is more; what was
    /// read meanwhile is taken along. With less than that left to write, every read that comes back
    /// wakes the guest too, since it gives the output something to do.
    fn arm(&mut self) {
        let (reading, writing) = (self.input.in_flight(), self.output.in_flight());
        let reserve = ((reading + writing) / RESERVE).min(MAX_RESERVE);
        if writing > reserve {
            self.output.arm(writing - reserve);
        } else {
            self.input.arm(reading.min(reserve));
            self.output.arm(writing);
        }
    }

    fn has_completions(&self) -> bool {
        self.input.has_completions() || self.output.has_completions()
    }

    /// Looks at the rings again and again for a short time; whether something has come back. If
    /// nothing has, it looks half as often the next time: it is always in vain where the disks work
    /// only while the processor waits.
    fn spin(&mut self) -> bool {
        let found = (0..self.spins).any(|_| {
            spin_loop();
            self.has_completions()
        });
        self.spins = if found {
            SPINS
        } else {
            (self.spins / 2).max(1)
        };
        found
    }

    /// A wake-up that brings nothing may be a disk's way to say that it has failed.
    fn check(&self) -> Result<(), DiskFault> {
        for (disk, device) in [(Side::Input, &self.input), (Side::Output, &self.output)] {
            device.check().map_err(|error| DiskFault { disk, error })?;
        }
        Ok(())
    }
}
