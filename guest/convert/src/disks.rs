//! All disks of a conversion: the input and its backing files, which are read, and the output. Each
//! read disk is used in two ways at once: the pipeline has many requests under way, and a parser
//! waits for a few bytes of a table meanwhile.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use guest_formats::{ReadAt, ReadError};
use guest_kit::disk::in_sectors;
use guest_kit::dma::DmaRegion;
use guest_kit::failure::{Failure, Op};
use guest_kit::hardware::{Ports, Registers};
use guest_kit::virtio::block::{BlockDevice, BlockError};
use guest_kit::virtio::requests::{Completion, Kind, Request, STATUS_OK};
use guest_kit::waiting::{DeviceFault, Devices, Waiter, Wake};

use crate::failure::{answered, failed};
use crate::holes::FileHoles;
use crate::{SECTOR, to_u64, to_usize};

/// The slot that a parser's reads have on each disk; the pipeline has the others.
const OWN_SLOT: u16 = 0;

/// So many requests are shown to the output together, as long as there is other work: each time it
/// may sleep, and waking it takes as long as inflating a good part of one.
const TOGETHER: usize = 4;

/// Name of the output in messages.
pub const OUTPUT: &str = "output";

/// Name of the read disk `index` in messages.
#[must_use]
pub const fn source_name(index: usize) -> &'static str {
    match index {
        0 => "input",
        _ => "backing",
    }
}

/// A disk that is read.
#[derive(Debug)]
pub struct Source<R> {
    device: BlockDevice<R>,
    /// Length of the file behind it.
    length: u64,
    /// Where that file has no data.
    holes: FileHoles,
    /// Slots that the pipeline may use.
    free: Vec<u16>,
    /// What came back for the pipeline while a parser waited.
    early: VecDeque<Completion>,
    /// Where what the pipeline last asked for begins, by the slot.
    sectors: Vec<u64>,
}

impl<R: Registers> Source<R> {
    /// The disk over a file of `length` bytes, which has these `holes`.
    #[must_use]
    pub fn new(device: BlockDevice<R>, length: u64, holes: FileHoles) -> Self {
        let capacity = device.config().capacity.saturating_mul(SECTOR);
        Self {
            // The disk is the file, filled up to a whole sector.
            length: length.min(capacity),
            holes,
            free: (OWN_SLOT + 1..device.slots()).rev().collect(),
            early: VecDeque::new(),
            sectors: vec![0; usize::from(device.slots())],
            device,
        }
    }
}

/// All disks, and the port to wait at for them.
#[derive(Debug)]
pub struct Disks<'a, P, R> {
    ports: &'a P,
    sources: Vec<Source<R>>,
    /// What is written.
    pub output: BlockDevice<R>,
    /// How many of its requests it has not been shown.
    unshown: usize,
    waiter: Waiter,
    /// Where what a parser reads arrives.
    memory: DmaRegion,
    /// Why a parser could not read.
    failure: Option<Failure>,
}

impl<'a, P: Ports, R: Registers> Disks<'a, P, R> {
    /// The disks, with `memory` for what parsers read: two sectors at least.
    pub fn new(
        ports: &'a P,
        sources: Vec<Source<R>>,
        output: BlockDevice<R>,
        memory: DmaRegion,
    ) -> Self {
        Self {
            ports,
            sources,
            output,
            unshown: 0,
            waiter: Waiter::default(),
            memory,
            failure: None,
        }
    }

    /// How many disks are read.
    #[must_use]
    pub const fn sources(&self) -> usize {
        self.sources.len()
    }

    /// Length of the file behind a disk that is read, in bytes.
    #[must_use]
    pub fn length(&self, index: usize) -> u64 {
        self.sources[index].length
    }

    /// Where the file behind a disk that is read has no data.
    #[must_use]
    pub fn holes(&self, index: usize) -> &FileHoles {
        &self.sources[index].holes
    }

    /// A slot for a request of the pipeline on the disk `index`, if one is free.
    pub fn take_slot(&mut self, index: usize) -> Option<u16> {
        self.sources[index].free.pop()
    }

    /// Gives back a slot that was taken and not used.
    pub fn give_slot(&mut self, index: usize, slot: u16) {
        self.sources[index].free.push(slot);
    }

    /// Asks for the `len` bytes at `offset` of the disk `index`, both of whole sectors.
    pub fn submit_read(&mut self, index: usize, slot: u16, offset: u64, address: u64, len: u32) {
        let request = Request {
            kind: Kind::Read,
            sector: offset / SECTOR,
            address,
            len,
        };
        let source = &mut self.sources[index];
        source.sectors[usize::from(slot)] = request.sector;
        source.device.submit(slot, request);
    }

    /// The slot of the pipeline's next read that came back from the disk `index`, free again.
    ///
    /// # Errors
    ///
    /// [`Failure`] if it failed, or the disk did.
    pub fn complete_read(&mut self, index: usize) -> Result<Option<u16>, Failure> {
        let source = &mut self.sources[index];
        let early = source.early.pop_front();
        let completion = match early {
            Some(completion) => Some(completion),
            None => {
                let next = source.device.complete();
                next.map_err(|error| failed(Op::Read, index, &error))?
            }
        };
        let Some(completion) = completion else {
            return Ok(None);
        };
        source.free.push(completion.slot);
        match completion.status {
            STATUS_OK => Ok(Some(completion.slot)),
            status => {
                let sector = source.sectors[usize::from(completion.slot)];
                Err(answered(Op::Read, index, sector, status))
            }
        }
    }

    /// Asks the output for something.
    pub fn submit_write(&mut self, slot: u16, request: Request) {
        self.output.submit(slot, request);
        self.unshown += 1;
    }

    /// Starts what was submitted: all of it, or of the writes only so many that they are worth it.
    pub fn start(&mut self, all: bool) {
        for source in &mut self.sources {
            source.device.kick();
        }
        if all || self.unshown >= TOGETHER {
            self.output.kick();
            self.unshown = 0;
        }
    }

    /// Starts whatever was submitted.
    pub fn kick(&mut self) {
        self.start(true);
    }

    /// Waits until a request has come back, or for no reason at all. Only of use while something is
    /// under way. If `hungry`, each read is waited for, since the processor has nothing to do.
    ///
    /// # Errors
    ///
    /// [`Failure`] if a disk has failed by itself.
    pub fn wait(&mut self, hungry: bool) -> Result<(), Failure> {
        let output = self.sources.len();
        self.wait_for(match hungry {
            true => Wake::OutputAndReads(output),
            false => Wake::Output(output),
        })
    }

    fn wait_for(&mut self, wake: Wake) -> Result<(), Failure> {
        let mut all = All {
            sources: &mut self.sources,
            output: &mut self.output,
        };
        let wait = self.waiter.wait(self.ports, &mut all, wake, || {});
        wait.map_err(
            |DeviceFault { number, error }| match self.sources.get(number) {
                Some(_) => failed(Op::Read, number, &error),
                None => output_failed(&error),
            },
        )
    }

    /// The next request that came back from the output.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the disk did what no conforming one does.
    pub fn complete_write(&mut self) -> Result<Option<Completion>, Failure> {
        let completion = self.output.complete();
        completion.map_err(|error| output_failed(&error))
    }

    /// Fills `buffer` with the bytes at `offset` of the disk `index`, and waits for them. Of what is
    /// behind the end of its file there is nothing.
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub fn read(&mut self, index: usize, offset: u64, buffer: &mut [u8]) -> Result<(), Failure> {
        let limit = to_usize(self.sources[index].device.config().size_max).min(self.memory.len());
        in_sectors(offset, buffer, SECTOR, to_u64(limit), |cover, piece| {
            self.fetch(index, cover.start, cover.len)?;
            piece.copy_from_slice(self.memory.bytes(cover.skip, piece.len()));
            Ok(())
        })
    }

    fn fetch(&mut self, index: usize, offset: u64, len: u32) -> Result<(), Failure> {
        let address = self.memory.address(0);
        self.submit_read(index, OWN_SLOT, offset, address, len);
        self.kick();
        loop {
            let source = &mut self.sources[index];
            let next = source.device.complete();
            match next.map_err(|error| failed(Op::Read, index, &error))? {
                Some(done) if done.slot == OWN_SLOT && done.status == STATUS_OK => return Ok(()),
                Some(done) if done.slot == OWN_SLOT => {
                    let sector = offset / SECTOR;
                    return Err(answered(Op::Read, index, sector, done.status));
                }
                Some(other) => source.early.push_back(other),
                // What the output has done meanwhile is left for later: whoever waits here cannot
                // go on with it.
                None => self.wait_for(Wake::Only(index))?,
            }
        }
    }

    /// The file behind the disk `index`, for a parser.
    pub const fn file(&mut self, index: usize) -> File<'_, 'a, P, R> {
        File { disks: self, index }
    }

    /// Why a parser could not read, once it has said that it could not.
    pub const fn take_failure(&mut self) -> Option<Failure> {
        self.failure.take()
    }
}

/// All disks, for who waits for them: those that are read, and then the output.
struct All<'d, R> {
    sources: &'d mut [Source<R>],
    output: &'d mut BlockDevice<R>,
}

impl<R> Devices<R> for All<'_, R> {
    fn each(&mut self, mut act: impl FnMut(usize, &mut BlockDevice<R>)) {
        for (number, source) in self.sources.iter_mut().enumerate() {
            act(number, &mut source.device);
        }
        act(self.sources.len(), self.output);
    }
}

/// What a parser reads.
#[derive(Debug)]
pub struct File<'d, 'a, P, R> {
    disks: &'d mut Disks<'a, P, R>,
    index: usize,
}

impl<P: Ports, R: Registers> ReadAt for File<'_, '_, P, R> {
    fn size(&self) -> u64 {
        self.disks.length(self.index)
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let end = offset.checked_add(to_u64(buffer.len()));
        if end.is_none_or(|end| end > self.size()) {
            return Err(ReadError);
        }
        self.disks
            .read(self.index, offset, buffer)
            .map_err(|failure| {
                self.disks.failure.get_or_insert(failure);
                ReadError
            })
    }
}

/// The failure of an output that answers no more.
fn output_failed(error: &BlockError) -> Failure {
    Failure::new(Op::Write, OUTPUT, error)
}

#[cfg(test)]
#[path = "disks_tests.rs"]
mod tests;
