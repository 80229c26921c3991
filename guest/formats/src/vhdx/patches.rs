//! The changes that a log makes to the file, and the file as a reader sees it once they are made.
//!
//! They are sorted by the place that they change, and no two of them change the same byte, so that
//! the changes of any part of the file are found without going through all of them. At most
//! [`MOST_PATCHES`] are kept, of 40 bytes each.

use alloc::vec::Vec;

use crate::error::{Error, ensure};
use crate::reason::Reason;
use crate::source::{ReadAt, ReadError, len64, to_usize};
use crate::span::Span;

/// The most changes that are kept. A log of 16 MiB has no more sectors.
pub const MOST_PATCHES: usize = 4096;

/// The changes that the log makes.
#[derive(Debug, Default)]
pub(super) struct Log {
    patches: Vec<Patch>,
    /// The offset behind the last byte of the file that it changes.
    end: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Patch {
    /// The part of the file that is changed.
    target: Span,
    content: Change,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Zero,
    /// The sector has new data. Its first eight and its last four bytes are in the descriptor,
    /// since the log has signatures and numbers in their place. The rest is in the file at `at`.
    Sector {
        at: u64,
        leading: [u8; 8],
        trailing: [u8; 4],
    },
}

impl Log {
    pub(super) fn is_empty(&self) -> bool {
        self.patches.is_empty()
    }

    /// The changes of the bytes from `start` to `end`: which of the list they are.
    fn range(&self, start: u64, end: u64) -> core::ops::Range<usize> {
        let first = self.patches.partition_point(|p| p.target.end <= start);
        let behind = self.patches.partition_point(|p| p.target.start < end);
        first..behind.max(first)
    }

    /// Whether the log changes any byte of the file from `start` to `end`.
    pub(super) fn touches(&self, start: u64, end: u64) -> bool {
        !self.range(start, end).is_empty()
    }

    /// Adds a change, whose descriptor lies at `place` in the file. What it covers of earlier ones
    /// is forgotten, so that a sector that was changed many times takes the room of one change. All
    /// changes begin and end at a sector, so that one that has data is covered as a whole or not at
    /// all, and what is left of others is zeros.
    pub(super) fn add(&mut self, target: Span, content: Change, place: u64) -> Result<(), Error> {
        if target.start == target.end {
            return Ok(());
        }
        let covered = self.range(target.start, target.end);
        let old = self.patches.get(covered.clone()).unwrap_or_default();
        let part = |patch: &Patch, start: u64, end: u64| {
            (start < end).then_some(Patch {
                target: Span { start, end },
                ..*patch
            })
        };
        let before = old.first();
        let before = before.and_then(|patch| part(patch, patch.target.start, target.start));
        let behind = old.last();
        let behind = behind.and_then(|patch| part(patch, target.end, patch.target.end));
        let parts = [before, Some(Patch { target, content }), behind];
        let parts = parts.into_iter().flatten();
        let kept = self.patches.len() - covered.len() + parts.clone().count();
        ensure(
            kept <= MOST_PATCHES,
            Reason::LogTooLong,
            place,
            target.start,
        )?;
        self.patches.splice(covered, parts);
        self.end = self.end.max(target.end);
        Ok(())
    }

    /// The file as it would be after a replay.
    pub(super) fn over<'a>(&'a self, source: &'a mut dyn ReadAt) -> Patched<'a> {
        Patched { log: self, source }
    }
}

/// A file as a reader sees it once the changes of the log are made.
pub(super) struct Patched<'a> {
    log: &'a Log,
    source: &'a mut dyn ReadAt,
}

impl ReadAt for Patched<'_> {
    fn size(&self) -> u64 {
        self.log.end.max(self.source.size())
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let there = self.source.size().saturating_sub(offset);
        let there = to_usize(there).min(buffer.len());
        let (stored, behind) = buffer.split_at_mut(there);
        if !stored.is_empty() {
            self.source.read_at(offset, stored)?;
        }
        behind.fill(0);
        let end = offset.saturating_add(len64(buffer));
        let changes = self.log.patches.get(self.log.range(offset, end));
        for patch in changes.unwrap_or_default() {
            let start = patch.target.start.max(offset);
            let last = patch.target.end.min(end);
            let piece = to_usize(start - offset)..to_usize(last - offset);
            let piece = buffer.get_mut(piece).ok_or(ReadError)?;
            match patch.content {
                Change::Zero => piece.fill(0),
                Change::Sector {
                    at,
                    leading,
                    trailing,
                } => {
                    let mut sector = [0; 4096];
                    self.source.read_at(at, &mut sector)?;
                    sector[..8].copy_from_slice(&leading);
                    sector[4092..].copy_from_slice(&trailing);
                    let from = to_usize(start - patch.target.start);
                    let bytes = sector.get(from..from + piece.len()).ok_or(ReadError)?;
                    piece.copy_from_slice(bytes);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const SECTOR: u64 = 4096;

    fn region(first: u64, sectors: u64) -> Span {
        Span {
            start: first * SECTOR,
            end: (first + sectors) * SECTOR,
        }
    }

    fn data(at: u64) -> Change {
        Change::Sector {
            at,
            leading: [1; 8],
            trailing: [2; 4],
        }
    }

    #[test]
    fn changes_stay_sorted_and_apart_whatever_covers_what() {
        let mut log = Log::default();
        // What each sector has in the end: the number of the last change that covers it.
        let mut model = [None; 64];
        let mut state = 1_u64;
        for number in 0..2000_u64 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let first = (state >> 33) % 64;
            let (sectors, content) = match (state >> 60) % 2 {
                0 => (1, data(number)),
                _ => ((state >> 40) % (65 - first), Change::Zero),
            };
            log.add(region(first, sectors), content, 0).unwrap();
            (first..first + sectors).for_each(|at| model[to_usize(at)] = Some(content));
            let ends = log.patches.windows(2);
            assert!(
                ends.into_iter()
                    .all(|two| two[0].target.end <= two[1].target.start)
            );
            for (at, expected) in (0..).zip(model) {
                let there = log.range(at * SECTOR, (at + 1) * SECTOR);
                let found = log.patches[there].first().map(|patch| patch.content);
                assert_eq!(found, expected, "sector {at} after change {number}");
                assert_eq!(
                    log.touches(at * SECTOR + 1, at * SECTOR + 2),
                    expected.is_some()
                );
            }
        }
    }

    #[test]
    fn no_more_changes_are_kept_than_there_is_room_for() {
        let mut log = Log::default();
        let most = u64::try_from(MOST_PATCHES).unwrap();
        for number in 0..most {
            log.add(region(number * 2, 1), data(number), 0).unwrap();
        }
        // One that covers an old one has its room, and one that is new has none.
        log.add(region(0, 1), data(0), 0).unwrap();
        let error = log.add(region(1, 1), Change::Zero, 7).unwrap_err();
        assert_eq!(error, Error::refused(Reason::LogTooLong, 7, SECTOR));
        log.add(region(0, 2 * most), Change::Zero, 0).unwrap();
        assert_eq!(log.patches.len(), 1);
        log.add(region(5, 0), Change::Zero, 0).unwrap();
        log.add(region(5, 1), data(1), 0).unwrap();
        assert_eq!(log.patches.len(), 3);
    }
}
