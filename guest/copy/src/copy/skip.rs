//! Which parts of the input are read: the pieces that the data consists of. The holes between them
//! are declared to the output, and are neither read nor written.
//!
//! The list of the data comes with the configuration. It is only ever rounded so that there is more
//! to read.

use alloc::vec;
use alloc::vec::Vec;
use core::iter;
use core::ops::Range;

use guest_kit::virtio::block::{WIRE_SECTOR, ZeroLimits};
use guest_protocol::{DataList, MAX_DATA_RANGES};

use super::plan::{Piece, Plan};

/// A stretch of data without a hole in it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stretch {
    /// Where it lies on both disks, in bytes.
    range: Range<u64>,
    /// The index of its first piece.
    first: u64,
}

/// The pieces of a copy and the holes between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    plan: Plan,
    stretches: Vec<Stretch>,
    /// What is dealt with when all holes and stretches are, in bytes of the output.
    end: u64,
    pieces: u64,
}

impl Selection {
    /// How many bytes of the heap one takes at the most.
    pub const LARGEST: usize = MAX_DATA_RANGES * size_of::<Stretch>();

    /// A copy that reads everything.
    #[must_use]
    pub fn everything(plan: Plan) -> Self {
        let range = 0..plan.input().len;
        Self {
            plan,
            end: range.end,
            stretches: vec![Stretch { range, first: 0 }],
            pieces: plan.pieces(),
        }
    }

    /// A copy that reads what `list` names.
    #[must_use]
    pub fn new(plan: Plan, list: &DataList<'_>) -> Self {
        let (input, output) = (plan.input(), plan.output());
        let block = u64::from(plan.block());
        // All at once: a list that grows would need the room twice.
        let mut stretches: Vec<Stretch> = Vec::with_capacity(list.ranges(input.len).count());
        let (mut end, mut pieces) = (0, 0);
        for range in list.ranges(input.len) {
            let start = (range.start - range.start % block).max(end);
            let behind = range.end.next_multiple_of(block).min(input.len);
            if behind <= start {
                continue;
            }
            match stretches.last_mut() {
                Some(last) if start == end => last.range.end = behind,
                _ => stretches.push(Stretch {
                    range: start..behind,
                    first: 0,
                }),
            }
            end = behind;
        }
        for stretch in &mut stretches {
            stretch.first = pieces;
            let len = stretch.range.end - stretch.range.start;
            pieces += len.div_ceil(u64::from(plan.request_size()));
        }
        if end < input.len {
            // What the output's last sector has beyond the input is zero as well.
            let filled = input.len.next_multiple_of(u64::from(output.sector));
            end = filled.min(output.len);
        }
        Self {
            plan,
            stretches,
            end,
            pieces,
        }
    }

    /// How many pieces there are.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.pieces
    }

    /// The piece with this index, less than [`Selection::count`].
    #[must_use]
    pub fn piece(&self, index: u64) -> Piece {
        let behind = self
            .stretches
            .partition_point(|stretch| stretch.first <= index);
        let Some(stretch) = self.stretches.get(behind.saturating_sub(1)) else {
            return self.plan.cut(self.plan.input().len, 0);
        };
        let size = u64::from(self.plan.request_size());
        let offset = stretch.range.start + (index - stretch.first) * size;
        let left = stretch.range.end.saturating_sub(offset);
        let len = u32::try_from(left).map_or(self.plan.request_size(), |left| {
            left.min(self.plan.request_size())
        });
        self.plan
            .cut(offset, len.next_multiple_of(self.plan.block()))
    }

    /// How far the copy is when the pieces before `index` are done, in bytes of the input: up to
    /// where that piece begins.
    #[must_use]
    pub fn reached(&self, index: u64) -> u64 {
        if index < self.pieces {
            self.piece(index).offset
        } else {
            self.plan.input().len
        }
    }

    /// The parts of the output, in bytes, that are zero: whole sectors.
    pub fn holes(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let starts = self.stretches.iter().map(|stretch| stretch.range.start);
        let ends = self.stretches.iter().map(|stretch| stretch.range.end);
        let holes = iter::once(0).chain(ends).zip(starts.chain([self.end]));
        holes
            .map(|(start, end)| start..end)
            .filter(|hole| hole.start < hole.end)
    }

    /// The holes in parts that a device with these limits takes: first sector on the wire, and how
    /// many.
    pub fn zeroes(&self, limits: ZeroLimits) -> impl Iterator<Item = (u64, u32)> + '_ {
        let unit = u64::from(WIRE_SECTOR);
        let block = u64::from(self.plan.block()) / unit;
        let most = u64::from(limits.sectors) / block * block;
        self.holes().flat_map(move |hole| {
            let (mut at, end) = (hole.start / unit, hole.end / unit);
            iter::from_fn(move || {
                let len = u32::try_from((end - at).min(most)).unwrap_or(u32::MAX);
                let part = (len > 0).then_some((at, len));
                at += u64::from(len);
                part
            })
        })
    }
}

#[cfg(test)]
#[path = "skip_tests.rs"]
mod tests;
