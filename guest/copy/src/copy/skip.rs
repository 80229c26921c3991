//! What of the input is read and what is not: the pieces that the data consists of, and the holes
//! between them, which are declared to the output and neither read nor written.
//!
//! The list of the data comes with the configuration. It is only ever rounded so that there is more
//! to read.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use guest_kit::virtio::block::{WIRE_SECTOR, ZeroLimits};
use guest_protocol::DataList;

use super::plan::{Piece, Plan};

/// Data that lies together.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    /// In bytes, on both disks.
    range: Range<u64>,
    /// Index of its first piece.
    first: u64,
}

/// The pieces of a copy and the holes between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    plan: Plan,
    runs: Vec<Run>,
    holes: Vec<Range<u64>>,
    pieces: u64,
}

impl Selection {
    /// A copy that reads everything.
    #[must_use]
    pub fn everything(plan: Plan) -> Self {
        let range = 0..plan.input().len;
        Self {
            plan,
            runs: vec![Run { range, first: 0 }],
            holes: Vec::new(),
            pieces: plan.pieces(),
        }
    }

    /// A copy that reads what `list` names.
    #[must_use]
    pub fn new(plan: Plan, list: &DataList) -> Self {
        let (input, output) = (plan.input(), plan.output());
        let block = u64::from(plan.block());
        let mut parts = Self {
            plan,
            runs: Vec::new(),
            holes: Vec::new(),
            pieces: 0,
        };
        let mut end = 0;
        for range in list.ranges(input.len) {
            let start = (range.start - range.start % block).max(end);
            let behind = range.end.next_multiple_of(block).min(input.len);
            if behind <= start {
                continue;
            }
            match parts.runs.last_mut() {
                Some(last) if start == end => last.range.end = behind,
                _ => parts.push(end, start..behind),
            }
            end = behind;
        }
        if end < input.len {
            // What the output's last sector has beyond the input is zero as well.
            let filled = input.len.next_multiple_of(u64::from(output.sector));
            let last = end..filled.min(output.len);
            parts.holes.extend((!last.is_empty()).then_some(last));
        }
        for run in &mut parts.runs {
            run.first = parts.pieces;
            let len = run.range.end - run.range.start;
            parts.pieces += len.div_ceil(u64::from(plan.request_size()));
        }
        parts
    }

    fn push(&mut self, end: u64, range: Range<u64>) {
        self.holes
            .extend((end < range.start).then_some(end..range.start));
        self.runs.push(Run { range, first: 0 });
    }

    /// How many pieces there are.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.pieces
    }

    /// The piece with this index, less than [`Selection::count`].
    #[must_use]
    pub fn piece(&self, index: u64) -> Piece {
        let behind = self.runs.partition_point(|run| run.first <= index);
        let Some(run) = self.runs.get(behind.saturating_sub(1)) else {
            return self.plan.cut(self.plan.input().len, 0);
        };
        let size = u64::from(self.plan.request_size());
        let offset = run.range.start + (index - run.first) * size;
        let left = run.range.end.saturating_sub(offset);
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

    /// Selection of the output, in bytes, that are zero: whole sectors.
    #[must_use]
    pub fn holes(&self) -> &[Range<u64>] {
        &self.holes
    }

    /// The holes in parts that a device with these limits takes: first sector on the wire, and how
    /// many.
    pub fn zeroes(&self, limits: ZeroLimits) -> impl Iterator<Item = (u64, u32)> + '_ {
        let unit = u64::from(WIRE_SECTOR);
        let block = u64::from(self.plan.block()) / unit;
        let most = u64::from(limits.sectors) / block * block;
        self.holes.iter().flat_map(move |hole| {
            let (mut at, end) = (hole.start / unit, hole.end / unit);
            core::iter::from_fn(move || {
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
