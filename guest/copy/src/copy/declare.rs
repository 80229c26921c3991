//! Declares zeros to the output instead of writing them (VIRTIO_BLK_T_WRITE_ZEROES, virtio 1.2,
//! section 5.2.6). The holes of the input are declared before anything is copied, in a few large
//! requests. Zeros that are found in a piece are declared one stretch at a time.

use guest_kit::hardware::{Ports, Registers};
use guest_kit::virtio::block::{WIRE_SECTOR, ZeroLimits};
use guest_kit::virtio::requests::{Kind, Request, STATUS_OK, ZERO_SEGMENT_LEN, zero_segment};

use super::disks::DiskFault;
use super::engine::{Engine, to_usize};
use super::plan::Piece;
use super::skip::Selection;
use crate::config::Side;
use guest_kit::failure::Failure;
use guest_kit::progress::Observer;

impl<P: Ports, R: Registers, O: Observer> Engine<'_, '_, P, R, O> {
    /// Declares the holes. If the output takes no such requests, or refuses one, the copy goes on
    /// as if there were no holes, and copies everything.
    pub(super) fn declare_holes(&mut self) -> Result<(), Failure> {
        if self.selection.holes().next().is_none() || self.try_declare()? {
            self.copied = self.selection.reached(0);
            if self.copied > 0 {
                self.observer.skipped(self.count());
            }
        } else {
            self.selection = Selection::everything(self.plan);
        }
        Ok(())
    }

    /// Declares the holes. Returns true if the output has taken all of them.
    fn try_declare(&mut self) -> Result<bool, Failure> {
        let Some(limits) = self.disks.output.config().zeroes else {
            return Ok(false);
        };
        let room = self.pool.len() / ZERO_SEGMENT_LEN;
        let most = to_usize(limits.segments)
            .min(room)
            .min(to_usize(self.disks.output.config().size_max) / ZERO_SEGMENT_LEN);
        if most == 0 || limits.sectors < self.plan.block() / WIRE_SECTOR {
            return Ok(false);
        }
        let selection = core::mem::replace(&mut self.selection, Selection::everything(self.plan));
        let declared = self.declare_all(&selection, limits, most);
        self.selection = selection;
        declared
    }

    /// Declares the holes in requests of at most `most` parts each, as many at once as there is room
    /// for: one after the other each would cost a wake-up of the disk and one of the guest.
    fn declare_all(
        &mut self,
        selection: &Selection,
        limits: ZeroLimits,
        most: usize,
    ) -> Result<bool, Failure> {
        let each = most * ZERO_SEGMENT_LEN;
        let at_once = (self.pool.len() / each).min(self.slots.len());
        let mut zeroes = selection.zeroes(limits).peekable();
        while zeroes.peek().is_some() {
            let mut under_way = 0;
            for (slot, start) in (0..).zip((0..).step_by(each)).take(at_once) {
                let mut len = 0;
                for (sector, sectors) in zeroes.by_ref().take(most) {
                    let segment = zero_segment(sector, sectors);
                    self.pool.write(start + len, &segment);
                    len += ZERO_SEGMENT_LEN;
                }
                if len == 0 {
                    break;
                }
                let request = self.declaration(start, len);
                self.disks.output.submit(slot, request);
                under_way += 1;
            }
            self.disks.output.kick();
            let taken = self.are_taken(under_way);
            if !taken.map_err(|fault| self.fault(&fault))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits for so many requests of the output, and returns whether it has carried out all of them.
    fn are_taken(&mut self, mut under_way: usize) -> Result<bool, DiskFault> {
        let mut all = true;
        while under_way > 0 {
            match self.disks.complete(Side::Output)? {
                Some(completion) => {
                    under_way -= 1;
                    all &= completion.status == STATUS_OK;
                }
                None => self.disks.wait(self.observer)?,
            }
        }
        Ok(all)
    }

    /// The request that writes the next part of `piece`, which lies in the memory from `buffer` up
    /// and of which `from` bytes are written; and how many are when it is done.
    pub(super) fn next_write(&mut self, piece: Piece, buffer: usize, from: u32) -> (Request, u32) {
        let Some(search) = self.extras.zeros else {
            return (self.write(piece, buffer), piece.write_len);
        };
        let start = buffer + to_usize(from);
        let rest = self.pool.bytes(start, to_usize(piece.write_len - from));
        let stretch = search.stretch(piece.offset + u64::from(from), rest);
        // It is not longer than what is left of the piece.
        let len = u32::try_from(stretch.len).unwrap_or(piece.write_len - from);
        let part = Piece {
            offset: piece.offset + u64::from(from),
            read_len: len,
            write_len: len,
        };
        if !stretch.zero {
            return (self.write(part, start), from + len);
        }
        // Nobody needs the zeros any more, so that the place is good for the declaration.
        let unit = u64::from(WIRE_SECTOR);
        let segment = zero_segment(part.offset / unit, len / WIRE_SECTOR);
        self.pool.write(start, &segment);
        (self.declaration(start, ZERO_SEGMENT_LEN), from + len)
    }

    /// The request with the `len` bytes of segments at `buffer`.
    fn declaration(&self, buffer: usize, len: usize) -> Request {
        Request {
            kind: Kind::WriteZeroes,
            sector: 0,
            address: self.pool.address(buffer),
            len: u32::try_from(len).unwrap_or(0),
        }
    }
}
