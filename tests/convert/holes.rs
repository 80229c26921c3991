//! Files with holes: what an image shows as data and its file has a hole for is zero, and is not read.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use crate::common::loop_device::{make_with_late_data, mount_without_extents};
use crate::common::qemu::qemu;
use crate::common::{Finished, needs_kvm, needs_qemu, random, skip, test};
use crate::support::Put::Hole;
use crate::support::qcow2::Qcow2;
use crate::{Conversion, assert_same};

const MIB: u64 = 1 << 20;
const DATA: usize = 100_000;

/// A file of `length` bytes with data at `at` alone. Returns false where the file system makes no holes.
fn make_sparse(path: &Path, length: u64, at: u64) -> bool {
    let file = File::create(path).unwrap();
    file.set_len(length).unwrap();
    file.write_all_at(&random(DATA, 3), at).unwrap();
    let has_holes = file.metadata().unwrap().blocks() < length / 1024;
    if !has_holes {
        skip("the file system makes no holes");
    }
    has_holes
}

/// The statistics of a run.
fn stats(finished: &Finished) -> serde_json::Value {
    let lines = finished.stdout.lines();
    let objects = lines.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let mut stats = objects.filter(|object| object["type"] == "stats");
    stats.next().unwrap()
}

/// How many bytes of the image a run has read.
fn bytes_read(finished: &Finished) -> u64 {
    stats(finished)["disks"][0]["bytes_read"].as_u64().unwrap()
}

fn with_stats(conversion: Conversion) -> Conversion {
    ["--stats", "--format", "json"]
        .into_iter()
        .fold(conversion, Conversion::arg)
}

#[test]
fn a_raw_disk_of_a_tebibyte_is_converted_without_its_holes_being_read() {
    needs_kvm!();
    let at = 700 * 1024 * MIB + 5000;
    for format in ["raw", "qcow2"] {
        let conversion = with_stats(Conversion::new())
            .arg("--image-format")
            .arg("raw");
        if !make_sparse(&conversion.image(), 1024 * 1024 * MIB, at) {
            return;
        }
        let conversion = conversion.arg("--output-format").arg(format);
        let finished = conversion.run();
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        let read = bytes_read(&finished);
        assert!(read < MIB, "{format}: {read}");
        if format == "raw" {
            let mut found = vec![0; DATA];
            let disk = File::open(conversion.disk()).unwrap();
            disk.read_exact_at(&mut found, at).unwrap();
            assert_same(&found, &random(DATA, 3), format);
        }
    }
}

#[test]
fn holes_are_read_if_that_is_wanted_and_those_of_all_files_are_counted() {
    needs_kvm!();
    for wanted in [false, true] {
        let mut image = Qcow2::new(16, &[Hole; 1024]);
        image.backing = Some("base");
        let conversion = with_stats(Conversion::of(&image.build().bytes));
        let base = conversion.path("base");
        if !make_sparse(&base, 64 * MIB, 20 * MIB) {
            return;
        }
        let base = base.to_str().unwrap().to_owned();
        let conversion = conversion.arg("--allow").arg("unknown-format");
        let mut conversion = conversion.arg("--backing").arg(&base);
        if wanted {
            conversion = conversion.arg("--read-holes");
        }
        let finished = conversion.run();
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        let stats = stats(&finished);
        let skipped = stats["bytes_skipped"].as_u64().unwrap();
        match wanted {
            true => assert_eq!(skipped, 0),
            false => assert!(skipped > 63 * MIB, "{skipped}"),
        }
    }
}

#[test]
fn room_that_an_image_has_taken_ahead_is_not_read_and_is_zero() {
    needs_kvm!();
    needs_qemu!("qemu-img");
    for preallocation in ["metadata", "falloc"] {
        let conversion = with_stats(Conversion::new());
        let raw = conversion.path("raw");
        if !make_sparse(&raw, 64 * MIB, 20 * MIB) {
            return;
        }
        let image = conversion.image();
        let option = format!("preallocation={preallocation}");
        let [from, to] = [&raw, &image].map(|path| path.to_str().unwrap());
        qemu(
            "qemu-img",
            &[
                "convert", "-f", "raw", "-O", "qcow2", "-o", &option, from, to,
            ],
        );
        File::open(&image).unwrap().sync_all().unwrap();
        let finished = conversion.run();
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        let (found, expected) = (fs::read(conversion.disk()), fs::read(&raw));
        assert_same(&found.unwrap(), &expected.unwrap(), preallocation);
        let read = bytes_read(&finished);
        assert!(read < 4 * MIB, "{preallocation}: {read}");
    }
}

/// Runs a conversion of which `file` is read, and writes a byte into the hole that it has at `at` while
/// the guest is at work, if `fills`.
fn convert_and_fill(conversion: &Conversion, file: &Path, at: u64, fills: bool) -> Finished {
    let file = File::options().write(true).open(file).unwrap();
    let (mut lines, stdout) = std::io::pipe().unwrap();
    // It reports more than there is room for, so that it waits for the reader.
    let vmm = conversion.vmm().args(&["--progress-percent", "0"]);
    let running = vmm.args(&["--format", "json"]).stdout(stdout).start();
    lines.read_exact(&mut [0; 1000]).unwrap();
    if fills {
        file.write_all_at(&[1], at).unwrap();
    }
    lines.read_to_end(&mut Vec::new()).unwrap();
    let finished = running.finish();
    conversion.assert_whole_or_nothing(&finished);
    finished
}

/// A file that takes many reports to convert and has a hole behind its data. Returns false where the
/// file system makes no holes.
fn make_long(path: &Path) -> bool {
    let at = HOLE_AT - DATA as u64;
    let has_holes = make_sparse(path, 2 * HOLE_AT, at);
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(&random(usize::try_from(at).unwrap(), 5), 0)
        .unwrap();
    has_holes
}

const HOLE_AT: u64 = 48 * MIB;

#[test]
fn a_hole_that_gets_data_meanwhile_ends_the_conversion_whichever_file_it_is_in() {
    needs_kvm!();
    for (in_backing, fills) in [(false, false), (false, true), (true, false), (true, true)] {
        let (conversion, file, role) = if in_backing {
            let mut image = Qcow2::new(16, &[Hole; 96 << 4]);
            image.backing = Some("base");
            let conversion = Conversion::of(&image.build().bytes);
            let base = conversion.path("base");
            let conversion = conversion.arg("--allow").arg("unknown-format");
            let conversion = conversion.arg("--backing").arg(base.to_str().unwrap());
            (conversion, base, "backing file")
        } else {
            let conversion = Conversion::new().arg("--image-format").arg("raw");
            let image = conversion.image();
            (conversion, image, "input")
        };
        if !make_long(&file) {
            return;
        }
        let finished = convert_and_fill(&conversion, &file, HOLE_AT + 5 * MIB, fills);
        if fills {
            finished.assert_failed(3, "where it had a hole when the run began");
            finished.assert_failed(3, &format!("the {role} "));
            finished.assert_failed(3, "when nothing writes to it, or with --read-holes");
        } else {
            assert_eq!(finished.code(), Some(0), "{finished:?}");
            assert_same(
                &fs::read(conversion.disk()).unwrap(),
                &fs::read(&file).unwrap(),
                role,
            );
        }
    }
}

#[test]
fn data_of_a_backing_file_that_has_no_place_yet_is_no_hole() {
    needs_kvm!();
    let mut image = Qcow2::new(16, &[Hole; 18]);
    image.backing = Some("base");
    let conversion = Conversion::of(&image.build().bytes);
    let Some((_mounted, without)) = mount_without_extents(&conversion.path("")) else {
        return;
    };
    let base = without.join("base");
    make_with_late_data(&base);
    let conversion = conversion.arg("--allow").arg("unknown-format");
    let conversion = conversion.arg("--backing").arg(base.to_str().unwrap());
    let disk = conversion.convert();
    let expected = fs::read(&base).unwrap();
    assert_same(&disk[..expected.len()], &expected, "the base");
}
