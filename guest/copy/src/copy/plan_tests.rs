//! Pieces and blocks for every pair of sector sizes.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn sector() -> impl Strategy<Value = u32> {
    (9_u32..=16).prop_map(|bits| 1 << bits)
}

/// Whether `pieces` are whole sectors of both disks that cover all of `plan`, once each.
fn covers(plan: &Plan, pieces: impl Iterator<Item = Piece>, start: u64, end: u64) {
    let (input, output) = (plan.input(), plan.output());
    let mut next = start;
    for piece in pieces {
        assert_eq!(piece.offset, next);
        assert!(piece.read_len > 0 && piece.read_len % input.sector == 0);
        assert!(piece.write_len > 0 && piece.write_len % output.sector == 0);
        assert_eq!(piece.offset % u64::from(output.sector), 0);
        let write_end = piece.offset + u64::from(piece.write_len);
        assert!(write_end <= output.len);
        assert!(write_end >= piece.end() || write_end == output.len);
        next = piece.end();
    }
    assert_eq!(next, end);
}

proptest! {
    #[test]
    fn pieces_and_blocks_cover_the_input_in_whole_sectors_of_both_disks(
        input in sector(),
        output in sector(),
        len in 0_u64..1 << 20,
        multiple in 1_u32..5,
    ) {
        // The disks of a file of `len` bytes: each its last sector filled up.
        let extent = |sector: u32| DiskShape { sector, len: len.next_multiple_of(sector.into()) };
        let request = multiple * input.max(output);
        let plan = Plan::new(extent(input), extent(output), request).unwrap();
        let pieces = || (0..plan.pieces()).map(|index| plan.piece(index));
        covers(&plan, pieces(), 0, plan.input().len);
        for piece in pieces() {
            prop_assert!(piece.read_len <= request && piece.write_len <= request);
            covers(&plan, plan.blocks(piece), piece.offset, piece.end());
            let written: u32 = plan.blocks(piece).map(|block| block.write_len).sum();
            prop_assert_eq!(written, piece.write_len);
        }
    }
}

#[test]
fn only_filling_up_of_the_last_input_sector_may_be_lost() {
    let extent = |sector, len| DiskShape { sector, len };
    let plan = |output| Plan::new(extent(4096, 8192), extent(512, output), 4096);
    assert!(plan(8192).is_ok() && plan(4608).is_ok() && plan(1 << 30).is_ok());
    for small in [0, 512, 4096] {
        assert_eq!(plan(small), Err(PlanError::TooSmall(8192, small)));
    }
}

#[test]
fn a_device_that_disagrees_with_the_configuration_is_refused() {
    let device = |capacity, sector_size| BlockConfig {
        capacity,
        sector_size,
        size_max: u32::MAX,
        flush: false,
        zeroes: None,
    };
    let extent = |capacity, sector| DiskShape::new(Side::Input, &device(capacity, 4096), sector);
    assert_eq!(extent(16, 4096).unwrap().sectors(), 2);
    assert_eq!(
        extent(16, 512).unwrap_err().to_string(),
        "the input disk has sectors of 4096 bytes, but the configuration says 512"
    );
    for capacity in [15, u64::MAX] {
        let error = PlanError::Capacity(Side::Input, capacity, 4096);
        assert_eq!(extent(capacity, 4096), Err(error));
    }
}

#[test]
fn the_largest_disk_does_not_overflow() {
    let len = u64::MAX - 511;
    let extent = DiskShape { sector: 512, len };
    let plan = Plan::new(extent, extent, 1 << 20).unwrap();
    let last = plan.piece(plan.pieces() - 1);
    assert_eq!(last.end(), len);
    assert_eq!(plan.blocks(last).last().unwrap().end(), len);
}

#[test]
fn requests_are_as_large_as_both_devices_allow() {
    let device = |size_max| BlockConfig {
        capacity: 0,
        sector_size: 512,
        size_max,
        flush: false,
        zeroes: None,
    };
    let config = Config {
        input_sector: 512,
        output_sector: 4096,
        progress_percent: 0,
        protocol: guest_protocol::Protocol::Protobuf,
        transport: guest_protocol::Transport::Serial,
        request_size: 65536,
        queue_depth: 1,
        sparse: guest_protocol::Sparse::Auto,
        data: guest_protocol::DataList::everything(),
        data_in_pool: 0,
        digest: None,
        verify: false,
    };
    let size = |input, output| request_size(&config, &device(input), &device(output));
    assert_eq!(size(u32::MAX, u32::MAX), Ok(65536));
    assert_eq!(size(u32::MAX, 10_000), Ok(8192));
    assert_eq!(size(4096, u32::MAX), Ok(4096));
    assert_eq!(
        size(4095, 4096),
        Err(PlanError::SizeMax(Side::Input, 4095, 4096))
    );
}
