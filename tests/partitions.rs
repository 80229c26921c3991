//! Disks with a GUID partition table: a partition is a disk of its own, whatever happens to its
//! neighbours; and what lies on what is written, or below it, is not read.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::loop_device::{Loop, claim, make_ext4};
use common::mount::Mounted;
use common::process::binary;
use common::{Files, Vmm, leave_out, needs_kvm, random, skip, test};

fn main() -> std::process::ExitCode {
    common::harness::main()
}

const HOST_FAILED: i32 = 3;
const MIB: u64 = 1 << 20;
const BLOCK: u64 = 512;
/// Of the disk, and where its partitions begin; both are 4 MiB long.
const DISK: u64 = 16 * MIB;
const STARTS: [u64; 2] = [MIB, 6 * MIB];
const LENGTH: u64 = 4 * MIB;
const OTHER_BYTES: u8 = 0xaa;

/// The CRC of Ethernet and of GPT.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 * (crc & 1))
        })
    })
}

/// A file with a protective MBR, and a GUID partition table at both ends (UEFI, section 5.3).
fn disk(files: &mut Files) -> PathBuf {
    let path = files.add(
        "disk.img",
        &vec![OTHER_BYTES; usize::try_from(DISK).unwrap()],
    );
    let file = File::options().write(true).open(&path).unwrap();
    let blocks = DISK / BLOCK;
    let mut record = [0_u8; 512];
    record[450] = 0xee;
    record[454..458].copy_from_slice(&1_u32.to_le_bytes());
    record[458..462].copy_from_slice(&u32::try_from(blocks - 1).unwrap().to_le_bytes());
    record[510..].copy_from_slice(&[0x55, 0xaa]);
    file.write_all_at(&record, 0).unwrap();
    let mut entries = vec![0_u8; 128 * 128];
    for (index, start) in STARTS.into_iter().enumerate() {
        let entry = &mut entries[index * 128..][..128];
        // Of a Linux file system: 0FC63DAF-8483-4772-8E79-3D69D8477DE4.
        entry[..16]
            .copy_from_slice(b"\xaf\x3d\xc6\x0f\x83\x84\x72\x47\x8e\x79\x3d\x69\xd8\x47\x7d\xe4");
        entry[16] = u8::try_from(index).unwrap() + 1;
        entry[32..40].copy_from_slice(&(start / BLOCK).to_le_bytes());
        entry[40..48].copy_from_slice(&((start + LENGTH) / BLOCK - 1).to_le_bytes());
    }
    for (here, there, entries_at) in [(1, blocks - 1, 2), (blocks - 1, 1, blocks - 33)] {
        let mut header = [0_u8; 92];
        header[..8].copy_from_slice(b"EFI PART");
        header[8..12].copy_from_slice(&0x1_0000_u32.to_le_bytes());
        header[12..16].copy_from_slice(&92_u32.to_le_bytes());
        for (at, number) in [
            (24, here),
            (32, there),
            (40, 34),
            (48, blocks - 34),
            (56, 99),
            (72, entries_at),
            // 128 entries, each of 128 bytes.
            (80, 128 << 32 | 128),
        ] {
            header[at..at + 8].copy_from_slice(&u64::to_le_bytes(number));
        }
        header[88..].copy_from_slice(&crc32(&entries).to_le_bytes());
        let sum = crc32(&header);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
        file.write_all_at(&header, here * BLOCK).unwrap();
        file.write_all_at(&entries, entries_at * BLOCK).unwrap();
    }
    path
}

/// A device over that file, with its two partitions.
fn device(files: &mut Files) -> Option<(Loop, [PathBuf; 2])> {
    let path = disk(files);
    let device = Loop::with(&path, &["--partscan"])?;
    let partition = |number: usize| {
        let start = STARTS[number - 1] / BLOCK;
        device.partition(number, start, LENGTH / BLOCK)
    };
    let partitions = [partition(1)?, partition(2)?];
    Some((device, partitions))
}

/// What is at `offset` of the disk.
fn bytes(disk: &Path, offset: u64, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    let disk = File::open(disk).unwrap();
    disk.read_exact_at(&mut bytes, offset).unwrap();
    bytes
}

#[test]
fn one_partition_is_copied_to_another_and_nothing_else_of_the_disk_changes() {
    needs_kvm!();
    for options in [
        &["--verify"][..],
        &["--direct", "--fsync", "--sparse", "always"],
    ] {
        let mut files = Files::new(b"");
        let Some((device, [one, two])) = device(&mut files) else {
            return;
        };
        let content = random(usize::try_from(LENGTH).unwrap() - 700, 3);
        // The page caches of a partition and of its disk are two.
        let partition = File::options().write(true).open(&one).unwrap();
        partition.write_all_at(&content, 0).unwrap();
        partition.sync_all().unwrap();
        drop(partition);
        let before = bytes(device.path(), 0, STARTS[1]);
        let behind = bytes(device.path(), STARTS[1] + LENGTH, DISK - STARTS[1] - LENGTH);
        Vmm::copying(&one, &two).args(options).succeed();
        assert!(fs::read(&two).unwrap() == fs::read(&one).unwrap());
        assert!(fs::read(&two).unwrap().starts_with(&content));
        assert!(bytes(device.path(), 0, STARTS[1]) == before);
        let end = STARTS[1] + LENGTH;
        assert!(bytes(device.path(), end, DISK - end) == behind);
    }
}

#[test]
fn a_neighbour_that_is_mounted_forbids_the_disk_and_not_the_partition() {
    needs_kvm!();
    let mut files = Files::random(100_000);
    let Some((device, [one, two])) = device(&mut files) else {
        return;
    };
    let Some(()) = make_ext4(&two, None) else {
        return;
    };
    let Some(_mounted) = Mounted::new("ext4", &two, &files.path("mounted")) else {
        return;
    };
    let system = bytes(device.path(), STARTS[1], LENGTH);
    for path in [device.path(), &two] {
        let finished = Vmm::copying(&files.input(), path).run();
        finished.assert_failed(HOST_FAILED, "unmount it, or stop what uses it");
    }
    Vmm::copying(&files.input(), &one).succeed();
    assert!(
        fs::read(&one)
            .unwrap()
            .starts_with(&fs::read(files.input()).unwrap())
    );
    assert!(bytes(device.path(), STARTS[1], LENGTH) == system);
    // To read what is mounted is nobody's harm.
    Vmm::copying(&two, &one).succeed();
    assert!(fs::read(&one).unwrap() == fs::read(&two).unwrap());
}

#[test]
fn a_device_over_a_partition_is_in_use_as_the_partition_is_and_not_as_its_neighbour() {
    needs_kvm!();
    let mut files = Files::random(100_000);
    let Some((device, [one, two])) = device(&mut files) else {
        return;
    };
    let over = |start: u64| {
        let [start, length] = [start, LENGTH].map(|bytes| bytes.to_string());
        Loop::with(device.path(), &["--offset", &start, "--sizelimit", &length])
    };
    let over = (
        [Loop::over(&one), over(STARTS[0]), Loop::over(device.path())],
        [Loop::over(&two), over(STARTS[1])],
        over(DISK - LENGTH),
    );
    let ([Some(a), Some(b), Some(all)], [Some(c), Some(d)], Some(behind)) = over else {
        return;
    };
    let is_refused = |device: &Loop| {
        let before = bytes(&files.path("disk.img"), 0, DISK);
        let finished = Vmm::copying(&files.input(), device.path()).run();
        finished.assert_failed(HOST_FAILED, "unmount it, or stop what uses it");
        assert!(bytes(&files.path("disk.img"), 0, DISK) == before);
    };
    let holder = claim(&one);
    [&a, &b, &all].into_iter().for_each(is_refused);
    if two.starts_with("/dev") {
        for device in [&c, &d, &behind] {
            Vmm::copying(&files.input(), device.path()).succeed();
        }
    } else {
        leave_out("neighbours of a partition in use: a partition gets no name in /dev here");
    }
    drop(holder);
    let _holder = claim(device.path());
    for device in [&a, &b, &c, &d, &all, &behind] {
        is_refused(device);
    }
}

#[test]
fn a_device_over_a_partition_in_use_is_refused_also_where_the_partition_has_no_name() {
    needs_kvm!();
    let mut files = Files::random(100_000);
    let Some((device, [one, two])) = device(&mut files) else {
        return;
    };
    if !two.starts_with("/dev") {
        return skip("a partition gets no name in /dev here");
    }
    let [start, length] = [STARTS[0], LENGTH].map(|bytes| bytes.to_string());
    let beside = Loop::with(device.path(), &["--offset", &start, "--sizelimit", &length]);
    let (Some(all), Some(beside)) = (Loop::over(device.path()), beside) else {
        return;
    };
    // Something else has its name, as some containers do that with what is not for them.
    let hidden = "mount --make-rprivate / && mount --bind /dev/null \"$0\" && exec \"$@\"";
    let copying_to = |output: &Loop| {
        let unshare = Vmm::of(Path::new("unshare")).args(&["--mount", "sh", "-c", hidden]);
        let vmm = unshare.arg(&one).arg(binary());
        vmm.arg(files.input()).arg(output.path()).arg("--quiet")
    };
    let holder = claim(&one);
    let before = bytes(&files.path("disk.img"), 0, DISK);
    for output in [&all, &beside] {
        let finished = copying_to(output).run();
        finished.assert_failed(HOST_FAILED, "unmount it, or stop what uses it");
    }
    assert!(bytes(&files.path("disk.img"), 0, DISK) == before);
    drop(holder);
    copying_to(&beside).succeed();
}

#[test]
fn nothing_is_read_that_lies_on_what_is_written_or_below_it() {
    needs_kvm!();
    let mut files = Files::new(b"");
    let Some((device, [one, two])) = device(&mut files) else {
        return;
    };
    // A device over a partition of the device over the file.
    let Some(upper) = Loop::over(&one) else {
        return;
    };
    let file = files.path("disk.img");
    let before = fs::read(&file).unwrap();
    for (input, output) in [
        (one.as_path(), device.path()),
        (device.path(), &one),
        (&file, device.path()),
        (&file, &two),
        (upper.path(), device.path()),
        (&file, upper.path()),
        // What is replaced is not written, but a device that lies on it loses what it has.
        (&two, &file),
    ] {
        // Whether there would be room is not asked: a conversion says that only in the end.
        let convert = Vmm::bare().args(&["convert", "--image-format", "raw", "--input"]);
        let convert = convert.arg(input).arg("--output").arg(output);
        for vmm in [Vmm::copying(input, output), convert] {
            let finished = vmm.arg("--force").run();
            finished.assert_failed(HOST_FAILED, "share their bytes");
            assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
        }
    }
    assert!(fs::read(&file).unwrap() == before);
    // A backing file is read as well.
    let image = files.add("image.raw", &[0; 4096]);
    let convert = Vmm::bare().args(&["convert", "--image-format", "raw", "--input"]);
    let convert = convert.arg(&image).arg("--backing").arg(&file);
    let finished = convert.arg("--output").arg(&two).run();
    finished.assert_failed(HOST_FAILED, "share their bytes");
    assert!(fs::read(&file).unwrap() == before);
    let statistics = Vmm::copying(&two, &files.output());
    let finished = statistics.arg("--stats-file").arg(&file).run();
    finished.assert_failed(HOST_FAILED, "share their bytes");
    assert!(fs::read(&file).unwrap() == before);
    // Two partitions have nothing in common.
    Vmm::copying(upper.path(), &two).succeed();
}

#[test]
fn no_report_goes_to_a_device_that_has_bytes_of_the_input_or_the_output() {
    needs_kvm!();
    let mut files = Files::new(b"");
    let Some((device, [one, two])) = device(&mut files) else {
        return;
    };
    let file = files.path("disk.img");
    let before = fs::read(&file).unwrap();
    let to = |path: &Path| File::options().write(true).open(path).unwrap();
    for (input, output, stream) in [
        (file.as_path(), files.output().as_path(), device.path()),
        (&one, &files.output(), device.path()),
        (device.path(), &files.output(), &one),
        (&files.input(), &two, device.path()),
        (&files.input(), device.path(), &two),
    ] {
        let finished = Vmm::copying(input, output).stdout(to(stream)).run();
        finished.assert_failed(
            HOST_FAILED,
            "shares its bytes with what the standard output goes to",
        );
    }
    assert!(fs::read(&file).unwrap() == before);
    // A log on the disk that is read is nobody's harm, and nor is one on another partition.
    Vmm::copying(&one, &files.output())
        .stdout(to(&two))
        .succeed();
    drop(files.expect("output.img"));
}

#[test]
fn two_devices_over_one_file_are_one_where_they_overlap() {
    needs_kvm!();
    let mut files = Files::new(b"");
    let file = files.add("disk.img", &common::random(3 << 20, 1));
    let over = |offset: u64, length: u64| {
        let [offset, length] = [offset, length].map(|bytes| bytes.to_string());
        Loop::with(&file, &["--offset", &offset, "--sizelimit", &length])
    };
    let devices = [
        over(0, 1 << 20),
        over(512 << 10, 1 << 20),
        over(1 << 20, 1 << 20),
    ];
    let [Some(start), Some(middle), Some(behind)] = devices else {
        return;
    };
    let before = fs::read(&file).unwrap();
    for (input, output) in [(&start, &middle), (&middle, &start), (&behind, &middle)] {
        let finished = Vmm::copying(input.path(), output.path()).run();
        finished.assert_failed(
            HOST_FAILED,
            "share their bytes, as they meet in one disk or file",
        );
    }
    assert!(fs::read(&file).unwrap() == before);
    Vmm::copying(start.path(), behind.path()).succeed();
    drop((start, middle, behind));
    let after = fs::read(&file).unwrap();
    assert!(after[..1 << 20] == before[..1 << 20]);
    assert!(after[1 << 20..2 << 20] == before[..1 << 20]);
    assert!(after[2 << 20..] == before[2 << 20..]);
}

#[test]
fn a_device_with_the_file_system_that_has_the_input_is_no_output() {
    needs_kvm!();
    let mut files = Files::new(b"");
    let disk = files.add("disk.img", b"");
    let made = fs::File::options().write(true).open(&disk);
    made.unwrap().set_len(DISK).unwrap();
    let Some(lower) = Loop::over(&disk) else {
        return;
    };
    // A loop device does not claim what it lies on.
    let Some(upper) = Loop::over(lower.path()) else {
        return;
    };
    let folder = files.path("content");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("file"), common::random(100_000, 1)).unwrap();
    let Some(()) = make_ext4(upper.path(), Some(&folder)) else {
        return;
    };
    let Some(_mounted) = Mounted::new("ext4", upper.path(), &files.path("mounted")) else {
        return;
    };
    let before = fs::read(&disk).unwrap();
    let finished = Vmm::copying(&files.input(), lower.path()).run();
    finished.assert_failed(HOST_FAILED, "unmount it, or stop what uses it");
    let input = files.path("mounted").join("file");
    for option in ["--quiet", "--force"] {
        let finished = Vmm::copying(&input, lower.path()).arg(option).run();
        finished.assert_failed(HOST_FAILED, "share their bytes");
    }
    // A device that lies beside the one with the file system, over the same bytes.
    let Some(beside) = Loop::over(&disk) else {
        return;
    };
    let finished = Vmm::copying(&input, beside.path()).arg("--force").run();
    finished.assert_failed(HOST_FAILED, "share their bytes");
    assert!(fs::read(&disk).unwrap() == before);
}

#[test]
fn what_a_loop_device_lies_on_is_known_whatever_its_path() {
    needs_kvm!();
    let mut files = Files::random(1 << 20);
    let odd = files.folder().join(OsStr::from_bytes(b"disk\xff.img"));
    fs::copy(files.input(), &odd).unwrap();
    let deleted = files.expect("deleted.img");
    let linked = files.expect("linked.img");
    fs::copy(files.input(), &deleted).unwrap();
    fs::hard_link(&deleted, &linked).unwrap();
    for (file, name) in [(&odd, &odd), (&deleted, &linked)] {
        let Some(device) = Loop::over(file) else {
            return;
        };
        if file == &deleted {
            fs::remove_file(file).unwrap();
        }
        let finished = Vmm::copying(name, device.path()).run();
        finished.assert_failed(HOST_FAILED, "share their bytes");
        assert!(fs::read(name).unwrap() == fs::read(files.input()).unwrap());
    }
    fs::remove_file(&odd).unwrap();
}
