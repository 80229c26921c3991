//! VHD, VDI, VMDK and VHDX: each way to store a block.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a failure in a test is to panic"
)]

mod support;

use guest_formats::{
    Content, FileSystem, Format, Mapping, Options, PartitionTable, Reason, Survey, Verdict,
};
use support::Put::{Data, Hole, Zero, ZeroAllocated};
use support::vhd::Vhd;
use support::vhdx::Vhdx;
use support::vmdk::{Vmdk, descriptor};
use support::{Put, disk, info, vdi};

fn assert_reads(bytes: &[u8], expected: &[u8], format: Format) {
    let report = info(bytes);
    assert_eq!(report.format, format);
    assert_eq!(report.verdict(), Verdict::Safe, "{:?}", report.findings);
    assert_eq!(report.virtual_size, Some(expected.len() as u64));
    let read = disk(bytes, &Options::default()).unwrap();
    assert!(read == expected, "{format:?} is read wrongly");
}

#[test]
fn fixed_and_dynamic_vhds_are_read() {
    for fixed in [false, true] {
        for block in [4096, 2 << 20] {
            let image = Vhd::new(fixed, &[Data, Hole, Data, Data], block, block * 4 - 1024);
            assert_reads(&image.build(), &image.disk, Format::Vhd);
        }
    }
}

#[test]
fn a_vhd_footer_of_511_bytes_is_one() {
    let image = Vhd::new(true, &[Data, Data], 65536, 131_072);
    let mut bytes = image.build();
    bytes.pop();
    assert_reads(&bytes, &image.disk, Format::Vhd);
}

#[test]
fn the_size_of_a_vhd_depends_on_its_creator() {
    let mut image = Vhd::new(false, &[Data; 4], 2 << 20, 8 << 20);
    let current = Some(8 << 20);
    let geometry = Some((8 << 20) / 512 / 68 * 68 * 512);
    assert_ne!(current, geometry);
    for (creator, size) in [
        (b"win ", current),
        (b"qem2", current),
        (b"wa\0\0", current),
        (b"\0\0\0\0", current),
        (b"qemu", geometry),
        (b"vpc ", geometry),
    ] {
        image.creator = *creator;
        assert_eq!(info(&image.build()).virtual_size, size);
    }
}

/// Whoever takes their bytes as they are sees the same disk.
#[test]
fn sectors_of_a_vhd_that_were_never_written_are_zero() {
    // The second bitmap is longer than what is read of it at once.
    for (block, size) in [(65536, 131_072), (64 << 20, 64 << 20)] {
        let mut image = Vhd::new(false, &vec![Data; size / block], block, size);
        let sectors = size / 512;
        let unwritten = [2, 3, 9, 40, 41, 42, sectors - 2];
        for sector in unwritten {
            image.disk[sector * 512..(sector + 1) * 512].fill(0);
        }
        let mut bytes = image.build();
        let bitmap = (block / 4096).next_multiple_of(512);
        for sector in unwritten {
            let (number, within) = (sector * 512 / block, sector * 512 % block / 512);
            bytes[2048 + number * (bitmap + block) + within / 8] &= !(0x80 >> (within % 8));
        }
        assert_reads(&bytes, &image.disk, Format::Vhd);
        let mut opened = support::open(&bytes).unwrap();
        let zero = opened.map(&mut &bytes[..], 40 * 512 + 100).unwrap();
        let offset = 2048 + bitmap as u64 + 40 * 512 + 100;
        let unwritten = Content::Unwritten { offset };
        assert_eq!((zero.length, zero.content), (3 * 512 - 100, unwritten));
        let mut survey = Survey::new(&opened, &&bytes[..], 1 << 20);
        while !survey.step(&mut opened, &mut &bytes[..], 1000).unwrap() {}
        assert_eq!((survey.faults, survey.contents.data), (0, size as u64));
    }
}

#[test]
fn dynamic_and_static_vdis_are_read() {
    let puts = [Data, Hole, Zero, Data, Data];
    let size = 5 * 65536 - 512;
    let bytes = vdi::build(false, &puts, 65536, size);
    assert_reads(&bytes, &support::disk_of(&puts, 65536, size), Format::Vdi);
    let bytes = vdi::build(true, &[Data; 3], 1 << 20, 3 << 20);
    assert_reads(
        &bytes,
        &support::disk_of(&[Data; 3], 1 << 20, 3 << 20),
        Format::Vdi,
    );
}

#[test]
fn sparse_and_streamed_vmdks_are_read() {
    let mut puts = vec![Data, Hole, Zero, Put::Compressed, Data];
    puts.resize(700, Hole);
    puts.extend([Data, Data, Hole, Data]);
    for stream in [false, true] {
        for grain in [4096, 65536] {
            let image = Vmdk::new(stream, &puts, grain, grain * puts.len() - 1024);
            assert_reads(&image.build(), &image.disk, Format::Vmdk);
        }
    }
}

#[test]
fn what_is_found_is_told_with_the_byte_of_the_file_that_it_is_about() {
    let found = |bytes: &[u8]| {
        let report = info(bytes);
        let findings = report.findings.iter();
        findings
            .map(|found| (found.reason, found.at))
            .collect::<Vec<_>>()
    };
    let place = |bytes: &[u8], part: &[u8]| {
        let mut places = bytes.windows(part.len());
        places.position(|window| window == part).unwrap() as u64
    };
    let mut image = Vmdk::new(false, &[Data], 65536, 65536);
    image.descriptor = image
        .descriptor
        .replace("parentCID=ffffffff", "parentCID=1");
    let bytes = image.build();
    let line = place(&bytes, b"parentCID");
    assert_eq!(found(&bytes), [(Reason::BackingFile, line)]);
    let mut image = Vmdk::new(false, &[Data], 65536, 65536);
    image.descriptor = image.descriptor.replace("SPARSE", "FLAT");
    let bytes = image.build();
    let line = place(&bytes, b"RW 128");
    assert_eq!(found(&bytes), [(Reason::ExternalExtent, line)]);
    let text = |extents| descriptor("twoGbMaxExtentSparse", extents);
    for extents in ["RW 9 SPARSE \"a\"", "RW 9 FLAT \"a\" 0\nRW 9 ZERO"] {
        // A descriptor in a file of its own, and one in a file that only holds it.
        let mut bytes = text(extents).into_bytes();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        let mut holder = image.build();
        support::bytes::put(&mut holder, 512, &bytes);
        support::bytes::le64(&mut holder, 12, 0);
        for bytes in [bytes, holder] {
            let line = place(&bytes, b"RW 9");
            assert_eq!(found(&bytes), [(Reason::ExternalExtent, line)], "{extents}");
            let count = info(&bytes).findings.iter().next().unwrap().value;
            assert_eq!(count, extents.lines().count() as u64, "{extents}");
        }
    }
    let size = 77_u64 << 20;
    let mut bytes = Vhdx::new(&[Hole; 77], 1 << 20, size as usize).build();
    let item = place(&bytes, &size.to_le_bytes());
    bytes[item as usize] = 1;
    assert_eq!(found(&bytes), [(Reason::BadHeader, item)]);
}

#[test]
fn a_grain_entry_of_one_is_zero_only_where_the_header_says_so() {
    let mut image = Vmdk::new(false, &[Zero], 65536, 65536);
    image.zero_grains = false;
    let error = disk(&image.build(), &Options::default()).unwrap_err();
    assert_eq!(error.reason(), Some(Reason::Overlap));
}

#[test]
fn vhdxs_are_read_with_bitmap_entries_between_the_chunks() {
    let puts = [Data, Hole, Zero, ZeroAllocated, Data];
    let image = Vhdx::new(&puts, 1 << 20, 5 << 20);
    assert_reads(&image.build(), &image.disk, Format::Vhdx);
    // A chunk has 16 blocks of 256 MiB, so that block 16 has entry 17. Disk and file end in it.
    let last: u64 = 16 << 28;
    let mut image = Vhdx::new(&[], 256 << 20, last as usize + 4096);
    image.puts = vec![Hole; 17];
    let mut bytes = image.build();
    let data = bytes.len() as u64;
    support::bytes::le64(&mut bytes, (3 << 20) + 17 * 8, data | 6);
    bytes.resize(bytes.len() + 4096, 0x77);
    let mut opened = support::open(&bytes).unwrap();
    let mut source = &bytes[..];
    assert_eq!(
        opened.map(&mut source, 0).unwrap(),
        mapping(last, Content::Zero)
    );
    let found = opened.map(&mut source, last + 96).unwrap();
    assert_eq!(found, mapping(4000, Content::Data { offset: data + 96 }));
}

fn mapping(length: u64, content: Content) -> Mapping {
    Mapping { length, content }
}

#[test]
fn the_log_of_a_vhdx_is_replayed_in_memory() {
    let mut image = Vhdx::new(&[Data, Hole, Data], 1 << 20, 3 << 20);
    image.bat_in_log = true;
    let bytes = image.build();
    assert!(info(&bytes).log_replayed);
    assert_reads(&bytes, &image.disk, Format::Vhdx);
}

#[test]
fn partition_tables_are_seen_through_the_image() {
    let mut image = Vhdx::new(&[Data], 1 << 20, 1 << 20);
    image.disk[..512].fill(0);
    image.disk[446 + 4] = 0x83;
    image.disk[446 + 8] = 1;
    image.disk[446 + 12] = 100;
    image.disk[510..512].copy_from_slice(b"\x55\xaa");
    assert_eq!(info(&image.build()).partitions, Some(PartitionTable::Mbr));
    image.disk[446..512].fill(0);
    image.disk[1080..1082].copy_from_slice(b"\x53\xef");
    let report = info(&image.build());
    assert_eq!(
        (report.partitions, report.file_system),
        (None, Some(FileSystem::Ext))
    );
    image.disk[512..520].copy_from_slice(b"EFI PART");
    assert_eq!(info(&image.build()).partitions, Some(PartitionTable::Gpt));
}

#[test]
fn a_survey_sums_up_the_disk_and_goes_on_behind_faults() {
    let puts = [Data, Hole, Zero, Data, Data];
    let mut bytes = vdi::build(false, &puts, 65536, 5 * 65536 - 512);
    let survey = |bytes: &[u8]| {
        let mut image = support::open(bytes).unwrap();
        let mut source = bytes;
        let mut survey = Survey::new(&image, &source, 1 << 16);
        while !survey.step(&mut image, &mut source, 1).unwrap() {}
        survey
    };
    let whole = survey(&bytes);
    assert_eq!(
        (whole.contents.data, whole.contents.zero),
        (3 * 65536 - 512, 2 * 65536)
    );
    assert_eq!(
        (whole.contents.lost, whole.faults, whole.seen()),
        (0, 0, 5 * 65536 - 512)
    );
    support::bytes::le32(&mut bytes, 512, 77);
    support::bytes::le32(&mut bytes, 512 + 16, 78);
    let part = survey(&bytes);
    assert_eq!(
        (part.contents.data, part.contents.lost),
        (65536, 2 * 65536 - 512)
    );
    let reasons: Vec<_> = part.findings.iter().map(|finding| finding.reason).collect();
    assert_eq!(reasons, [Reason::BadEntry; 2]);
    // A compressed disk, and one with a backing file.
    let stream = Vmdk::new(true, &[Data, Hole, Data], 65536, 3 * 65536).build();
    assert_eq!(survey(&stream).contents.compressed, 2 * 65536);
}
