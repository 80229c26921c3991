//! The pipelined copy: a window of pieces moves over the input, each piece in a slot that owns a
//! buffer of the pool and a request on both disks. The buffer that a read has filled is what the
//! write takes: no byte is touched by the processor, unless a digest or zeros are wanted.

use alloc::vec;
use alloc::vec::Vec;

use super::disks::{DiskFault, Disks};
use super::plan::{Piece, Plan};
use super::skip::Selection;
use super::{CopyEnd, device_failure};
use crate::config::Side;
use guest_kit::digest::Hasher;
use guest_kit::dma::DmaRegion;
use guest_kit::failure::{Failure, Op};
use guest_kit::hardware::{Ports, Registers};
use guest_kit::progress::Observer;
use guest_kit::virtio::block::WIRE_SECTOR;
use guest_kit::virtio::requests::{Kind, MAX_REQUEST_SLOTS, Request, STATUS_OK};
use guest_kit::zeros::Search;

/// What is being done with the piece in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SlotState {
    /// It is being read, or will be read again after a failure.
    Reading,
    /// It has been read, and waits until the digest has taken all that lies before it.
    Read,
    /// It is being written. This many of its bytes are written once the request under way is done.
    Writing(u32),
    /// It has been written.
    Done,
}

/// What is to be done beside copying.
#[derive(Debug, Default)]
pub struct Extras {
    /// The search for zeros in what was read.
    pub zeros: Option<Search>,
    /// The digest of the input.
    pub digest: Option<Hasher>,
    /// Whether the output is to be read back and have the same digest.
    pub verify: bool,
}

/// How the pipeline ended.
enum End {
    /// Everything is copied.
    Complete,
    /// A request failed, and nothing is under way any more.
    Failed,
}

/// A copy under way.
pub struct Engine<'a, 'p, P, R, O> {
    pub(super) plan: Plan,
    pub(super) selection: Selection,
    pub(super) extras: Extras,
    pub(super) disks: &'a mut Disks<'p, P, R>,
    pub(super) pool: &'a mut DmaRegion,
    pub(super) observer: &'a mut O,
    /// The state of each slot. Piece number k is in slot number k modulo the number of slots.
    pub(super) slots: Vec<SlotState>,
    /// Pieces before `done` are written; pieces from `next` on have not been asked for.
    pub(super) done: u64,
    pub(super) next: u64,
    /// Pieces before it are in the digest, of those that were asked for.
    pub(super) hashed: u64,
    /// Bytes of the input that are copied without a gap.
    pub(super) copied: u64,
    pub(super) failed: bool,
    /// How long the digest has been computed, in ticks of the processor.
    pub(super) digest_ticks: u64,
}

impl<'a, 'p, P: Ports, R: Registers, O: Observer> Engine<'a, 'p, P, R, O> {
    /// Prepares the copy of what `selection` names, by `plan`. At most `depth` pieces are under way
    /// at once, each in its part of `pool`, which must have room for one.
    pub fn new(
        (plan, selection): (Plan, Selection),
        extras: Extras,
        disks: &'a mut Disks<'p, P, R>,
        pool: &'a mut DmaRegion,
        observer: &'a mut O,
        depth: u32,
    ) -> Self {
        let depth = usize::try_from(depth).unwrap_or(usize::MAX);
        let depth = depth
            .min(buffers(pool, plan.request_size()))
            .min(usize::from(disks.input.slots()))
            .min(usize::from(disks.output.slots()))
            .clamp(1, MAX_REQUEST_SLOTS);
        Self {
            plan,
            selection,
            extras,
            disks,
            pool,
            observer,
            slots: vec![SlotState::Done; depth],
            done: 0,
            next: 0,
            hashed: 0,
            copied: 0,
            failed: false,
            digest_ticks: 0,
        }
    }

    /// How many pieces are under way at once.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.slots.len()
    }

    /// Copies everything and flushes the output, or goes as far as the first failure.
    pub fn run(mut self) -> CopyEnd {
        let result = self
            .declare_holes()
            .and_then(|()| self.copy())
            .and_then(|()| self.flush())
            .and_then(|()| self.finish_digest());
        let count = self.count();
        match result {
            Ok(digest) => CopyEnd {
                count,
                result: Ok(()),
                digest,
                digest_ticks: self.digest_ticks,
            },
            Err(failure) => CopyEnd {
                count,
                result: Err(failure),
                digest: None,
                digest_ticks: 0,
            },
        }
    }

    fn copy(&mut self) -> Result<(), Failure> {
        loop {
            match self.pipeline().map_err(|fault| self.fault(&fault))? {
                End::Complete => return Ok(()),
                // Sector by sector the piece may succeed, or fail at another place than it seemed.
                End::Failed => self.retry(self.selection.piece(self.done))?,
            }
            self.advance();
        }
    }

    /// Keeps both disks busy until everything is copied, or until a request has failed and what
    /// was under way with it has come back.
    fn pipeline(&mut self) -> Result<End, DiskFault> {
        self.failed = false;
        self.next = self.done;
        self.hashed = self.done;
        loop {
            let moved = self.take_reads()? | self.take_writes()? | self.hash();
            self.fill();
            // The disks are kicked before the observer reports, so that they work while it does.
            // With a digest the output waits for each piece, and would want to be told of each: two
            // at a time halve what that costs the processor.
            if moved && self.extras.digest.is_some() && !self.hashed.is_multiple_of(2) {
                self.disks.input.kick();
            } else {
                self.disks.kick();
            }
            self.observer.done(self.count());
            if self.done == self.selection.count() {
                return Ok(End::Complete);
            }
            if self.failed && self.disks.is_quiet() {
                return Ok(End::Failed);
            }
            if !moved {
                self.disks.wait(self.observer)?;
            }
        }
    }

    /// Asks for as many pieces as there are free slots.
    fn fill(&mut self) {
        while !self.failed
            && self.next < self.selection.count()
            && self.next - self.done < self.slots.len() as u64
        {
            let slot = self.slot(self.next);
            self.slots[usize::from(slot)] = SlotState::Reading;
            let piece = self.selection.piece(self.next);
            let request = self.read(piece, self.buffer(slot));
            self.disks.input.submit(slot, request);
            self.next += 1;
        }
    }

    /// Writes what has been read, unless it has to wait for the digest. Returns true if there was
    /// anything.
    fn take_reads(&mut self) -> Result<bool, DiskFault> {
        let mut any = false;
        while let Some(completion) = self.disks.complete(Side::Input)? {
            any = true;
            self.failed |= completion.status != STATUS_OK;
            if !self.failed {
                let index = self.index(completion.slot);
                self.fill_up(self.selection.piece(index), self.buffer(completion.slot));
                match self.extras.digest {
                    Some(_) => self.slots[usize::from(completion.slot)] = SlotState::Read,
                    None => self.write_on(index, 0),
                }
            }
        }
        Ok(any)
    }

    /// Takes note of what has been written. Returns true if there was anything.
    fn take_writes(&mut self) -> Result<bool, DiskFault> {
        let mut any = false;
        while let Some(completion) = self.disks.complete(Side::Output)? {
            any = true;
            match (completion.status, self.slots[usize::from(completion.slot)]) {
                (STATUS_OK, SlotState::Writing(to)) => {
                    self.write_on(self.index(completion.slot), to);
                }
                _ => self.writing_failed(),
            }
        }
        while self.done < self.next
            && self.slots[usize::from(self.slot(self.done))] == SlotState::Done
        {
            self.copied = self.selection.piece(self.done).end();
            self.advance();
        }
        Ok(any)
    }

    fn writing_failed(&mut self) {
        self.failed = true;
        // Perhaps the disk does not take zeros after all: what it refused is written.
        self.extras.zeros = None;
    }

    /// Goes on writing the piece with this index, of which `from` bytes are written.
    pub(super) fn write_on(&mut self, index: u64, from: u32) {
        let (slot, piece) = (self.slot(index), self.selection.piece(index));
        let progress = &mut self.slots[usize::from(slot)];
        if from >= piece.write_len {
            *progress = SlotState::Done;
        } else if self.failed {
            *progress = SlotState::Reading;
        } else {
            let (request, to) = self.next_write(piece, self.buffer(slot), from);
            self.slots[usize::from(slot)] = SlotState::Writing(to);
            self.disks.output.submit(slot, request);
        }
    }

    /// Takes note that the first piece that was not copied is copied now, and the hole behind it as
    /// well.
    fn advance(&mut self) {
        self.done += 1;
        let reached = self.selection.reached(self.done);
        if self.copied < reached {
            self.observer.done(self.count());
            self.copied = reached;
            self.observer.skipped(self.count());
        }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        if !self.disks.output.config().flush {
            return Ok(());
        }
        let run = self.disks.run(Side::Output, Request::FLUSH, self.observer);
        match run.map_err(|fault| self.fault(&fault)) {
            Ok(STATUS_OK) => Ok(()),
            Ok(status) => Err(Failure::answered(Op::Flush, Side::Output.name(), 0, status)),
            Err(failure) => Err(Failure {
                op: Op::Flush,
                ..failure
            }),
        }
    }

    /// The request that reads `piece` into the memory from `buffer` up, an offset in the pool.
    pub(super) fn read(&self, piece: Piece, buffer: usize) -> Request {
        Request {
            kind: Kind::Read,
            sector: piece.offset / u64::from(WIRE_SECTOR),
            address: self.pool.address(buffer),
            len: piece.read_len,
        }
    }

    /// The request that writes `piece` from the memory from `buffer` up.
    pub(super) fn write(&self, piece: Piece, buffer: usize) -> Request {
        Request {
            kind: Kind::Write,
            len: piece.write_len,
            ..self.read(piece, buffer)
        }
    }

    /// Fills with zeros the bytes of `piece` that are written and were not read.
    pub(super) fn fill_up(&mut self, piece: Piece, buffer: usize) {
        let filling = piece.write_len.saturating_sub(piece.read_len);
        if filling > 0 {
            let start = buffer + to_usize(piece.read_len);
            self.pool.zero(start, to_usize(filling));
        }
    }

    /// How many input sectors are copied, from the first on without a gap.
    pub(super) fn count(&self) -> u64 {
        self.copied / u64::from(self.plan.input().sector)
    }

    /// The failure of a disk that has failed for good.
    pub(super) fn fault(&self, fault: &DiskFault) -> Failure {
        let shape = match fault.disk {
            Side::Input => self.plan.input(),
            Side::Output => self.plan.output(),
        };
        device_failure(fault, self.copied / u64::from(shape.sector))
    }

    pub(super) fn slot(&self, index: u64) -> u16 {
        // Fewer slots than a u16 counts: see `new`.
        u16::try_from(index % self.slots.len() as u64).unwrap_or(0)
    }

    /// The piece in `slot`. Of the pieces from `done` to `next` only one has its place there.
    fn index(&self, slot: u16) -> u64 {
        let slots = self.slots.len() as u64;
        let ahead = (u64::from(slot) + slots - self.done % slots) % slots;
        self.done + ahead
    }

    /// The offset of the buffer of `slot` in the pool, in bytes.
    pub(super) fn buffer(&self, slot: u16) -> usize {
        usize::from(slot) * to_usize(self.plan.request_size())
    }
}

/// How many buffers of `request_size` bytes there are in `pool`.
pub fn buffers(pool: &DmaRegion, request_size: u32) -> usize {
    pool.len() / to_usize(request_size)
}

/// Converts a number for an index. Nothing is lost on x86-64, where this program runs.
pub(super) fn to_usize(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
