//! The list of where a disk may have data, as it travels in `VmmConfig.data` or, if it is long, in
//! the guest's memory: lengths of a hole, of data, of a hole and so on, each as a variable-length
//! integer of Protocol Buffers. In this form no two ranges can overlap or be out of order, and a range
//! takes two to five bytes.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::ops::Range;

use prost::encoding::{decode_varint, encode_varint};

/// The unit of the list, in bytes.
pub const DATA_UNIT: u64 = 4096;

/// Most ranges that a list in the guest's memory has: so many the guest that copies has room for.
pub const MAX_DATA_RANGES: usize = 28_672;

/// Ranges of a disk, in units of [`DATA_UNIT`]: no bytes at all, or whole variable-length integers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataList<'a>(Cow<'a, [u8]>);

impl DataList<'static> {
    /// The list of `ranges` of bytes, which are in ascending order and do not overlap. Each is
    /// extended to whole units.
    #[must_use]
    pub fn new(ranges: &[Range<u64>]) -> Self {
        let mut lengths = Lengths::default();
        let mut end = 0;
        for range in ranges {
            let first = (range.start / DATA_UNIT).max(end);
            let behind = range.end.div_ceil(DATA_UNIT);
            if first >= behind {
                continue;
            }
            if first > end || lengths.data == 0 {
                lengths.put();
                lengths.hole = first - end;
            }
            lengths.data += behind - first;
            end = behind;
        }
        lengths.put();
        if lengths.bytes.is_empty() {
            // A list without numbers would say that all is data.
            lengths.bytes.push(0);
        }
        Self(lengths.bytes.into())
    }

    /// The list that says that all may be data.
    #[must_use]
    pub const fn everything() -> Self {
        Self(Cow::Owned(Vec::new()))
    }

    /// The list that a message carries.
    #[must_use]
    pub fn from_message(lengths: &[u64]) -> Self {
        let mut bytes = Vec::new();
        for length in lengths {
            encode_varint(*length, &mut bytes);
        }
        Self(bytes.into())
    }
}

/// A list that is being made: what is put into it already, and the hole and the data behind it that
/// may still grow.
#[derive(Default)]
struct Lengths {
    bytes: Vec<u8>,
    hole: u64,
    data: u64,
}

impl Lengths {
    fn put(&mut self) {
        if self.data > 0 {
            encode_varint(self.hole, &mut self.bytes);
            encode_varint(self.data, &mut self.bytes);
            self.data = 0;
        }
    }
}

impl<'a> DataList<'a> {
    /// The list in `bytes`; `None` if they are not whole integers.
    #[must_use]
    pub fn from_bytes(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes;
        while !rest.is_empty() {
            decode_varint(&mut rest).ok()?;
        }
        Some(Self(bytes.into()))
    }

    /// The list as it lies in memory.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The field of the message.
    #[must_use]
    pub fn to_message(&self) -> Vec<u64> {
        Numbers(&self.0).collect()
    }

    /// How many bytes it takes in a message.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        self.0.len() + 4
    }

    /// The ranges that may have data, in bytes, of a disk of `capacity` bytes: in ascending order,
    /// none of them empty, whatever the list says.
    pub fn ranges(&self, capacity: u64) -> impl Iterator<Item = Range<u64>> + '_ {
        let all = self.0.is_empty().then_some(0..capacity);
        let (mut numbers, mut at) = (Numbers(&self.0), 0_u64);
        let listed = core::iter::from_fn(move || {
            let hole = numbers.next()?.saturating_mul(DATA_UNIT);
            let length = numbers.next().unwrap_or(0).saturating_mul(DATA_UNIT);
            let start = at.saturating_add(hole);
            at = start.saturating_add(length);
            Some(start..at.min(capacity))
        });
        all.into_iter()
            .chain(listed)
            .filter(|range| range.start < range.end)
    }

    /// The holes of a disk of `capacity` bytes: what is between and behind the
    /// [`ranges`](Self::ranges).
    pub fn holes(&self, capacity: u64) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut end = 0;
        let after_last = core::iter::once(capacity..capacity);
        let gaps = self.ranges(capacity).chain(after_last).map(move |range| {
            let gap = end..range.start;
            end = range.end;
            gap
        });
        gaps.filter(|gap| !gap.is_empty())
    }
}

/// The integers of a list, which are whole.
struct Numbers<'a>(&'a [u8]);

impl Iterator for Numbers<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        decode_varint(&mut self.0).ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::single_range_in_vec_init, reason = "lists of ranges are meant")]

    use alloc::vec::Vec;
    use core::ops::Range;

    use super::*;

    fn through(ranges: &[Range<u64>], capacity: u64) -> Vec<Range<u64>> {
        let list = DataList::from_message(&DataList::new(ranges).to_message());
        list.ranges(capacity).collect()
    }

    #[test]
    fn ranges_are_extended_to_whole_units_and_neighbours_joined() {
        assert_eq!(through(&[0..1, 4095..4096], 8192), [0..4096]);
        assert_eq!(through(&[5000..5001, 9000..9001], 1 << 20), [4096..12288]);
        assert_eq!(
            through(&[0..4096, 8192..8200, 40_000..1 << 40], 1 << 40),
            [0..4096, 8192..12_288, 36_864..1 << 40]
        );
    }

    #[test]
    fn a_disk_without_data_is_told_from_one_without_a_list() {
        assert_eq!(through(&[], 1 << 43), []);
        let all: Vec<_> = DataList::everything().ranges(1 << 43).collect();
        assert_eq!(all, [0..1 << 43]);
        assert_eq!(DataList::everything().ranges(0).count(), 0);
    }

    #[test]
    fn holes_are_what_is_not_data() {
        let list = DataList::new(&[4096..8192, 40_960..45_056]);
        let holes: Vec<_> = list.holes(50_000).collect();
        assert_eq!(holes, [0..4096, 8192..40_960, 45_056..50_000]);
        assert_eq!(DataList::everything().holes(50_000).count(), 0);
        assert_eq!(DataList::new(&[]).holes(5).collect::<Vec<_>>(), [0..5]);
    }

    #[test]
    fn no_list_leads_past_the_end_or_backwards() {
        let wild = [u64::MAX, u64::MAX, 1, 2, 0, 0, u64::MAX];
        for lengths in [&wild[..], &[0, u64::MAX], &[1, 1, u64::MAX, 7], &[3]] {
            let list = DataList::from_message(lengths);
            let mut end = 0;
            for range in list.ranges(1_000_000) {
                assert!(end <= range.start && range.start < range.end && range.end <= 1_000_000);
                end = range.end;
            }
        }
    }

    #[test]
    fn a_list_is_the_same_in_memory_and_in_a_message() {
        let list = DataList::new(&[4096..8192, 1 << 40..1 << 41]);
        assert_eq!(DataList::from_bytes(list.bytes()), Some(list.clone()));
        assert_eq!(DataList::from_message(&list.to_message()), list);
        assert_eq!(DataList::from_bytes(&[]), Some(DataList::everything()));
    }

    #[test]
    fn bytes_that_are_not_whole_numbers_are_no_list() {
        for bytes in [&[0x80][..], &[1, 0xff], &[0xff; 11]] {
            assert_eq!(DataList::from_bytes(bytes), None);
        }
    }

    #[test]
    fn the_length_in_a_message_is_not_underestimated() {
        let ranges: Vec<_> = (0..500)
            .map(|n| n * (1 << 30)..n * (1 << 30) + 4096)
            .collect();
        let list = DataList::new(&ranges);
        let message = crate::VmmConfig {
            data: list.to_message(),
            ..Default::default()
        };
        let len = prost::Message::encoded_len(&message);
        assert!(len <= list.encoded_len() && len + 4 > list.encoded_len());
    }
}
