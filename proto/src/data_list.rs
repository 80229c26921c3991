//! The list of where a disk may have data, as it travels in `VmmConfig.data`: lengths of a hole, of
//! data, of a hole and so on. In this form no two ranges can overlap or be out of order, and a range
//! takes four or five bytes of a frame that has 4096.

use alloc::vec::Vec;
use core::ops::Range;

use prost::encoding::encoded_len_varint;

/// The unit of the list, in bytes.
pub const DATA_UNIT: u64 = 4096;

/// Ranges of a disk, in units of [`DATA_UNIT`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataList(Vec<u64>);

impl DataList {
    /// The list of `ranges` of bytes, which are in ascending order and do not overlap. Each is
    /// extended to whole units.
    #[must_use]
    pub fn new(ranges: &[Range<u64>]) -> Self {
        let mut lengths = Vec::with_capacity(2 * ranges.len());
        let mut end = 0;
        for range in ranges {
            let first = (range.start / DATA_UNIT).max(end);
            let behind = range.end.div_ceil(DATA_UNIT);
            if first >= behind {
                continue;
            }
            match lengths.last_mut() {
                Some(last) if first == end => *last += behind - first,
                _ => lengths.extend([first - end, behind - first]),
            }
            end = behind;
        }
        if lengths.is_empty() {
            // A list without numbers would say that all is data.
            lengths.push(0);
        }
        Self(lengths)
    }

    /// The list that says that all may be data.
    #[must_use]
    pub const fn everything() -> Self {
        Self(Vec::new())
    }

    /// The list that a message carries.
    #[must_use]
    pub const fn from_message(lengths: Vec<u64>) -> Self {
        Self(lengths)
    }

    /// The field of the message.
    #[must_use]
    pub fn to_message(&self) -> Vec<u64> {
        self.0.clone()
    }

    /// How many bytes it takes in a message.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let lengths = self.0.iter().copied();
        lengths.map(encoded_len_varint).sum::<usize>() + 4
    }

    /// The ranges that may have data, in bytes, of a disk of `capacity` bytes: in ascending order,
    /// none of them empty, whatever the list says.
    pub fn ranges(&self, capacity: u64) -> impl Iterator<Item = Range<u64>> + '_ {
        let all = self.0.is_empty().then_some(0..capacity);
        let mut at = 0_u64;
        let listed = self.0.chunks(2).filter_map(move |pair| {
            let start = at.saturating_add(pair[0].saturating_mul(DATA_UNIT));
            let length = pair.get(1).copied().unwrap_or(0).saturating_mul(DATA_UNIT);
            at = start.saturating_add(length);
            Some(start..at.min(capacity)).filter(|range| range.start < range.end)
        });
        all.into_iter()
            .chain(listed)
            .filter(|range| range.start < range.end)
    }
}

impl DataList {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::single_range_in_vec_init, reason = "lists of ranges are meant")]

    use alloc::vec;
    use alloc::vec::Vec;
    use core::ops::Range;

    use super::*;

    fn through(ranges: &[Range<u64>], capacity: u64) -> Vec<Range<u64>> {
        let list = DataList::from_message(DataList::new(ranges).to_message());
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
        for lengths in [
            wild.to_vec(),
            vec![0, u64::MAX],
            vec![1, 1, u64::MAX, 7],
            vec![3],
        ] {
            let list = DataList::from_message(lengths);
            let mut end = 0;
            for range in list.ranges(1_000_000) {
                assert!(end <= range.start && range.start < range.end && range.end <= 1_000_000);
                end = range.end;
            }
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
