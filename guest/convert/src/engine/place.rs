//! Writes complete blocks to their places on the output.
//!
//! On a raw output each byte has its place, and a block is written as soon as all of it is there:
//! one stretch of data after the other, with the zeros between them declared.
//! In a qcow2 image clusters get their places in the order of the disk, so that the same disk
//! always makes the same file, and clusters of zeros get none.

use core::ops::Range;

use guest_formats::qcow2::CLUSTER;
use guest_kit::failure::Failure;
use guest_kit::hardware::{Ports, Registers};
use guest_kit::progress::Observer;
use guest_kit::virtio::requests::{Kind, Request};
use guest_kit::zeros::{Search, is_zero};

use super::block::State;
use super::target::Target;
use super::{Engine, OWN_SLOT};
use crate::{SECTOR, to_u32, to_u64, to_usize};

impl<P: Ports, R: Registers, O: Observer> Engine<'_, '_, P, R, O> {
    /// Writes a block on a raw output, if nothing is added to it any more and all of its bytes are
    /// there.
    pub(super) fn write_if_complete(&mut self, index: usize) {
        let block = self.blocks.get(index);
        if block.open || block.waiting > 0 {
            return;
        }
        block.state = State::Complete;
        if matches!(self.target, Target::Raw(_)) {
            self.write_rest(index);
        }
    }

    /// Goes on with a block of which a part has been written, or with one on a raw output that is
    /// complete: declares the zeros up to the next data, and writes that data.
    pub(super) fn write_rest(&mut self, index: usize) {
        loop {
            let block = self.blocks.get(index);
            let (start, given, rest) = (block.start, block.given, block.len - block.given);
            if rest == 0 {
                block.state = State::Written;
                return;
            }
            let at = start + to_u64(given);
            let bytes = self.pool.bytes(block.place.offset() + given, rest);
            let (len, zeros) = match &mut self.target {
                Target::Raw(zeros) if zeros.are_taken() => {
                    let stretch = Search::HOLES.stretch(at, bytes);
                    (stretch.len, stretch.zero.then_some(zeros))
                }
                _ => (rest, None),
            };
            let Some(zeros) = zeros else {
                self.write(index, given..given + len, at);
                return;
            };
            zeros.found(at, to_u64(len));
            block.given += len;
        }
    }

    /// Gives complete blocks their places, in their order, and makes the other requests that the
    /// output needs. Returns true if it has done anything.
    pub(super) fn place(&mut self) -> Result<bool, Failure> {
        let mut any = false;
        loop {
            let composed = self.next == self.size;
            let written = self.blocks.is_empty();
            if let Some(request) = self.target.request(self.pool, composed, written)? {
                self.disks.submit_write(OWN_SLOT, request);
                any = true;
            }
            let Target::Qcow2(tables) = &mut self.target else {
                return Ok(any);
            };
            if !tables.are_ready() {
                return Ok(any);
            }
            let Some(index) = self.blocks.next_unplaced() else {
                return Ok(any);
            };
            any = true;
            let block = self.blocks.get(index);
            let bytes = self.pool.bytes(block.place.offset(), block.len);
            let Some(clusters) = clusters_with_data(bytes) else {
                block.state = State::Written;
                continue;
            };
            let first = block.start / CLUSTER + clusters.start;
            let at = tables.place(first, clusters.end - clusters.start)?;
            let bytes = to_usize(clusters.start * CLUSTER)..to_usize(clusters.end * CLUSTER);
            self.write(index, bytes, at);
            // The clusters behind these are zeros.
            let block = self.blocks.get(index);
            block.given = block.len;
        }
    }

    /// Writes these `bytes` of a block to the offset `at` of the output, filled up to a whole
    /// sector. Bytes behind the end of the block are zero.
    fn write(&mut self, index: usize, bytes: Range<usize>, at: u64) {
        let block = self.blocks.get(index);
        block.state = State::Writing;
        let (offset, len) = (block.place.offset(), block.len);
        block.given = bytes.end.min(len);
        let bytes = bytes.start..bytes.end.next_multiple_of(to_usize(SECTOR));
        if bytes.end > len {
            self.pool.bytes_mut(offset + len, bytes.end - len).fill(0);
        }
        let request = Request {
            kind: Kind::Write,
            sector: at / SECTOR,
            address: self.pool.address(offset + bytes.start),
            len: to_u32(bytes.len()),
        };
        let slot = u16::try_from(index).unwrap_or(u16::MAX);
        self.disks.submit_write(slot, request);
    }
}

/// The numbers of the clusters of `bytes` from the first to the last that is not all zeros.
fn clusters_with_data(bytes: &[u8]) -> Option<Range<u64>> {
    let mut clusters = bytes.chunks(to_usize(CLUSTER));
    let first = clusters.position(|cluster| !is_zero(cluster))?;
    let more = clusters.rposition(|cluster| !is_zero(cluster));
    let last = more.map_or(first, |more| first + 1 + more);
    Some(to_u64(first)..to_u64(last + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_before_and_behind_the_data_have_no_place() {
        let size = to_usize(CLUSTER);
        let mut bytes = vec![0; 4 * size + 100];
        assert_eq!(clusters_with_data(&bytes), None);
        bytes[4 * size + 99] = 1;
        assert_eq!(clusters_with_data(&bytes), Some(4..5));
        bytes[size] = 1;
        assert_eq!(clusters_with_data(&bytes), Some(1..5));
        bytes[4 * size + 99] = 0;
        assert_eq!(clusters_with_data(&bytes), Some(1..2));
        bytes[0] = 1;
        assert_eq!(clusters_with_data(&bytes), Some(0..2));
        assert_eq!(clusters_with_data(&[]), None);
    }
}
