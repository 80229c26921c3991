//! Files with holes: what lies in them is zero, and is not read.

use super::*;

/// A list of which everything but `hole` may be data.
fn all_but(hole: std::ops::Range<u64>, length: usize) -> DataList<'static> {
    DataList::new(&[0..hole.start, hole.end..length as u64])
}

/// How a conversion of `files` went, and the disk that came out; the first files have
/// these lists.
fn converted(files: &[&[u8]], lists: &[DataList<'static>], setup: Setup) -> (Trial, Vec<u8>) {
    let setup = Setup {
        lists: lists.to_vec(),
        ..setup
    };
    let trial = setup.run(files, |_| {});
    let length = trial.outcome.length as usize;
    let output = trial.target.get().data[..length].to_vec();
    let disk = match setup.format {
        ConvertFormat::Raw => output,
        ConvertFormat::Qcow2 => support::disk(&output, &Options::default()).unwrap(),
    };
    (trial, disk)
}

#[test]
fn holes_of_a_raw_disk_are_not_read() {
    // Nobody sees what is in the holes here, so that it need not be zero.
    let mut file = vec![0x55; (1 << 20) + 5];
    let list = DataList::new(&[64 << 10..128 << 10, 512 << 10..(512 << 10) + 4096]);
    let mut expected = vec![0; file.len()];
    for range in list.ranges(file.len() as u64) {
        let range = range.start as usize..range.end as usize;
        file[range.clone()].copy_from_slice(&support::pattern(3, range.len()));
        expected[range.clone()].copy_from_slice(&file[range]);
    }
    for format in [ConvertFormat::Raw, ConvertFormat::Qcow2] {
        for zeros in [false, true] {
            let setup = Setup {
                format,
                zeros,
                ..Setup::default()
            };
            let (trial, disk) = converted(&[&file], std::slice::from_ref(&list), setup);
            assert_eq!(trial.outcome.count, trial.sectors);
            let digest = trial.outcome.result.unwrap();
            assert_eq!(digest, Some(digest_of(&expected)), "{format:?}");
            assert!(disk[..expected.len()] == expected, "{format:?} {zeros}");
        }
    }
}

#[test]
fn data_that_lies_in_a_hole_is_zero_and_not_what_the_backing_file_has() {
    let mut image = Qcow2::new(12, &[Data, Hole, Data]);
    image.backing = Some("base");
    let built = image.build();
    let entry = built.first_l2 + 2 * 8;
    let entry = u64::from_be_bytes(built.bytes[entry..entry + 8].try_into().unwrap());
    let cluster = entry & 0x00ff_ffff_ffff_fe00;
    let base = support::pattern(7, image.disk.len());
    let lists = [
        all_but(cluster..cluster + 4096, built.bytes.len()),
        all_but(4096..8192, base.len()),
    ];
    let mut expected = vec![0; image.disk.len()];
    expected[..4096].copy_from_slice(&image.disk[..4096]);
    for holes in [0, 1, 2] {
        // Without a list all is read.
        match holes {
            0 => {
                expected[4096..8192].copy_from_slice(&base[4096..8192]);
                expected[8192..].copy_from_slice(&image.disk[8192..]);
            }
            1 => expected[8192..].fill(0),
            _ => expected[4096..8192].fill(0),
        }
        let files: [&[u8]; 2] = [&built.bytes, &base];
        let (trial, disk) = converted(&files, &lists[..holes], Setup::default());
        assert!(trial.outcome.result.is_ok(), "{:?}", trial.outcome);
        assert!(disk == expected, "{holes}");
    }
}
