//! Images in which two table entries have the same bytes of the file. Each entry by itself is one that
//! a reader can follow, so that only a check finds them.

use guest_formats::Options;

use super::{Endless, judge, judge_check, spoilt, surveyed};
use crate::support::Put::{Data, Hole};
use crate::support::bytes::{be32, le32, le64, put};
use crate::support::vdi;
use crate::support::vhd::Vhd;
use crate::support::vhdx::Vhdx;
use crate::support::vmdk::{Vmdk, descriptor};

const MIB: u64 = 1 << 20;

/// A change to an image that makes two things overlap.
type Change = (&'static str, fn(&mut Vec<u8>));

/// Each change is found.
fn judge_overlaps(format: &str, good: &[u8], changes: &[Change]) {
    for (name, change) in changes {
        judge_check(
            &format!("{format}: {name}"),
            &spoilt(good, change),
            "overlap",
        );
    }
}

#[test]
fn blocks_of_a_vdi_that_are_used_twice_are_found() {
    let good = vdi::build(false, &[Data, Hole, Data, Data], 65536, 4 * 65536);
    judge_overlaps(
        "VDI",
        &good,
        &[
            ("one block twice", |b| le32(b, 512 + 8, 0)),
            ("one block for all", |b| {
                (0..4).for_each(|index| le32(b, 512 + index * 4, 1));
            }),
        ],
    );
}

/// The table is at 1536, the first block at sector 4, and a block with its bitmap has 129 sectors.
#[test]
fn blocks_of_a_vhd_that_overlap_are_found() {
    let good = Vhd::new(false, &[Data, Hole, Data, Data], 65536, 4 * 65536).build();
    judge_overlaps(
        "VHD",
        &good,
        &[
            ("one block twice", |b| be32(b, 1536 + 8, 4)),
            ("the last sector of another", |b| be32(b, 1536 + 8, 4 + 128)),
            // A reader that does not look at bitmaps sees nothing of it.
            ("the bitmap of another", |b| be32(b, 1536, 4 + 1)),
        ],
    );
}

/// Tables may have more entries than the disk needs. Here the fourth one is behind its end.
#[test]
fn entries_behind_the_end_of_the_disk_are_looked_at() {
    let mut vhd = Vhd::new(false, &[Data, Hole, Data, Data], 65536, 4 * 65536);
    vhd.size = 3 * 65536;
    let good = vhd.build();
    judge_overlaps("VHD", &good, &[("behind the disk", |b| be32(b, 1548, 4))]);
    let outside = spoilt(&good, |b| be32(b, 1548, 1 << 20));
    judge_check("VHD: outside, behind the disk", &outside, "beyond-end");
    let good = Vmdk::new(false, &[Data, Hole, Data], 65536, 3 << 16).build();
    judge_overlaps(
        "VMDK",
        &good,
        &[("behind the disk", |b| le32(b, 3084, 128))],
    );
    // In a stream its marker has to be there.
    let good = Vmdk::new(true, &[Data, Hole, Data], 65536, 3 << 16).build();
    let entries = good.len() - (3 + 1 + 1 + 4) * 512;
    let stray = spoilt(&good, |b| le32(b, entries + 12, 128));
    judge_check("VMDK: a stream, behind the disk", &stray, "bad-marker");
}

#[test]
fn blocks_of_a_vhdx_that_overlap_are_found() {
    let good = Vhdx::new(&[Data, Hole, Data], 2 << 20, 6 << 20).build();
    judge_overlaps(
        "VHDX",
        &good,
        &[
            ("one block twice", |b| {
                le64(b, (3 << 20) + 16, (4 * MIB) | 6)
            }),
            ("half of another", |b| {
                le64(b, (3 << 20) + 16, (5 * MIB) | 6)
            }),
        ],
    );
}

/// The directory is at sector 5, the table behind it at sector 6, and grains of 128 sectors begin at
/// sector 128. A table has four sectors.
#[test]
fn grains_and_tables_of_a_vmdk_that_overlap_are_found() {
    let good = Vmdk::new(false, &[Data, Hole, Data, Data], 65536, 4 << 16).build();
    judge_overlaps(
        "VMDK",
        &good,
        &[
            ("one grain twice", |b| le32(b, 3072 + 8, 128)),
            // The grain reaches over the end of a window, and is told of once for each entry.
            ("one grain for all", |b| {
                (0..4).for_each(|index| le32(b, 3072 + index * 4, 128));
            }),
            ("the last sector of another", |b| {
                le32(b, 3072 + 8, 128 + 127)
            }),
            ("a grain on its table", |b| le32(b, 3072, 9)),
            ("a table in a grain", |b| {
                let table = b[3072..3072 + 2048].to_vec();
                put(b, (128 + 3) * 512, &table);
                le32(b, 2560, 128 + 3);
            }),
        ],
    );
    // The grains take more than one window of a check with little memory.
    let mut puts = vec![Hole; 1024];
    puts[..40].fill(Data);
    puts[600] = Data;
    let two = Vmdk::new(false, &puts, 4096, 1024 * 4096).build();
    judge_overlaps(
        "VMDK",
        &two,
        &[
            ("one table twice", |b| {
                let first = b[2560..2564].to_vec();
                put(b, 2564, &first);
            }),
            ("half of another table", |b| {
                let first = u32::from_le_bytes(b[2560..2564].try_into().unwrap());
                le32(b, 2564, first + 2);
            }),
        ],
    );
}

/// The directory has so many entries that the first two tables are for one part of the disk as a survey
/// divides it: neither is passed over for what the part takes.
#[test]
fn a_table_that_is_named_twice_is_told_once_wherever_its_grains_lie() {
    const SIZE: u64 = 512 << 30;
    const TABLE: u32 = 512;
    for first in [1024, 20_000_000] {
        let mut vmdk = Vmdk::new(false, &[Hole], 65536, 65536);
        let extent = format!("RW {} SPARSE \"disk.vmdk\"", SIZE / 512);
        vmdk.descriptor = descriptor("monolithicSparse", &extent);
        let mut start = vmdk.build();
        le64(&mut start, 12, SIZE / 512);
        le64(&mut start, 56, 256);
        le64(&mut start, 64, 1024);
        start.resize((TABLE as usize + 4) * 512, 0);
        for index in 0..10 {
            le32(
                &mut start,
                TABLE as usize * 512 + index * 4,
                first + 128 * index as u32,
            );
        }
        for names in 1..4 {
            le32(&mut start, 256 * 512 + (names - 1) * 4, TABLE);
            let mut source = Endless {
                start: &start,
                rest: 0,
                size: (u64::from(first) + 1280) * 512,
            };
            let survey = surveyed(&mut source);
            assert_eq!(survey.faults, names as u64 - 1, "{names} times, {first}");
        }
    }
}

/// A second directory behind the grains, and its one table some sectors further on.
#[test]
fn tables_of_a_second_directory_that_overlap_are_found() {
    const DIRECTORY: u32 = 512;
    const TABLE: u32 = DIRECTORY + 8;
    const END: u32 = DIRECTORY + 129;
    const ENTRY: usize = DIRECTORY as usize * 512;
    let mut good = Vmdk::new(false, &[Data, Hole, Data], 65536, 3 << 16).build();
    good.resize(END as usize * 512, 0);
    good[8] |= 2;
    le32(&mut good, 48, DIRECTORY);
    le32(&mut good, ENTRY, TABLE);
    judge("a second directory", &good, &Options::default(), None);
    judge_overlaps(
        "VMDK",
        &good,
        &[
            ("a grain on a second table", |b| {
                le32(b, 3072, DIRECTORY + 1)
            }),
            ("a second table on the first", |b| le32(b, ENTRY, 6)),
            ("a second table in the descriptor", |b| le32(b, ENTRY, 1)),
        ],
    );
    let outside = spoilt(&good, |b| le32(b, ENTRY, END - 3));
    judge_check("VMDK: a second table outside", &outside, "beyond-end");
}

#[test]
fn compressed_grains_that_overlap_are_found_by_their_markers() {
    let good = Vmdk::new(true, &[Data, Hole, Data], 65536, 3 << 16).build();
    let grain = 128 * 512;
    // It says that it goes on where the other one is.
    let longer = spoilt(&good, |b| {
        let length = u32::from_le_bytes(b[grain + 8..grain + 12].try_into().unwrap());
        le32(b, grain + 8, length + 1024);
    });
    judge_check("a stream: a grain over another", &longer, "overlap");
}
