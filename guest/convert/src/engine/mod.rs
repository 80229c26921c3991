//! The conversion, as a pipeline: the disks read and write while the processor inflates.
//!
//! The disk is made block by block. `compose` puts a block together from pieces. A piece that lies
//! in a file as it is, the disk reads to its place in the block. A compressed one is inflated
//! there, from a fetch that was read before. A complete block is written from where it lies. Zeros
//! are not written, whether the image says that they are or only their bytes do: they are declared to
//! a raw output, and have no place in a qcow2 image.

mod block;
mod compose;
mod large;
mod place;
mod tables;
mod target;
mod zeros;

use alloc::vec::Vec;

use guest_kit::digest::Hasher;
use guest_kit::failure::{Failure, Op};
use guest_kit::hardware::{Ports, Registers};
use guest_kit::progress::Observer;
use guest_kit::virtio::requests::{Request, STATUS_OK};
use guest_protocol::ConvertFormat;

use crate::app::ConversionEnd;
use crate::backing_chain::{BackingChain, Piece};
use crate::codec::{Fault, Inflater};
use crate::disks::{Disks, OUTPUT};
use crate::failure::{failed, refused, unreadable};
use crate::pool::Pool;
use crate::{SECTOR, to_u64, to_usize};
use block::{Blocks, Fetches, Item};
use guest_formats::{Finding, Mapping, Reason};
use large::Large;
use tables::Tables;
pub(crate) use tables::no_room;
use target::Target;
use zeros::Zeros;

/// The most bytes of a request.
pub const LONGEST_REQUEST: u32 = 128 << 10;
/// How many requests each disk has room for. On the output the request of a block has the block's
/// number.
pub const SLOTS: u16 = 85;
/// The slot on the output for what is not a block: declarations of zeros, tables and flushes.
const OWN_SLOT: u16 = SLOTS - 1;

/// A conversion under way.
pub struct Engine<'a, 'p, P, R, O> {
    chain: &'a mut BackingChain,
    disks: &'a mut Disks<'p, P, R>,
    pool: &'a mut Pool,
    observer: &'a mut O,
    target: Target,
    blocks: Blocks,
    fetches: Fetches,
    /// For each slot of each disk that is read, who waits for its request.
    reads: Vec<[Option<Waiting>; SLOTS as usize]>,
    inflater: Inflater,
    large: Large,
    hasher: Option<Hasher>,
    /// The size of the disk in bytes.
    size: u64,
    /// The offset on the disk up to which everything is in a block or left out.
    next: u64,
    /// The piece that begins there, if it is known.
    piece: Option<Piece>,
}

/// What is to be written.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// The format.
    pub format: ConvertFormat,
    /// How many bytes it may have at the most.
    pub room: u64,
}

/// Who waits for a read.
#[derive(Clone, Copy, Debug)]
enum Waiting {
    /// The block with this number, of which it is a piece.
    Block(usize),
    /// The same, and the piece has to be zero.
    Unwritten(usize, Unwritten),
    /// The fetch with this number.
    Fetch(usize),
    /// A cluster that is inflated in pieces, of which this is the number.
    Piece(usize),
}

/// A piece that has to be zero, as [`Content::Unwritten`](guest_formats::Content::Unwritten) says.
#[derive(Clone, Copy, Debug)]
struct Unwritten {
    /// Its offset on its disk in bytes.
    offset: u64,
    /// Where it is in the pool.
    at: usize,
    len: usize,
}

impl<'a, 'p, P: Ports, R: Registers, O: Observer> Engine<'a, 'p, P, R, O> {
    /// Prepares the conversion of the disk in `chain`. If there is a `hasher`, it takes the whole
    /// disk.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the output's format has no disks of this size.
    pub fn new(
        chain: &'a mut BackingChain,
        disks: &'a mut Disks<'p, P, R>,
        pool: &'a mut Pool,
        observer: &'a mut O,
        hasher: Option<Hasher>,
        output: Output,
    ) -> Result<Self, Failure> {
        let size = chain.size();
        let device = disks.output.config();
        let target = match output.format {
            ConvertFormat::Raw => Target::Raw(Zeros::new(device.zeroes, pool)),
            ConvertFormat::Qcow2 => {
                Target::Qcow2(Tables::new(size, output.room, device.flush, pool)?)
            }
        };
        Ok(Self {
            size,
            target,
            reads: (0..disks.sources())
                .map(|_| [None; SLOTS as usize])
                .collect(),
            chain,
            disks,
            pool,
            observer,
            blocks: Blocks::default(),
            fetches: Fetches::default(),
            inflater: Inflater::default(),
            large: Large::default(),
            hasher,
            next: 0,
            piece: None,
        })
    }

    /// Converts the disk and flushes the output, or goes as far as the first failure.
    pub fn run(mut self) -> ConversionEnd {
        let result = self
            .clear()
            .and_then(|()| self.convert())
            .and_then(|()| self.flush());
        let count = self.done().div_ceil(SECTOR);
        ConversionEnd {
            count,
            length: self.target.length(self.size),
            result: result.map(|()| self.hasher.map(Hasher::finish)),
        }
    }

    /// Makes an output with a header zero where that will be, before anything else is written: an
    /// old image there must not show what is written to its clusters.
    fn clear(&mut self) -> Result<(), Failure> {
        let Some(request) = self.target.clear(self.pool) else {
            return Ok(());
        };
        let status = self.alone(request)?;
        self.target.take(status)?;
        self.flush()
    }

    fn convert(&mut self) -> Result<(), Failure> {
        loop {
            let mut moved = self.take_reads()? | self.take_writes()?;
            moved |= self.inflate_next()?;
            moved |= self.compose()?;
            moved |= self.place()?;
            self.digest();
            moved |= self.release();
            if !moved {
                // There is nothing to do before the fetch is there, however short it is.
                self.ask();
            }
            // The disks first: reporting takes its time, in which they can work.
            self.disks.start(!moved);
            self.observer.done(self.done() / SECTOR);
            let is_read = self.next == self.size && self.large.is_quiet();
            if is_read && self.blocks.is_empty() && self.target.is_quiet() {
                self.observer.done(self.size.div_ceil(SECTOR));
                return Ok(());
            }
            if !moved {
                self.observer.idle();
                self.disks
                    .wait(self.fetches.has_items() || !self.large.is_quiet())?;
            }
        }
    }

    /// Bytes of the disk that are done, from the first on without a gap.
    fn done(&self) -> u64 {
        self.blocks.first().map_or(self.next, |block| block.start)
    }

    /// Takes note of what has been read. Returns true if there was anything.
    fn take_reads(&mut self) -> Result<bool, Failure> {
        let mut any = false;
        for source in 0..self.disks.sources() {
            while let Some(slot) = self.disks.complete_read(source)? {
                any = true;
                match self.reads[source][usize::from(slot)].take() {
                    Some(Waiting::Block(index)) => self.fill(index),
                    Some(Waiting::Unwritten(index, piece)) => {
                        let bytes = self.pool.bytes(piece.at, piece.len);
                        compare(source, piece.offset, bytes)?;
                        self.fill(index);
                    }
                    Some(Waiting::Fetch(index)) => self.fetches.arrive(index),
                    Some(Waiting::Piece(number)) => self.large.arrive(number, self.pool),
                    None => {}
                }
            }
        }
        Ok(any)
    }

    /// Takes note of what has been written. Returns true if there was anything.
    fn take_writes(&mut self) -> Result<bool, Failure> {
        let mut any = false;
        while let Some(done) = self.disks.complete_write()? {
            any = true;
            if done.slot == OWN_SLOT {
                self.target.take(done.status)?;
                continue;
            }
            let block = self.blocks.get(usize::from(done.slot));
            if done.status != STATUS_OK {
                let sector = block.start / SECTOR;
                return Err(Failure::answered(Op::Write, OUTPUT, sector, done.status));
            }
            self.write_rest(usize::from(done.slot));
        }
        Ok(any)
    }

    /// Inflates the next cluster, if its fetch is there. Returns true if it was.
    fn inflate_next(&mut self) -> Result<bool, Failure> {
        let Some(item) = self.fetches.next_item() else {
            return Ok(false);
        };
        self.inflate(&item)?;
        if let Some(place) = self.fetches.finish_item(item.fetch) {
            self.pool.give(place);
        }
        self.fill(item.block);
        Ok(true)
    }

    fn inflate(&mut self, item: &Item) -> Result<(), Failure> {
        let source = item.source;
        let fetch = self.fetches.place_of(item);
        let payload = item
            .cluster
            .payload(self.pool.bytes(fetch.start, fetch.len()));
        let payload = payload.map_err(|error| unreadable(source, &error))?;
        let from = fetch.start + payload.start..fetch.start + payload.end;
        let start = self.blocks.get(item.block).place.offset() + item.at;
        let to = start..start + to_usize(item.cluster.size);
        let (input, output) = self.pool.pair(from, to);
        let made = self.inflater.inflate(&item.cluster, input, output);
        let made = made.map_err(|fault| bad_data(source, item.cluster.offset, fault))?;
        // Only the last cluster of a disk may be shorter.
        output[made..].fill(0);
        Ok(())
    }

    /// Says that one more piece of a block is there.
    fn fill(&mut self, index: usize) {
        let block = self.blocks.get(index);
        block.waiting -= 1;
        self.write_if_complete(index);
    }

    /// Takes complete blocks into the digest, in the order of the disk.
    fn digest(&mut self) {
        let Some(hasher) = &mut self.hasher else {
            return;
        };
        while let Some(block) = self.blocks.next_undigested() {
            // What was passed is zero.
            hasher.zeros(block.start, u64::MAX);
            hasher.data(
                block.start,
                self.pool.bytes(block.place.offset(), block.len),
            );
            block.digested = true;
        }
    }

    /// Gives back the memory of blocks that are not needed any more. Returns true if there were any.
    fn release(&mut self) -> bool {
        let digest = self.hasher.is_some();
        let mut any = false;
        while let Some(place) = self.blocks.release(digest) {
            self.pool.give(place);
            any = true;
        }
        any
    }

    fn flush(&mut self) -> Result<(), Failure> {
        if !self.disks.output.config().flush {
            return Ok(());
        }
        match self.alone(Request::FLUSH)? {
            STATUS_OK => Ok(()),
            status => Err(Failure::answered(Op::Flush, OUTPUT, 0, status)),
        }
    }

    /// Makes a request to the output while no other one is under way, waits for it, and returns its
    /// status byte.
    fn alone(&mut self, request: Request) -> Result<u8, Failure> {
        self.disks.submit_write(OWN_SLOT, request);
        self.disks.kick();
        loop {
            if let Some(done) = self.disks.complete_write()? {
                return Ok(done.status);
            }
            self.disks.wait(false)?;
        }
    }
}

/// Compares `bytes`, which lie at `offset` of the disk `source`, with the zeros that they have to be.
fn compare(source: usize, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
    let compared = Mapping::unwritten(offset, bytes);
    compared.map_err(|error| unreadable(source, &error))
}

/// The failure of a cluster at `offset` of the image on the disk `source`.
fn bad_data(source: usize, offset: u64, fault: Fault) -> Failure {
    match fault {
        Fault::Data => {
            let finding = Finding {
                reason: Reason::BadCompressedData,
                at: offset,
                value: 0,
            };
            refused(source, &finding)
        }
        Fault::Memory => failed(Op::Read, source, &fault),
    }
}

/// The smaller one of a length on a disk and a length in memory.
fn least(length: u64, room: usize) -> usize {
    to_usize(length.min(to_u64(room)))
}

#[cfg(test)]
mod tests;
