//! All disks of a conversion: the input and its backing files, which are read, and the output. Each
//! read disk is used in two ways at once: the pipeline has many requests under way, and a parser
//! waits for a few bytes of a table meanwhile.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::hint::spin_loop;

use guest_abi::ports::IDLE;
use guest_formats::{ReadAt, ReadError};
use guest_kit::dma::DmaRegion;
use guest_kit::hardware::{Ports, Registers};
use guest_kit::virtio::block::{BlockDevice, BlockError};
use guest_kit::virtio::requests::{Completion, Kind, Request, STATUS_OK};

use crate::failure::{Failure, Op};
use crate::{SECTOR, to_u32, to_u64, to_usize};

/// How often the rings are looked at before the processor blocks: a microsecond or two.
const SPINS: u32 = 32;
/// What part of all that is under way keeps the output busy until the guest has woken up.
const RESERVE: u16 = 4;
/// The slot that a parser's reads have on each disk; the pipeline has the others.
const OWN_SLOT: u16 = 0;

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
    /// Slots that the pipeline may use.
    free: Vec<u16>,
    /// What came back for the pipeline while a parser waited.
    early: VecDeque<Completion>,
}

impl<R: Registers> Source<R> {
    /// The disk over a file of `length` bytes.
    #[must_use]
    pub fn new(device: BlockDevice<R>, length: u64) -> Self {
        let capacity = device.config().capacity.saturating_mul(SECTOR);
        Self {
            // The disk is the file, filled up to a whole sector.
            length: length.min(capacity),
            free: (OWN_SLOT + 1..device.slots()).rev().collect(),
            early: VecDeque::new(),
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
    /// Where what a parser reads arrives.
    memory: DmaRegion,
    /// Why a parser could not read.
    failure: Option<Failure>,
}

impl<'a, P: Ports, R: Registers> Disks<'a, P, R> {
    /// The disks, with `memory` for what parsers read: two sectors at least.
    pub const fn new(
        ports: &'a P,
        sources: Vec<Source<R>>,
        output: BlockDevice<R>,
        memory: DmaRegion,
    ) -> Self {
        Self {
            ports,
            sources,
            output,
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
        self.sources[index].device.submit(slot, request);
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
                next.map_err(|error| device_failure(Op::Read, source_name(index), &error))?
            }
        };
        let Some(completion) = completion else {
            return Ok(None);
        };
        source.free.push(completion.slot);
        match completion.status {
            STATUS_OK => Ok(Some(completion.slot)),
            status => Err(status_failure(Op::Read, source_name(index), 0, status)),
        }
    }

    /// Starts whatever was submitted.
    pub fn kick(&mut self) {
        for source in &mut self.sources {
            source.device.kick();
        }
        self.output.kick();
    }

    /// Waits until a request has come back, or for no reason at all. Only of use while something is
    /// under way. If `hungry`, each read is waited for, since the processor has nothing to do.
    ///
    /// # Errors
    ///
    /// [`Failure`] if a disk has failed by itself.
    pub fn wait(&mut self, hungry: bool) -> Result<(), Failure> {
        if self.spin() {
            return Ok(());
        }
        self.arm(hungry);
        // What came back before the wish for a notification was seen would never cause one.
        let slept = !self.has_completions();
        if slept {
            self.ports.read(IDLE);
        }
        for source in &mut self.sources {
            source.device.disarm();
        }
        self.output.disarm();
        match slept && !self.has_completions() {
            true => self.check(),
            false => Ok(()),
        }
    }

    /// Waits until the disk `index` has answered, or for no reason at all. What the output has done
    /// meanwhile is left for later: whoever waits here cannot go on with it.
    fn wait_for_source(&mut self, index: usize) -> Result<(), Failure> {
        let has_answered = |disks: &Self| disks.sources[index].device.has_completions();
        let answers = (0..SPINS).any(|_| {
            spin_loop();
            has_answered(self)
        });
        if answers {
            return Ok(());
        }
        self.sources[index].device.arm(1);
        // What came back before the wish for a notification was seen would never cause one.
        let slept = !has_answered(self);
        if slept {
            self.ports.read(IDLE);
        }
        self.sources[index].device.disarm();
        match slept && !has_answered(self) {
            true => self.check(),
            false => Ok(()),
        }
    }

    /// Asks for the notifications that are worth waking up for, as the copy does: while the output
    /// has enough to do, it alone wakes the guest.
    fn arm(&mut self, hungry: bool) {
        let in_flight = |source: &Source<R>| source.device.in_flight();
        let reading: u16 = self.sources.iter().map(in_flight).sum();
        let writing = self.output.in_flight();
        let reserve = (reading + writing) / RESERVE;
        let enough = writing > reserve;
        if !enough || hungry {
            for source in &mut self.sources {
                let count = source.device.in_flight();
                if count > 0 {
                    let count = if hungry { 1 } else { count.min(reserve) };
                    source.device.arm(count);
                }
            }
        }
        if writing > 0 {
            self.output
                .arm(if enough { writing - reserve } else { writing });
        }
    }

    fn has_completions(&self) -> bool {
        let has = |source: &Source<R>| source.device.has_completions();
        self.output.has_completions() || self.sources.iter().any(has)
    }

    fn spin(&self) -> bool {
        (0..SPINS).any(|_| {
            spin_loop();
            self.has_completions()
        })
    }

    /// A wake-up that brings nothing may be a disk's way to say that it has failed.
    fn check(&self) -> Result<(), Failure> {
        for (index, source) in self.sources.iter().enumerate() {
            let state = source.device.check();
            state.map_err(|error| device_failure(Op::Read, source_name(index), &error))?;
        }
        let state = self.output.check();
        state.map_err(|error| device_failure(Op::Write, OUTPUT, &error))
    }

    /// The next request that came back from the output.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the disk did what no conforming one does.
    pub fn complete_write(&mut self) -> Result<Option<Completion>, Failure> {
        let completion = self.output.complete();
        completion.map_err(|error| device_failure(Op::Write, OUTPUT, &error))
    }

    /// Fills `buffer` with the bytes at `offset` of the disk `index`, and waits for them. Of what is
    /// behind the end of its file there is nothing.
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub fn read(&mut self, index: usize, offset: u64, buffer: &mut [u8]) -> Result<(), Failure> {
        let most = to_usize(self.sources[index].device.config().size_max).min(self.memory.len());
        let most = to_u64(most) / SECTOR * SECTOR;
        let (mut at, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let start = at - at % SECTOR;
            let wanted = at.saturating_add(to_u64(rest.len()));
            let end = wanted.next_multiple_of(SECTOR).min(start + most);
            self.fetch(index, start, to_u32(to_usize(end - start)))?;
            let skip = to_usize(at - start);
            let there = to_usize(end - at).min(rest.len());
            let (piece, behind) = rest.split_at_mut(there);
            piece.copy_from_slice(self.memory.bytes(skip, there));
            at += to_u64(there);
            rest = behind;
        }
        Ok(())
    }

    fn fetch(&mut self, index: usize, offset: u64, len: u32) -> Result<(), Failure> {
        let address = self.memory.address(0);
        self.submit_read(index, OWN_SLOT, offset, address, len);
        self.kick();
        let name = source_name(index);
        loop {
            let source = &mut self.sources[index];
            let next = source.device.complete();
            match next.map_err(|error| device_failure(Op::Read, name, &error))? {
                Some(done) if done.slot == OWN_SLOT && done.status == STATUS_OK => return Ok(()),
                Some(done) if done.slot == OWN_SLOT => {
                    let sector = offset / SECTOR;
                    return Err(status_failure(Op::Read, name, sector, done.status));
                }
                Some(other) => source.early.push_back(other),
                None => self.wait_for_source(index)?,
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

/// The failure of a device that answers no more.
pub(crate) fn device_failure(op: Op, device: &'static str, error: &BlockError) -> Failure {
    Failure::new(op, device, error)
}

/// The failure of a request that a device answered with `status`.
pub(crate) fn status_failure(op: Op, device: &'static str, sector: u64, status: u8) -> Failure {
    Failure {
        sector,
        status: u32::from(status),
        ..Failure::new(op, device, &"")
    }
}
