//! Pieces and holes for any list and any sector sizes.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::copy::plan::DiskShape;

fn sector() -> impl Strategy<Value = u32> {
    (9_u32..=16).prop_map(|bits| 1 << bits)
}

fn plan(input: u32, output: u32, len: u64, multiple: u32) -> Plan {
    let extent = |sector: u32| DiskShape {
        sector,
        len: len.next_multiple_of(sector.into()),
    };
    let request = multiple * input.max(output);
    Plan::new(extent(input), extent(output), request).unwrap()
}

proptest! {
    #[test]
    fn whatever_the_list_says_each_byte_is_in_one_piece_or_in_one_hole(
        input in sector(),
        output in sector(),
        len in 0_u64..2 << 20,
        multiple in 1_u32..5,
        list in prop::collection::vec(prop_oneof![0_u64..60, Just(u64::MAX)], 0..12),
    ) {
        let plan = plan(input, output, len, multiple);
        let list = DataList::from_message(&list);
        let parts = Selection::new(plan, &list);
        let limits = ZeroLimits { sectors: 300, segments: 1 };
        let pieces = (0..parts.count()).map(|index| parts.piece(index));
        let mut covered: Vec<_> = pieces
            .map(|piece| {
                assert!(piece.read_len > 0 && piece.read_len.is_multiple_of(input));
                assert!(piece.write_len > 0 && piece.write_len.is_multiple_of(output));
                assert!(piece.read_len <= plan.request_size());
                assert!(piece.write_len <= plan.request_size());
                (piece.offset, piece.offset + u64::from(piece.write_len))
            })
            .collect();
        covered.extend(parts.zeroes(limits).map(|(sector, sectors)| {
            assert!(sectors <= 300);
            let (start, len) = (sector * 512, u64::from(sectors) * 512);
            assert!((start | len).is_multiple_of(u64::from(output)));
            (start, start + len)
        }));
        covered.sort_unstable();
        // A device that takes fewer sectors than a block has is not asked.
        prop_assume!(plan.block() <= 300 * 512);
        let mut end = 0;
        for (start, behind) in covered {
            prop_assert_eq!(start, end);
            end = behind;
        }
        prop_assert!(end >= len && end <= plan.output().len);
        for range in list.ranges(plan.input().len) {
            let apart = |hole: Range<u64>| {
                hole.end <= range.start || range.end.min(len) <= hole.start
            };
            prop_assert!(parts.holes().all(apart));
        }
    }

    #[test]
    fn the_copy_reaches_over_the_holes(
        holes in prop::collection::vec(1_u64..50, 1..10),
    ) {
        let lengths: Vec<_> = holes.iter().flat_map(|&hole| [hole, 1]).collect();
        let list = DataList::from_message(&lengths);
        let parts = Selection::new(plan(512, 512, 4 << 20, 256), &list);
        for index in 0..parts.count() {
            let piece = parts.piece(index);
            prop_assert_eq!(parts.reached(index), piece.offset);
        }
        prop_assert_eq!(parts.reached(parts.count()), 4 << 20);
    }
}

#[test]
fn eight_tib_of_nothing_are_a_handful_of_parts() {
    let parts = Selection::new(plan(512, 512, 8 << 40, 256), &DataList::new(&[]));
    let limits = ZeroLimits {
        sectors: u32::MAX,
        segments: 1,
    };
    assert_eq!((parts.count(), parts.zeroes(limits).count()), (0, 5));
    assert_eq!(parts.reached(0), 8 << 40);
}

#[test]
#[cfg_attr(miri, ignore = "28,672 ranges take Miri an hour")]
fn the_longest_list_has_the_room_that_was_made_for_it() {
    let most = MAX_DATA_RANGES as u64;
    let lengths: Vec<_> = (0..most).flat_map(|_| [1, 1]).collect();
    let plan = plan(512, 512, most * 8192, 256);
    let parts = Selection::new(plan, &DataList::from_message(&lengths));
    assert_eq!(
        (parts.count(), parts.holes().count()),
        (most, MAX_DATA_RANGES)
    );
    assert_eq!(
        parts.stretches.capacity() * size_of::<Stretch>(),
        Selection::LARGEST
    );
}
