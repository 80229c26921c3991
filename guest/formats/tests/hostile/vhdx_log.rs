//! Logs of VHDX images that lie.

use guest_formats::{Content, Image, Options, Reason, inspect};

use super::vhdx::{MIB, headers, sealed};
use super::{judge, spoilt};
use crate::support::Put::{Data, Hole};
use crate::support::bytes::{le32, le64, put};
use crate::support::vhdx::{self, Vhdx};
use crate::support::{disk, open};

#[test]
fn logs_that_lie_are_refused() {
    let mut image = Vhdx::new(&[Data, Hole, Data], 1 << 20, 3 << 20);
    image.bat_in_log = true;
    let good = image.build();
    let log = 1 << 20;
    // The entries are at 0 and 8192 of the log; each has a sector of descriptors, one of data.
    let second = log + 8192;
    let entry = |b: &mut Vec<u8>, change: &dyn Fn(&mut Vec<u8>)| {
        sealed(b, second, 8192, change);
    };
    let judge = |name, change: &dyn Fn(&mut Vec<u8>), reason| {
        judge(
            name,
            &spoilt(&good, |b| change(b)),
            &Options::default(),
            Some(reason),
        );
    };
    judge(
        "another sequence in the data",
        &|b| entry(b, &|b| b[second + 4096 + 4] = 1),
        Reason::BadLog,
    );
    judge(
        "no data",
        &|b| entry(b, &|b| b[second + 4096] = 0),
        Reason::BadLog,
    );
    judge(
        "an unaligned target",
        &|b| entry(b, &|b| b[second + 80] = 1),
        Reason::BadLog,
    );
    judge(
        "a target in the headers",
        &|b| entry(b, &|b| le64(b, second + 80, 4096)),
        Reason::BadLog,
    );
    judge(
        "an unknown descriptor",
        &|b| entry(b, &|b| b[second + 64] = 0),
        Reason::BadLog,
    );
    judge(
        "a longer file",
        &|b| entry(b, &|b| le64(b, second + 48, 1 << 40)),
        Reason::Truncated,
    );
    // Without its last entry the log ends with the one before, whose BAT makes no sense.
    judge(
        "a wrong checksum",
        &|b| b[second + 100] ^= 1,
        Reason::ReservedBits,
    );
    judge(
        "2^32 - 1 descriptors",
        &|b| entry(b, &|b| le32(b, second + 24, u32::MAX)),
        Reason::ReservedBits,
    );
    judge(
        "4 GiB",
        &|b| entry(b, &|b| le32(b, second + 8, 0xffff_f000)),
        Reason::ReservedBits,
    );
    // An entry that says it zeroes everything: the BAT is gone, and no block was.
    let zeroes = |b: &mut Vec<u8>| {
        entry(b, &|b| {
            put(b, second + 64, b"zero");
            le64(b, second + 72, MIB);
        });
    };
    let bytes = spoilt(&good, zeroes);
    let read = disk(&bytes, &Options::default()).unwrap();
    assert!(read.iter().all(|byte| *byte == 0));
    judge(
        "zeroes of half a sector",
        &|b| {
            entry(b, &|b| {
                put(b, second + 64, b"zero");
                le64(b, second + 72, 100);
            });
        },
        Reason::BadLog,
    );
    // The last one points before the first that is whole.
    judge(
        "a tail that is gone",
        &|b| b[log + 100] ^= 1,
        Reason::BadLog,
    );
}

#[test]
fn a_log_that_changes_a_data_block_is_refused_where_the_block_is_read() {
    let good = Vhdx::new(&[Hole, Data], 1 << 20, 2 << 20).build();
    let bytes = spoilt(&good, |b| {
        headers(b, |b, at| put(b, at + 48, &vhdx::LOG_GUID));
        vhdx::log_entry(b, 0, 0, 1, &[(4 << 20, &[0x11; 4096])]);
    });
    judge(
        "data",
        &bytes,
        &Options::default(),
        Some(Reason::LogTouchesData),
    );
    let mut opened = open(&bytes).unwrap();
    assert!(opened.map(&mut &bytes[..], 0).is_ok());
}

#[test]
fn a_full_log_of_entries_that_lead_nowhere_is_gone_over_in_bounded_time() {
    let mut image = Vhdx::new(&[Data], 1 << 20, 1 << 20);
    image.bat_in_log = true;
    let mut bytes = image.build();
    let sector = [0x11; 4096];
    for index in 0..128 {
        let number = 100 + index as u64;
        // Each follows the one before, and all point at an entry that is not there.
        vhdx::log_entry(
            &mut bytes,
            index * 8192,
            4096,
            number,
            &[(5 << 20, &sector)],
        );
    }
    judge("no tail", &bytes, &Options::default(), Some(Reason::BadLog));
}

#[test]
fn a_ring_of_entries_is_replayed_across_its_end() {
    let mut image = Vhdx::new(&[Data, Hole], 1 << 20, 2 << 20);
    image.bat_in_log = true;
    let good = image.build();
    let bat = {
        // What the second entry of the log writes, as a reader sees it.
        let log = 1 << 20;
        let mut bat = good[log + 8192 + 4096..log + 8192 + 8192].to_vec();
        bat[..8].copy_from_slice(&good[log + 8192 + 72..log + 8192 + 80]);
        bat[4092..].copy_from_slice(&good[log + 8192 + 68..log + 8192 + 72]);
        bat
    };
    let bytes = spoilt(&good, |b| {
        put(b, 1 << 20, &[0; 16384]);
        let last = (1 << 20) - 8192;
        vhdx::log_entry(b, last, last as u32, 7, &[(3 << 20, &[0xdd; 4096])]);
        vhdx::log_entry(b, 0, last as u32, 8, &[(3 << 20, &bat)]);
    });
    judge("a ring", &bytes, &Options::default(), None);
    assert!(disk(&bytes, &Options::default()).unwrap() == image.disk);
    let mut opened = open(&bytes).unwrap();
    let hole = opened.map(&mut &bytes[..], 1 << 20).unwrap();
    assert_eq!(hole.content, Content::Zero);
}

#[test]
fn a_log_of_more_changes_than_are_kept_is_refused() {
    let good = Vhdx::new(&[Hole], 1 << 20, 1 << 20).build();
    for (entries, expected) in [(32, None), (33, Some(Reason::LogTooLong))] {
        let bytes = spoilt(&good, |b| {
            headers(b, |b, at| put(b, at + 48, &vhdx::LOG_GUID));
            for index in 0..entries {
                let mut entry = vec![0; 4096];
                put(&mut entry, 0, b"loge");
                le32(&mut entry, 8, 4096);
                le64(&mut entry, 16, index + 1);
                le32(&mut entry, 24, 126);
                put(&mut entry, 32, &vhdx::LOG_GUID);
                for zero in 0..126 {
                    let at = 64 + zero * 32;
                    put(&mut entry, at, b"zero");
                    le64(&mut entry, at + 8, 4096);
                    let sector = index * 126 + zero as u64;
                    le64(&mut entry, at + 16, 5 * MIB + sector * 4096);
                    le64(&mut entry, at + 24, index + 1);
                }
                vhdx::seal(&mut entry, 0, 4096);
                put(b, (1 << 20) + index as usize * 4096, &entry);
            }
        });
        judge("many changes", &bytes, &Options::default(), expected);
    }
}

/// One entry of the log that zeroes `count` sectors one by one, `different` of them.
fn zeroes(bytes: &mut Vec<u8>, count: usize, different: usize) {
    headers(bytes, |b, at| put(b, at + 48, &vhdx::LOG_GUID));
    let length = (64 + count * 32).next_multiple_of(4096);
    let mut entry = vec![0; length];
    put(&mut entry, 0, b"loge");
    le32(&mut entry, 8, length as u32);
    le64(&mut entry, 16, 1);
    le32(&mut entry, 24, count as u32);
    put(&mut entry, 32, &vhdx::LOG_GUID);
    for index in 0..count {
        let at = 64 + index * 32;
        put(&mut entry, at, b"zero");
        le64(&mut entry, at + 8, 4096);
        le64(
            &mut entry,
            at + 16,
            5 * MIB + (index % different) as u64 * 8192,
        );
        le64(&mut entry, at + 24, 1);
    }
    vhdx::seal(&mut entry, 0, length);
    put(bytes, 1 << 20, &entry);
}

#[test]
fn a_log_of_small_changes_takes_few_reads_and_too_many_of_them_are_refused() {
    let good = Vhdx::new(&[Hole], 1 << 20, 1 << 20).build();
    let long = Some(Reason::LogTooLong);
    for (count, different, expected) in [
        (16_384, 1, None),
        (16_384, 4096, None),
        (16_384, 4097, long),
        (16_385, 1, long),
        (32_764, 4095, long),
    ] {
        let bytes = spoilt(&good, |b| zeroes(b, count, different));
        judge("small changes", &bytes, &Options::default(), expected);
        let mut source = crate::support::Counting::new(&bytes);
        inspect(&mut source, &Options::default()).unwrap();
        // Each 32 KiB are read for the checksum when the entry is found and when it is taken, and
        // the descriptors once more.
        let pieces = (64 + count as u64 * 32).div_ceil(32 << 10);
        let most = 3 * pieces + 100;
        assert!(source.reads < most, "{count}: {} reads", source.reads);
    }
}

#[test]
fn a_sector_that_changes_often_is_one_change() {
    let mut image = Vhdx::new(&[Data, Hole], 1 << 20, 2 << 20);
    image.bat_in_log = true;
    let good = image.build();
    let log = 1 << 20;
    let bytes = spoilt(&good, |b| {
        // The entry that writes the BAT goes behind 100 that write nonsense.
        let last = b[log + 8192..log + 16384].to_vec();
        for index in 0..100 {
            vhdx::log_entry(
                b,
                index * 8192,
                0,
                1 + index as u64,
                &[(3 << 20, &[0xdd; 4096])],
            );
        }
        put(b, log + 100 * 8192, &last);
        let at = log + 100 * 8192;
        sealed(b, at, 8192, |b| {
            le64(b, at + 16, 101);
            le64(b, at + 64 + 24, 101);
            le32(b, at + 8188, 101);
        });
    });
    // The checksum is over the entry alone, wherever it lies.
    let bytes = spoilt(&bytes, |b| {
        let at = log + 100 * 8192;
        let mut entry = b[at..at + 8192].to_vec();
        vhdx::seal(&mut entry, 0, 8192);
        put(b, at, &entry);
    });
    judge("a busy BAT", &bytes, &Options::default(), None);
    assert!(disk(&bytes, &Options::default()).unwrap() == image.disk);
    let mut source = crate::support::Counting::new(&bytes);
    let (mut image, _) = Image::open(&mut source, &Options::default()).unwrap();
    let before = source.reads;
    image.map(&mut source, 0).unwrap();
    assert!(
        source.reads - before <= 2,
        "{} reads",
        source.reads - before
    );
}
