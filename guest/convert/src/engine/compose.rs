//! Puts blocks together from the pieces of the disk.
//!
//! A block begins at a grain of the target, and ends at one or at the end of the disk. Zeros that
//! fill whole grains are not written. Other zeros are filled in.

use guest_formats::qcow2::MAPPED;
use guest_formats::{Compressed, Content};
use guest_kit::failure::Failure;
use guest_kit::hardware::{Ports, Registers};
use guest_kit::progress::Observer;

use super::block::Item;
use super::{Engine, LONGEST_REQUEST, Unwritten, Waiting, compare, least};
use crate::backing_chain::Piece;
use crate::{SECTOR, to_u32, to_u64, to_usize};

/// The largest block, in bytes.
const BLOCK: usize = LONGEST_REQUEST as usize;
/// The largest fetch, in bytes.
const FETCH: usize = LONGEST_REQUEST as usize;
/// The most steps that are made before the disks are looked at again.
const STEPS: usize = 64;

/// What a step has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It has dealt with so many bytes of the disk.
    Taken(u64),
    /// It has made ready for the piece, which is to be tried again.
    Again,
    /// It has done nothing, since there is no memory or no slot now.
    Stuck,
}

impl<P: Ports, R: Registers, O: Observer> Engine<'_, '_, P, R, O> {
    /// Begins as much as there is room for. Returns true if it has done anything.
    pub(super) fn compose(&mut self) -> Result<bool, Failure> {
        let mut any = false;
        for _ in 0..STEPS {
            if self.next == self.size {
                any |= self.close_block();
                break;
            }
            let piece = match self.piece {
                Some(piece) => piece,
                None => {
                    let piece = self.chain.piece(self.disks, self.next)?;
                    *self.piece.insert(piece)
                }
            };
            match self.step(piece)? {
                Step::Taken(length) => {
                    self.next += length;
                    self.piece = piece.behind(length);
                }
                Step::Again => {}
                Step::Stuck => break,
            }
            any = true;
        }
        // While there are others to inflate from it is left to grow: the longer it is, the better.
        let is_last = !self.fetches.is_busy();
        Ok(any | (is_last && self.ask()))
    }

    fn step(&mut self, piece: Piece) -> Result<Step, Failure> {
        let Piece { source, mapping } = piece;
        match mapping.content {
            Content::Zero | Content::Backing => Ok(self.zero(mapping.length)),
            Content::Data { offset } => self.data(source, offset, mapping.length, false),
            Content::Unwritten { offset } => self.data(source, offset, mapping.length, true),
            Content::Compressed(cluster) => self.compressed(source, cluster, mapping.length),
        }
    }

    /// The number of the block to which bytes are added, the open one or a new one, and how many
    /// bytes it has room for. It ends where the part of the disk does that an L2 table maps: which bytes
    /// are in one block depends on the input, and where they lie in an image must not.
    fn block(&mut self) -> Option<(usize, usize)> {
        let mapped = MAPPED - self.next % MAPPED;
        if let Some(index) = self.blocks.open() {
            let block = self.blocks.get(index);
            let begins = self.next.is_multiple_of(MAPPED) && block.len > 0;
            let room = least(mapped, BLOCK - block.len);
            if room > 0 && !begins {
                return Some((index, room));
            }
            self.close_block();
        }
        if !self.blocks.has_room() || self.target.is_full() {
            return None;
        }
        let place = self.pool.take(BLOCK)?;
        Some((self.blocks.begin(self.next, place), least(mapped, BLOCK)))
    }

    /// Closes the open block: nothing is added to it any more. Returns false if there is none.
    fn close_block(&mut self) -> bool {
        let Some(index) = self.blocks.open() else {
            return false;
        };
        self.blocks.get(index).open = false;
        self.write_if_complete(index);
        true
    }

    /// Adds `length` bytes to a block. If they are `waited` for, they are still to come.
    fn add(&mut self, index: usize, length: usize, waited: bool) {
        let block = self.blocks.get(index);
        block.len += length;
        block.waiting += u32::from(waited);
    }

    fn is_at_grain(&self) -> bool {
        self.next.is_multiple_of(self.target.grain())
    }

    fn zero(&mut self, length: u64) -> Step {
        let last = self.next + length == self.size;
        let grain = self.target.grain();
        let whole = match last {
            true => length,
            false => length - length % grain,
        };
        if self.is_at_grain() && whole > 0 && self.target.leaves_zeros_out() {
            self.close_block();
            let left_out = self.target.leave_out(self.next, whole);
            if left_out == 0 {
                return Step::Stuck;
            }
            if self.blocks.is_empty() {
                self.observer.skipped((self.next + left_out) / SECTOR);
            }
            return Step::Taken(left_out);
        }
        let Some((index, room)) = self.block() else {
            return Step::Stuck;
        };
        let mut taken = least(length, room);
        if self.target.leaves_zeros_out() {
            // Up to the grain from which on they are left out.
            taken = taken.min(to_usize(grain - self.next % grain));
        }
        let block = self.blocks.get(index);
        let at = block.place.offset() + block.len;
        self.pool.bytes_mut(at, taken).fill(0);
        self.add(index, taken, false);
        Step::Taken(to_u64(taken))
    }

    fn data(
        &mut self,
        source: usize,
        offset: u64,
        length: u64,
        unwritten: bool,
    ) -> Result<Step, Failure> {
        let Some((index, room)) = self.block() else {
            return Ok(Step::Stuck);
        };
        let mut taken = least(length, room);
        let block = self.blocks.get(index);
        let at = block.place.offset() + block.len;
        // Both begin at a sector. What ends within one ends with the disk, or is left for the slow
        // way.
        let aligned = offset.is_multiple_of(SECTOR) && to_u64(at).is_multiple_of(SECTOR);
        let last = self.next + to_u64(taken) == self.size;
        if !last {
            taken = match taken - taken % to_usize(SECTOR) {
                0 => taken,
                whole => whole,
            };
        }
        let read = taken.next_multiple_of(to_usize(SECTOR));
        if !aligned || read != taken && !last {
            let taken = taken.min(super::to_usize(SECTOR));
            let bytes = self.pool.bytes_mut(at, taken);
            self.disks.read(source, offset, bytes)?;
            if unwritten {
                compare(source, offset, bytes)?;
            }
            self.add(index, taken, false);
            return Ok(Step::Taken(to_u64(taken)));
        }
        let Some(slot) = self.disks.take_slot(source) else {
            return Ok(Step::Stuck);
        };
        let address = self.pool.address(at);
        self.disks
            .submit_read(source, slot, offset, address, to_u32(read));
        self.reads[source][usize::from(slot)] = Some(match unwritten {
            true => Waiting::Unwritten(
                index,
                Unwritten {
                    offset,
                    at,
                    len: taken,
                },
            ),
            false => Waiting::Block(index),
        });
        self.add(index, taken, true);
        Ok(Step::Taken(to_u64(taken)))
    }

    fn compressed(
        &mut self,
        source: usize,
        cluster: Compressed,
        length: u64,
    ) -> Result<Step, Failure> {
        let Some((index, room)) = self.block() else {
            return Ok(Step::Stuck);
        };
        let size = to_usize(cluster.size);
        let start = cluster.offset - cluster.offset % SECTOR;
        let end = (cluster.offset + cluster.length).next_multiple_of(SECTOR);
        let bytes = start..end;
        let whole = cluster.skip == 0
            && (length == u64::from(cluster.size) || self.next + length == self.size);
        if !whole || size > BLOCK || end - start > to_u64(FETCH) {
            return self.copied(index, room, source, &cluster, length);
        }
        if size > room {
            if !self.is_at_grain() {
                return self.copied(index, room, source, &cluster, length);
            }
            self.close_block();
            return Ok(Step::Again);
        }
        let extended = self
            .fetches
            .open()
            .filter(|&open| self.fetches.extend(open, source, &bytes));
        let fetch = match extended {
            Some(fetch) => fetch,
            None => {
                if self.fetches.open().is_some() && !self.ask() || !self.fetches.has_room() {
                    return Ok(Step::Stuck);
                }
                let Some(place) = self.pool.take_upper(FETCH) else {
                    return Ok(Step::Stuck);
                };
                self.fetches.begin(source, bytes, place)
            }
        };
        self.chain.charge(source, &cluster, self.next)?;
        let at = self.blocks.get(index).len;
        self.fetches.add(Item {
            source,
            cluster,
            fetch,
            block: index,
            at,
        });
        self.add(index, to_usize(length), true);
        Ok(Step::Taken(length))
    }

    /// Deals with a compressed cluster that is too large for a block or a fetch, or of which only a
    /// part is needed: what is inflated of it is copied into the block.
    fn copied(
        &mut self,
        index: usize,
        room: usize,
        source: usize,
        cluster: &Compressed,
        length: u64,
    ) -> Result<Step, Failure> {
        let begins = self.next.saturating_sub(u64::from(cluster.skip));
        let Some(bytes) = self.large.cluster(source, cluster, begins) else {
            return self.inflate_large(source, cluster, begins);
        };
        let taken = least(length, room).min(bytes.len());
        let block = self.blocks.get(index);
        let at = block.place.offset() + block.len;
        self.pool
            .bytes_mut(at, taken)
            .copy_from_slice(&bytes[..taken]);
        self.add(index, taken, false);
        Ok(Step::Taken(to_u64(taken)))
    }

    /// Goes on with such a cluster. It asks for as much of it as there is room for, and inflates
    /// the next piece that has come.
    fn inflate_large(
        &mut self,
        source: usize,
        cluster: &Compressed,
        begins: u64,
    ) -> Result<Step, Failure> {
        if self.large.begin(source, cluster, begins)? {
            self.chain.charge(source, cluster, begins)?;
        }
        let mut asked = false;
        while let Some(slot) = self.disks.take_slot(source) {
            let Some(wanted) = self.large.next_read(self.pool) else {
                self.disks.give_slot(source, slot);
                break;
            };
            let address = self.pool.address(wanted.place.offset());
            let len = to_u32(wanted.len);
            self.disks
                .submit_read(source, slot, wanted.start, address, len);
            self.reads[source][usize::from(slot)] = Some(Waiting::Piece(wanted.number));
            asked = true;
        }
        if asked {
            // The disk is to read while the processor inflates.
            self.disks.kick();
        }
        match self.large.feed(self.pool)? {
            true => Ok(Step::Again),
            false => Ok(Step::Stuck),
        }
    }

    /// Asks for the fetch to which clusters are being added. Returns true if there was one, and a
    /// slot for it.
    pub(super) fn ask(&mut self) -> bool {
        let Some(index) = self.fetches.open() else {
            return false;
        };
        let Some(source) = self.fetches.source(index) else {
            return false;
        };
        let Some(slot) = self.disks.take_slot(source) else {
            return false;
        };
        if let Some(fetch) = self.fetches.ask(index) {
            let address = self.pool.address(fetch.place.offset());
            let len = to_u32(to_usize(fetch.end - fetch.start));
            self.disks
                .submit_read(source, slot, fetch.start, address, len);
            self.reads[source][usize::from(slot)] = Some(Waiting::Fetch(index));
        }
        true
    }
}
