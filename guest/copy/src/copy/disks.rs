//! The two disks together: it kicks them, and waits until one of them has done something.

use crate::config::Side;
use guest_kit::hardware::{Ports, Registers};
use guest_kit::progress::Observer;
use guest_kit::virtio::block::{BlockDevice, BlockError};
use guest_kit::virtio::requests::{Completion, Request};
use guest_kit::waiting::{Devices, Waiter, Wake};

/// Numbers of the two disks for whoever waits for both.
const INPUT: usize = 0;
const OUTPUT: usize = 1;

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
    /// The disk that is read.
    pub input: BlockDevice<R>,
    /// The disk that is written.
    pub output: BlockDevice<R>,
    waiter: Waiter,
}

impl<'a, P: Ports, R: Registers> Disks<'a, P, R> {
    /// Two disks that have been initialised.
    pub fn new(ports: &'a P, input: BlockDevice<R>, output: BlockDevice<R>) -> Self {
        Self {
            ports,
            input,
            output,
            waiter: Waiter::default(),
        }
    }

    /// The disk on this side.
    pub const fn get(&mut self, disk: Side) -> &mut BlockDevice<R> {
        match disk {
            Side::Input => &mut self.input,
            Side::Output => &mut self.output,
        }
    }

    /// Kicks both disks, so that they begin with what was submitted.
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

    /// Waits until a request has come back. It may return although none has. Only to be called
    /// while something is under way.
    ///
    /// # Errors
    ///
    /// [`DiskFault`] if a disk has failed by itself.
    pub fn wait(&mut self, observer: &mut impl Observer) -> Result<(), DiskFault> {
        let mut both = Both {
            input: &mut self.input,
            output: &mut self.output,
        };
        let wake = Wake::Output(OUTPUT);
        let wait = self
            .waiter
            .wait(self.ports, &mut both, wake, || observer.idle());
        wait.map_err(|fault| DiskFault {
            disk: match fault.number {
                INPUT => Side::Input,
                _ => Side::Output,
            },
            error: fault.error,
        })
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
}

/// Both disks, as [`Waiter`] takes them.
struct Both<'d, R> {
    input: &'d mut BlockDevice<R>,
    output: &'d mut BlockDevice<R>,
}

impl<R> Devices<R> for Both<'_, R> {
    fn each(&mut self, mut act: impl FnMut(usize, &mut BlockDevice<R>)) {
        act(INPUT, self.input);
        act(OUTPUT, self.output);
    }
}
