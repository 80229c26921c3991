//! Which parts of the file belong to some table entry. There is a bit for each unit of the file,
//! for as many units at once as the memory allows; they are called the window.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use crate::source::to_usize;

/// How many bits a word has.
const WORD: u64 = 64;

/// The units in which blocks or grains of a format can lie in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Units {
    /// The offset of the first unit in the file, in bytes.
    pub(crate) base: u64,
    /// The size of a unit in bytes. A block begins at the first byte of a unit, and nowhere else.
    pub(crate) unit: u64,
}

/// Which units of the window, which begins with the unit `start`, are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claims {
    units: Units,
    /// The length of the file in bytes.
    size: u64,
    start: u64,
    words: Vec<u64>,
    /// The first unit behind the window that some entry takes. The next window begins there.
    next: u64,
    /// The units of the one that has taken the last unit of the window, and goes on behind it.
    last: Option<Range<u64>>,
    /// The same of the window before, until it is met again.
    carried: Option<Range<u64>>,
}

impl Claims {
    /// A window of `window` units, or of all units of a file of `size` bytes if they are fewer.
    pub(super) fn new(units: Units, size: u64, window: u32) -> Self {
        let all = size.saturating_sub(units.base).div_ceil(units.unit);
        let count = u64::from(window.max(1)).min(all.max(1)).div_ceil(WORD);
        Self {
            units,
            size,
            start: 0,
            words: vec![0; to_usize(count)],
            next: u64::MAX,
            last: None,
            carried: None,
        }
    }

    fn end(&self) -> u64 {
        let words = u64::try_from(self.words.len()).unwrap_or(u64::MAX);
        self.start.saturating_add(words.saturating_mul(WORD))
    }

    /// The units in which these bytes lie. Bytes behind the end of the file are left out, since the
    /// last block may be cut off.
    fn units(&self, bytes: &Range<u64>) -> Range<u64> {
        let Units { base, unit } = self.units;
        let end = bytes.end.min(self.size).saturating_sub(base);
        bytes.start.saturating_sub(base) / unit..end.div_ceil(unit)
    }

    /// Whether nothing within `parts`, at whose ends something is taken, can be in the window. Then
    /// another pass is noted as necessary if there is anything behind it.
    pub(super) fn pass_over(&mut self, parts: &[Range<u64>; 2]) -> bool {
        let there = || parts.iter().filter(|part| !part.is_empty());
        let apart = there().all(|part| {
            let units = self.units(part);
            units.start >= self.end() || units.end <= self.start
        });
        if apart {
            there().for_each(|part| {
                self.concerns(part);
            });
        }
        apart
    }

    /// Whether any of these bytes are in the window. If some are behind it, another pass is noted
    /// as necessary.
    pub(super) fn concerns(&mut self, bytes: &Range<u64>) -> bool {
        let units = self.units(bytes);
        if units.end > self.end() {
            self.next = self.next.min(units.start.max(self.end()));
        }
        units.start < self.end() && units.end > self.start
    }

    /// Whether the first of these bytes is in the window.
    pub(super) fn begins_here(&self, bytes: &Range<u64>) -> bool {
        (self.start..self.end()).contains(&self.units(bytes).start)
    }

    /// Takes the units of these bytes that are in the window. Returns false at the first one that
    /// was taken before, and leaves the rest alone: an image whose entries all name the same large
    /// block must not cost the work for the block each time.
    ///
    /// Of what begins before the window only the one that has taken the unit right before it goes on
    /// here: of those that take the same, the first. The others were told of in the window before.
    pub(super) fn take(&mut self, bytes: &Range<u64>) -> bool {
        let units = self.units(bytes);
        let goes_on = |carried: &mut Range<u64>| *carried == units;
        if units.start < self.start && self.carried.take_if(goes_on).is_none() {
            return true;
        }
        let (mut from, to) = (units.start.max(self.start), units.end.min(self.end()));
        while from < to {
            let within = from % WORD;
            let count = (WORD - within).min(to - from);
            let mask = (u64::MAX >> (WORD - count)) << within;
            let index = to_usize((from - self.start) / WORD);
            let Some(word) = self.words.get_mut(index) else {
                break;
            };
            if *word & mask != 0 {
                return false;
            }
            *word |= mask;
            from += count;
        }
        if units.end > self.end() {
            self.last = Some(units);
        }
        true
    }

    /// Moves the window on to the next unit that some entry takes. Returns false if there is none.
    pub(super) fn advance(&mut self) -> bool {
        if self.next == u64::MAX {
            return false;
        }
        self.start = self.next / WORD * WORD;
        self.next = u64::MAX;
        self.carried = self.last.take();
        self.words.fill(0);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTORS: Units = Units { base: 0, unit: 512 };

    #[test]
    fn what_is_taken_twice_is_told_wherever_it_begins() {
        let mut claims = Claims::new(SECTORS, 1 << 20, 4096);
        assert!(claims.take(&(512..65536)));
        assert!(claims.take(&(0..512)));
        assert!(claims.take(&(65536..(1 << 20))));
        for twice in [0..1, 511..513, 65535..65537, 1024..32768, 0..1 << 20] {
            assert!(!claims.take(&twice), "{twice:?}");
        }
        assert!(!claims.advance());
    }

    #[test]
    fn the_window_goes_on_to_what_is_taken_and_leaves_out_the_rest() {
        let mut claims = Claims::new(SECTORS, 1 << 40, 64);
        assert!(claims.concerns(&(0..512)) && !claims.concerns(&(1 << 30..1 << 31)));
        assert!(
            claims.concerns(&(63 * 512..65 * 512)) && claims.begins_here(&(63 * 512..65 * 512))
        );
        assert!(claims.take(&(63 * 512..65 * 512)));
        // A block that reaches beyond the end of the window is met again in the next one.
        assert!(claims.advance());
        assert!(
            claims.concerns(&(63 * 512..65 * 512)) && !claims.begins_here(&(63 * 512..65 * 512))
        );
        assert!(claims.take(&(63 * 512..65 * 512)) && !claims.take(&(64 * 512..65 * 512)));
        // What was told of in the window before is not told of again, and takes nothing.
        assert!(claims.take(&(63 * 512..65 * 512)) && claims.take(&(62 * 512..70 * 512)));
        assert!(claims.take(&(65 * 512..70 * 512)));
        assert!(!claims.concerns(&(1 << 30..1 << 31)));
        assert!(claims.advance());
        assert!(claims.concerns(&(1 << 30..1 << 31)) && claims.take(&(1 << 30..1 << 31)));
    }

    #[test]
    fn units_begin_where_the_format_says() {
        let units = Units {
            base: 1000,
            unit: 300,
        };
        let mut claims = Claims::new(units, 10_000, 64);
        assert!(claims.take(&(1300..1600)) && claims.take(&(1000..1300)));
        assert!(claims.take(&(1600..1601)) && !claims.take(&(1899..1900)));
    }
}
