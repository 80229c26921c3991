//! Conversions to qcow2: the images are sound, hold the same disk, and have no room for zeros.

use std::fs;

use guest_formats::Options;
use serde_json::Value;

use crate::common::qemu::qemu;
use crate::common::{Files, Loop, Vmm, needs_kvm, needs_qemu, test};
use crate::support::Put::{Compressed, Data, Hole, Zero};
use crate::support::mutate::images;
use crate::support::qcow2::Qcow2;
use crate::support::{disk, pattern};
use crate::{Conversion, assert_same, read};

const CLUSTER: usize = 65536;

fn to_qcow2(image: &[u8]) -> Conversion {
    Conversion::of(image).arg("--output-format=qcow2")
}

fn raw_to_qcow2(disk: &[u8]) -> Conversion {
    to_qcow2(disk).arg("--image-format=raw")
}

/// Converts to qcow2, has the VMM check what comes of it, and returns the disk in it, as
/// the VMM converts it back.
fn there_and_back(conversion: &Conversion, name: &str) -> Vec<u8> {
    let image = conversion.convert();
    let checked = Vmm::bare().arg("check").arg(conversion.disk()).run();
    assert_eq!(checked.code(), Some(0), "{name}: {}", checked.stdout);
    let looked_at = Vmm::bare().arg("info").arg(conversion.disk()).run();
    assert_eq!(looked_at.code(), Some(0), "{name}: {}", looked_at.stdout);
    Conversion::of(&image).convert()
}

/// Checks that `found` is `expected`, filled up to whole sectors.
fn assert_filled_up(found: &[u8], expected: &[u8], name: &str) {
    let mut expected = expected.to_vec();
    expected.resize(expected.len().next_multiple_of(512), 0);
    assert_same(found, &expected, name);
}

#[test]
fn every_format_becomes_a_sound_image_of_the_same_disk() {
    needs_kvm!();
    for (index, image) in images(false).iter().enumerate() {
        let expected = disk(image, &Options::default()).unwrap();
        let name = format!("image {index}");
        let found = there_and_back(&to_qcow2(image), &name);
        assert_filled_up(&found, &expected, &name);
    }
}

#[test]
fn disks_of_any_size_have_images() {
    needs_kvm!();
    for size in [
        0,
        1,
        511,
        512,
        513,
        CLUSTER - 1,
        CLUSTER,
        CLUSTER + 1,
        40 * CLUSTER + 700,
    ] {
        let bytes = pattern(1, size);
        let found = there_and_back(&raw_to_qcow2(&bytes), &format!("{size}"));
        assert_filled_up(&found, &bytes, &format!("{size}"));
    }
}

#[test]
fn zeros_take_no_room_whether_the_image_says_so_or_the_bytes() {
    needs_kvm!();
    let mut bytes = vec![0; 200 * CLUSTER];
    for cluster in [3, 4, 77, 199] {
        bytes[cluster * CLUSTER + 70] = 1;
    }
    // The header, the refcount table, the L1 and the L2 table, the refcounts, and four with data.
    let length = (5 + 4) * CLUSTER;
    let raw = raw_to_qcow2(&bytes);
    assert_same(&there_and_back(&raw, "raw"), &bytes, "raw");
    let first = read(&raw.disk());
    assert_eq!(first.len(), length);
    // An image that is made of it is the same file.
    let again = to_qcow2(&first);
    assert_same(&again.convert(), &first, "again");
}

#[test]
fn the_digest_is_that_of_the_disk_and_programs_are_told_the_length_of_the_file() {
    needs_kvm!();
    let image = Qcow2::new(16, &[Hole, Data, Compressed, Zero, Data]);
    let conversion = to_qcow2(&image.build().bytes)
        .arg("--digest=sha256")
        .arg("--format=json")
        .arg("--stats");
    let finished = conversion.run();
    assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
    let raw = Conversion::of(&image.build().bytes)
        .arg("--digest=sha256")
        .run();
    let digest = raw
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("sha256 "));
    let objects: Vec<Value> = finished
        .stdout
        .lines()
        .chain(finished.stderr.lines())
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |kind: &str| {
        objects
            .iter()
            .find(|object| object["type"] == kind)
            .unwrap()
    };
    let length = fs::metadata(conversion.disk()).unwrap().len();
    let result = of("result");
    assert_eq!(result["digest"], format!("sha256:{}", digest.unwrap()));
    assert_eq!(result["bytes"], length);
    assert_eq!(of("stats")["bytes"], length);
    let capacity = |device: &str| {
        let said = |object: &&Value| object["type"] == "capacity" && object["device"] == device;
        objects.iter().find(said).unwrap()["bytes"].clone()
    };
    assert_eq!(capacity("input"), image.disk.len());
    assert_eq!(capacity("output"), length);
}

#[test]
fn an_image_gets_no_longer_than_it_may_and_nothing_is_left_of_one_that_would() {
    needs_kvm!();
    let bytes = pattern(1, 10 * CLUSTER);
    for (less, status) in [(0, 0), (1, 5), (512, 5), (5 * CLUSTER, 5)] {
        let most = (15 * CLUSTER - less).to_string();
        let conversion = raw_to_qcow2(&bytes).arg("--max-output-size");
        let finished = conversion.arg(&most).run();
        let said = &finished.stderr;
        assert_eq!(finished.code(), Some(status), "{most}: {said}");
        let advice = format!("more than the {most} that --max-output-size allows; allow more");
        assert!(status == 0 || said.contains(&advice), "{said}");
    }
    let too_large = raw_to_qcow2(&bytes).arg("--max-output-size=639K").run();
    assert!(too_large.stderr.contains("virtual-size-too-large"));
    assert!(too_large.stderr.contains("with --max-output-size"));
    // The image of a large disk may be short.
    let mut zeros = vec![0; 10 * CLUSTER];
    zeros[0] = 1;
    let short = raw_to_qcow2(&zeros).arg("--max-output-size=639K");
    let finished = short.arg("--allow=virtual-size-too-large").run();
    assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
}

#[test]
fn a_device_that_keeps_nothing_is_no_place_for_an_image() {
    needs_kvm!();
    let files = Files::random(5000);
    for device in ["/dev/null", "/dev/zero", "/dev/full"] {
        let vmm = Vmm::bare().args(&["convert", "--image-format", "raw"]);
        let vmm = vmm.args(&["--output-format", "qcow2"]).arg(files.input());
        let finished = vmm.arg(device).run();
        finished.assert_failed(
            3,
            "does not keep what is written to it; give another output",
        );
    }
}

#[test]
fn a_file_system_that_takes_no_more_is_a_failure_of_the_host() {
    needs_kvm!();
    let conversion = raw_to_qcow2(&pattern(1, 10 * CLUSTER));
    for clusters in [0, 2, 7, 13, 14] {
        let limit = clusters * CLUSTER as u64 + 100;
        let finished = conversion.run_as(|vmm| vmm.with_file_size_limit(limit));
        assert_eq!(finished.code(), Some(3), "{}", finished.stderr);
        assert!(
            finished.stderr.contains("File too large"),
            "{}",
            finished.stderr
        );
    }
}

#[test]
fn a_block_device_takes_an_image_and_keeps_what_lies_behind_it() {
    needs_kvm!();
    let bytes = pattern(1, 10 * CLUSTER);
    let conversion = raw_to_qcow2(&bytes);
    let backing = conversion.path("backing");
    for (clusters, status) in [(15, 0), (20, 0), (14, 3), (0, 3)] {
        fs::write(&backing, vec![0xaa; clusters * CLUSTER]).unwrap();
        let Some(device) = Loop::over(&backing) else {
            return;
        };
        let finished = Vmm::bare()
            .args(&[
                "convert",
                "--image-format=raw",
                "--output-format=qcow2",
                "--input",
            ])
            .arg(conversion.image())
            .arg("--output")
            .arg(device.path())
            .run();
        assert_eq!(finished.code(), Some(status), "{}", finished.stderr);
        if status != 0 {
            let size = clusters * CLUSTER;
            let said = format!("is too small: it has {size} bytes, and at least ");
            finished.assert_failed(status, &said);
            finished.assert_failed(status, "; give a larger device");
            continue;
        }
        let checked = Vmm::bare().arg("check").arg(device.path()).run();
        assert_eq!(checked.code(), Some(0), "{}", checked.stdout);
        drop(device);
        let file = read(&backing);
        assert_same(&Conversion::of(&file).convert(), &bytes, "the device");
        assert!(file[15 * CLUSTER..].iter().all(|&byte| byte == 0xaa));
    }
}

/// What a device holds after a failure is no image, even if it held one whose tables lie where the new
/// ones do: that would show the clusters of both.
#[test]
fn a_device_holds_no_image_after_a_failure_even_if_it_held_one() {
    needs_kvm!();
    let size = 20 * CLUSTER;
    let first = raw_to_qcow2(&pattern(1, size));
    let mut second = Qcow2::new(16, &[Data; 20]);
    second.disk = pattern(2, size);
    let mut second = second.build();
    // The last cluster leads nowhere, and all before it is good.
    let last = second.first_l2 + 19 * 8;
    second.bytes[last..last + 8].copy_from_slice(&(1_u64 << 63 | 1 << 40).to_be_bytes());
    let second = to_qcow2(&second.bytes);
    let backing = first.path("backing");
    fs::write(&backing, vec![0; 40 * CLUSTER]).unwrap();
    let Some(device) = Loop::over(&backing) else {
        return;
    };
    let convert = |conversion: &Conversion, options: &[&str]| {
        let vmm = Vmm::bare().args(&["convert", "--output-format=qcow2"]);
        let vmm = vmm.args(options).arg("--input").arg(conversion.image());
        vmm.arg("--output").arg(device.path()).run()
    };
    for options in [&[][..], &["--fsync"], &["--direct"]] {
        let good = convert(&first, &[&["--image-format=raw"], options].concat());
        assert_eq!(good.code(), Some(0), "{good:?}");
        let image = read(device.path());
        assert_eq!(image[..4], *b"QFI\xfb");
        let failed = convert(&second, options);
        assert_eq!(failed.code(), Some(6), "{failed:?}");
        assert!(read(device.path())[..CLUSTER].iter().all(|&byte| byte == 0));
        // It is a raw disk now, if it is anything.
        let looked_at = Vmm::bare().arg("info").arg(device.path()).run();
        assert!(!looked_at.stdout.contains("qcow2"), "{}", looked_at.stdout);
    }
}

/// Converts `image`, which QEMU calls a `format`, and lets QEMU check and compare.
fn compare_with_qemu(conversion: &Conversion, format: &str, name: &str) -> Value {
    let finished = conversion.run();
    assert_eq!(finished.code(), Some(0), "{name}: {}", finished.stderr);
    let (image, made) = (conversion.image(), conversion.disk());
    let (image, made) = (image.to_str().unwrap(), made.to_str().unwrap());
    qemu("qemu-img", &["check", "-f", "qcow2", made]);
    qemu(
        "qemu-img",
        &["compare", "-f", format, "-F", "qcow2", image, made],
    );
    serde_json::from_str(&qemu("qemu-img", &["info", "--output=json", made])).unwrap()
}

#[test]
fn qemu_finds_the_images_clean_and_their_disks_equal() {
    needs_kvm!();
    needs_qemu!("qemu-img");
    for size in [
        0,
        1,
        512,
        1000,
        CLUSTER,
        20 * CLUSTER + 5 * 512,
        40 * CLUSTER,
    ] {
        let mut bytes = pattern(1, size);
        let hole = size / 4..size / 2;
        bytes[hole].fill(0);
        let name = format!("raw, {size}");
        let info = compare_with_qemu(&raw_to_qcow2(&bytes), "raw", &name);
        assert_eq!(info["virtual-size"], size.next_multiple_of(512));
        assert_eq!(info["cluster-size"], CLUSTER);
        assert_eq!(info["format-specific"]["data"]["refcount-bits"], 16);
        assert_eq!(info["format-specific"]["data"]["compat"], "1.1");
    }
    for bits in [9, 12, 16, 18, 21] {
        let puts = [Data, Hole, Compressed, Zero, Data, Hole, Hole, Compressed];
        let image = Qcow2::new(bits, &puts).build();
        compare_with_qemu(&to_qcow2(&image.bytes), "qcow2", &format!("{bits} bits"));
    }
}

#[test]
fn data_at_the_borders_of_tables_is_where_qemu_looks_for_it() {
    needs_kvm!();
    needs_qemu!("qemu-img", "qemu-io");
    let conversion = to_qcow2(&[]);
    let image = conversion.image();
    let image = image.to_str().unwrap();
    // An L2 table maps 512 MiB, a cluster of the L1 table 4 TiB.
    qemu("qemu-img", &["create", "-f", "qcow2", image, "9T"]);
    let commands = [
        "write -P 1 0 1",
        "write -P 2 536805376 131072",
        "write -P 3 1073741823 1",
        "write -P 4 4397509640192 70000",
        "write -P 5 9895604584448 65536",
    ];
    let commands = commands.iter().flat_map(|command| ["-c", command]);
    let commands: Vec<_> = commands.chain([image]).collect();
    qemu("qemu-io", &commands);
    compare_with_qemu(&conversion, "qcow2", "9 TiB");
    assert!(fs::metadata(conversion.disk()).unwrap().len() < 30 * CLUSTER as u64);
    let checked = Vmm::bare().arg("check").arg(conversion.disk()).run();
    assert_eq!(checked.code(), Some(0), "{}", checked.stdout);
}

#[test]
fn an_empty_disk_of_8_tebibytes_becomes_a_small_file() {
    needs_kvm!();
    let mut image = Qcow2::new(16, &[]).build().bytes;
    let size = 8_u64 << 40;
    image[24..32].copy_from_slice(&size.to_be_bytes());
    // An L1 table of as many entries as that takes, at the end.
    image.resize(image.len().next_multiple_of(CLUSTER), 0);
    let l1_at = image.len() as u64;
    image[36..40].copy_from_slice(&(1_u32 << 14).to_be_bytes());
    image[40..48].copy_from_slice(&l1_at.to_be_bytes());
    image.resize(image.len() + 8 * (1 << 14), 0);
    let conversion = to_qcow2(&image);
    let made = conversion.convert();
    assert!(made.len() <= 6 * CLUSTER, "{}", made.len());
    assert_eq!(made[24..32], size.to_be_bytes());
}
