//! Images of every format, from the parsers' own writers.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use guest_formats::Options;
use vmm::config::ConvertConfig;

use crate::common::{Loop, Vmm, needs_kvm, test};
use crate::support::Put::{Compressed, Data, Hole, Zero, ZeroAllocated};
use crate::support::bytes::{be32, be64, put};
use crate::support::mutate::images;
use crate::support::qcow2::Qcow2;
use crate::support::vhd::Vhd;
use crate::support::vmdk::Vmdk;
use crate::support::{contents, disk, open_with, pattern, vdi};
use crate::{Conversion, REFUSED, assert_same};

pub(crate) const PUTS: [crate::support::Put; 8] = [
    Data,
    Compressed,
    Hole,
    Zero,
    ZeroAllocated,
    Compressed,
    Data,
    Compressed,
];

#[test]
fn every_format_is_read() {
    needs_kvm!();
    for (index, image) in images(false).iter().enumerate() {
        let expected = disk(image, &Options::default()).unwrap();
        let found = Conversion::of(image).convert();
        assert_same(&found, &expected, &format!("image {index}"));
    }
}

#[test]
fn qcow2_is_read_with_every_size_of_clusters_and_both_codecs() {
    needs_kvm!();
    for bits in [9, 10, 12, 14, 16, 17, 18, 20, 21] {
        for zstd in [false, true] {
            let mut image = Qcow2::new(bits, &PUTS).shorter(77);
            image.zstd = zstd;
            let found = Conversion::of(&image.build().bytes).convert();
            assert_same(&found, &image.disk, &format!("{bits} bits, zstd {zstd}"));
        }
    }
}

#[test]
fn extended_l2_tables_and_snapshots_are_read() {
    needs_kvm!();
    for bits in [14, 16, 21] {
        let mut image = Qcow2::new(bits, &PUTS);
        image.extended = true;
        image.snapshots = vec![("1", "one"), ("2", "two")];
        let disk = image.disk.clone();
        let image = image.build();
        let found = Conversion::of(&image.bytes).convert();
        assert_same(&found, &disk, &format!("{bits} bits"));
        // Names need not be UTF-8, and what a shell makes of a variable that is not set is none.
        let mut other = image.bytes.clone();
        let at = other.windows(4).position(|bytes| bytes == b"2two");
        other[at.unwrap() + 1..][..3].copy_from_slice(b"\xff\xe9w");
        let odd = Conversion::of(&other);
        let odd = odd.run_as(|vmm| vmm.arg("--snapshot").arg(OsStr::from_bytes(b"\xff\xe9w")));
        assert_eq!(odd.code(), Some(0), "{}", odd.stderr);
        let empty = Conversion::of(&image.bytes).arg("--snapshot").arg("").run();
        empty.assert_failed(2, "--snapshot");
        for selector in ["1", "two"] {
            let snapshot = Conversion::of(&image.bytes).arg("--snapshot").arg(selector);
            let finished = snapshot.run();
            assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
        }
        let none = Conversion::of(&image.bytes).arg("--snapshot").arg("three");
        let finished = none.run();
        assert_eq!(finished.code(), Some(REFUSED[0]), "{}", finished.stderr);
        assert!(finished.stderr.contains("no-such-snapshot"));
    }
}

#[test]
fn what_an_image_lacks_comes_from_the_backing_files_in_their_order() {
    needs_kvm!();
    let mut top = Qcow2::new(12, &[Hole, Data, Zero, Hole, Hole, Hole]);
    top.backing = Some("base");
    let top = top.build().bytes;
    let mut middle = Qcow2::new(16, &[Hole]);
    middle.backing = Some("raw");
    let middle = middle.build().bytes;
    // Neither whole sectors nor as long as what is before it.
    let base = pattern(3, 17_003);
    let options = crate::support::allowing(&[guest_formats::Reason::BackingFile]);
    let mut image = open_with(&top, &options).unwrap();
    let expected = contents(&mut image, &top, Some(&base)).unwrap();

    let conversion = Conversion::of(&top)
        .backing("middle", &middle)
        .backing("base", &base)
        .arg("--allow=unknown-format");
    assert_same(&conversion.convert(), &expected, "a chain of three");

    let refused = Conversion::of(&top).run();
    assert_eq!(refused.code(), Some(REFUSED[0]), "{}", refused.stderr);
    assert!(refused.stderr.contains("backing-file"));
    let surplus = Conversion::of(&base)
        .backing("more", &base)
        .arg("--image-format=raw")
        .run();
    assert_eq!(surplus.code(), Some(REFUSED[0]), "{}", surplus.stderr);
    assert!(surplus.stderr.contains("needs no backing file"));
}

#[test]
fn a_backing_file_has_the_format_that_the_image_declares_by_either_name() {
    needs_kvm!();
    let vhd = Vhd::new(false, &[Data, Hole, Data], 65536, 3 * 65536);
    let qcow2 = Qcow2::new(16, &[Data, Hole, Data]).build().bytes;
    for name in ["vpc", "vhd"] {
        let mut top = Qcow2::new(16, &[Hole, Hole, Hole]);
        top.backing = Some("base");
        let mut top = top.build().bytes;
        // The extension that declares the format, the one that ends the list, and the backing file.
        be32(&mut top, 112, 0xe279_2aca);
        be32(&mut top, 116, 3);
        put(&mut top, 120, b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0base");
        put(&mut top, 120, name.as_bytes());
        be64(&mut top, 8, 136);
        let good = Conversion::of(&top).backing("base", &vhd.build());
        assert_same(&good.convert(), &vhd.disk, name);
        for other in [&qcow2, &pattern(3, 3 * 65536)] {
            let said = Conversion::of(&top).backing("base", other).run();
            said.assert_failed(REFUSED[0], "other-format");
        }
    }
}

#[test]
fn zeros_in_place_of_a_file_that_was_not_given_come_with_a_warning() {
    needs_kvm!();
    let overlay = |puts: &[crate::support::Put]| {
        let mut image = Qcow2::new(16, puts);
        image.backing = Some("base");
        image.build().bytes
    };
    let top = overlay(&[Hole, Data]);
    // A backing file that is shorter lacks nothing, and no more does an image that has all.
    let short = pattern(1, 512);
    let base = Qcow2::new(16, &[Data, Data]).build().bytes;
    let format = ["", "--output-format=qcow2"];
    for (image, backings, lacks) in [
        (&top, &[][..], Some("image")),
        (&top, &[&top], Some("b0")),
        (&top, &[&base], None),
        (&top, &[&short], None),
        (&overlay(&[Data, Zero]), &[], None),
    ] {
        for format in format {
            let mut conversion = Conversion::of(image)
                .arg("--allow=backing-file")
                .arg("--allow=unknown-format");
            if !format.is_empty() {
                conversion = conversion.arg(format);
            }
            for (index, backing) in backings.iter().enumerate() {
                conversion = conversion.backing(&format!("b{index}"), backing);
            }
            let said = conversion.run();
            assert_eq!(said.code(), Some(0), "{}", said.stderr);
            let warns = said.stderr.contains("give it with --backing");
            assert_eq!(warns, lacks.is_some(), "{}", said.stderr);
            if let Some(name) = lacks {
                let path = conversion.path(name).display().to_string();
                assert!(said.stderr.contains(&path), "{}", said.stderr);
            }
        }
    }
}

#[test]
fn an_error_names_a_format_that_is_not_read() {
    needs_kvm!();
    let mut part = Vmdk::new(false, &[Data], 65536, 65536);
    part.descriptor.clear();
    let starting = |magic: &[u8]| [magic, &[0; 4096]].concat();
    for (bytes, said) in [
        (part.build(), "the format is vmdk (extent)"),
        (starting(b"COWD"), "the format is vmdk (vmfsSparse)"),
        (starting(b"Bochs Virtual HD Image"), "the format is bochs"),
        (starting(b"\x1f\x8b\x08"), "the format is gzip"),
    ] {
        let refused = Conversion::of(&bytes).run();
        refused.assert_failed(REFUSED[0], said);
    }
}

#[test]
fn a_raw_disk_that_looks_like_an_image_comes_with_a_warning() {
    needs_kvm!();
    let mut outer = Qcow2::new(16, &[Data, Hole, Data]);
    let plain = Conversion::of(&outer.build().bytes).run();
    assert_eq!(
        (plain.code(), plain.stderr.contains("warning")),
        (Some(0), false)
    );
    // What the user of the disk wrote there.
    outer.disk[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    let outer = outer.build().bytes;
    for (arguments, warns) in [(&[][..], true), (&["--output-format=qcow2"], false)] {
        let conversion = arguments
            .iter()
            .fold(Conversion::of(&outer), |conversion, argument| {
                conversion.arg(argument)
            });
        let finished = conversion.run();
        assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
        let warned = finished.stderr.contains("looks like a qcow2 image");
        assert_eq!(warned, warns, "{}", finished.stderr);
    }
}

#[test]
fn a_compressed_cluster_below_small_clusters_is_taken_apart() {
    needs_kvm!();
    for bits in [16, 21] {
        let base = Qcow2::new(bits, &[Compressed, Compressed]);
        let base_image = base.build().bytes;
        let puts: Vec<_> = (0..64)
            .map(|at| if at % 3 == 0 { Data } else { Hole })
            .collect();
        let mut top = Qcow2::new(9, &puts);
        top.backing = Some("base");
        let top = top.build().bytes;
        let options = crate::support::allowing(&[guest_formats::Reason::BackingFile]);
        let mut image = open_with(&top, &options).unwrap();
        let expected = contents(&mut image, &top, Some(&base.disk)).unwrap();
        let conversion = Conversion::of(&top).backing("base", &base_image);
        assert_same(&conversion.convert(), &expected, &format!("{bits} bits"));
    }
}

#[test]
fn the_longest_chain_of_the_largest_compressed_clusters_fits_the_memory() {
    needs_kvm!();
    const LAYERS: usize = 1 + ConvertConfig::MOST_BACKINGS;
    let layers: Vec<_> = (0..LAYERS)
        .map(|layer| {
            // A cluster of its own, and all others are of those behind it. Both codecs, and clusters of
            // several sizes, so that the memory for one has to grow.
            let bits = if layer % 4 == 0 { 20 } else { 21 };
            let puts: Vec<_> = (0..LAYERS << (21 - bits))
                .map(|at| {
                    if at >> (21 - bits) == layer {
                        Compressed
                    } else {
                        Hole
                    }
                })
                .collect();
            let mut image = Qcow2::new(bits, &puts);
            image.zstd = layer % 2 == 1;
            image.backing = (layer + 1 < LAYERS).then_some("next");
            image
        })
        .collect();
    let mut expected = Vec::new();
    for (layer, image) in layers.iter().enumerate() {
        expected.extend(&image.disk[layer << 21..(layer + 1) << 21]);
    }
    let mut images = layers.into_iter().map(|image| image.build().bytes);
    let mut conversion = Conversion::of(&images.next().unwrap());
    for (index, image) in images.enumerate() {
        conversion = conversion.backing(&format!("{index}"), &image);
    }
    let found = conversion.convert();
    assert_same(&found, &expected, "the longest chain");
}

#[test]
fn zeros_take_no_room_and_the_digest_is_that_of_the_whole_disk() {
    needs_kvm!();
    let mut puts = vec![Hole; 200];
    puts[3] = Data;
    puts[150] = Compressed;
    let image = Qcow2::new(16, &puts);
    let conversion = Conversion::of(&image.build().bytes).arg("--digest=sha256");
    let finished = conversion.run();
    assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
    let disk = fs::read(conversion.disk()).unwrap();
    assert_same(&disk, &image.disk, "the disk");
    let taken = fs::metadata(conversion.disk()).unwrap().blocks() * 512;
    assert!(taken <= 256 << 10, "{taken} bytes");
    let sum = std::process::Command::new("sha256sum")
        .arg(conversion.disk())
        .output();
    if let Ok(sum) = sum {
        let sum = String::from_utf8(sum.stdout).unwrap();
        let digest = sum.split(' ').next().unwrap();
        assert!(finished.stdout.contains(digest), "{}", finished.stdout);
    }
}

#[test]
fn an_output_has_no_more_bytes_than_it_may_have() {
    needs_kvm!();
    let image = Qcow2::new(16, &[Data, Hole, Hole]).build();
    let limit = |bytes: &str| {
        let conversion = Conversion::of(&image.bytes);
        conversion.arg("--max-output-size").arg(bytes).run()
    };
    assert_eq!(limit("192K").code(), Some(0));
    for options in [&[][..], &["--allow=virtual-size-too-large"]] {
        let mut conversion = Conversion::of(&image.bytes).arg("--max-output-size=191K");
        for option in options {
            conversion = conversion.arg(option);
        }
        let refused = conversion.run();
        refused.assert_failed(REFUSED[0], "virtual-size-too-large");
        refused.assert_failed(REFUSED[0], "; allow a larger disk with --max-output-size");
        assert!(!refused.stderr.contains("--allow"), "{}", refused.stderr);
    }
}

#[test]
fn a_device_that_is_too_small_says_so_and_what_would_do() {
    needs_kvm!();
    let image = Qcow2::new(16, &[Data, Hole, Hole]).build();
    let conversion = Conversion::of(&image.bytes);
    let below = conversion.path("below");
    fs::write(&below, vec![0; 100 << 10]).unwrap();
    let Some(device) = Loop::over(&below) else {
        return;
    };
    let finished = Vmm::bare()
        .args(&["convert", "--input"])
        .arg(conversion.image())
        .arg("--output")
        .arg(device.path())
        .run();
    finished.assert_failed(3, "it has 102400 bytes, and 196608 are to be written");
    finished.assert_failed(3, "; give a larger device");
}

#[test]
fn zeros_in_the_bytes_of_a_disk_become_holes_whatever_format_it_had() {
    needs_kvm!();
    let mut disk = vec![0; 8 << 20];
    disk[..70_000].copy_from_slice(&pattern(1, 70_000));
    disk[5 << 20] = 1;
    let puts = [Data; 128];
    let mut qcow2 = Qcow2::new(16, &puts);
    qcow2.disk.clone_from(&disk);
    let vhd = {
        let mut image = Vhd::new(true, &[Data; 4], 2 << 20, 8 << 20).build();
        image[..disk.len()].copy_from_slice(&disk);
        image
    };
    for (name, image, options) in [
        ("raw", disk.clone(), &["--image-format=raw"][..]),
        ("qcow2", qcow2.build().bytes, &[]),
        ("fixed VHD", vhd, &[]),
    ] {
        let conversion = options
            .iter()
            .fold(Conversion::of(&image), |all, option| all.arg(option));
        assert_same(&conversion.convert(), &disk, name);
        let taken = fs::metadata(conversion.disk()).unwrap().blocks() * 512;
        assert!(taken <= 100 << 10, "{name}: {taken} bytes");
    }
}

#[test]
fn each_file_is_named_by_the_path_that_the_user_gave() {
    needs_kvm!();
    let mut top = Qcow2::new(16, &[Hole, Data]);
    top.backing = Some("next");
    let top = top.build().bytes;
    let conversion = || Conversion::of(&top).backing("first", &top);
    let cut = Qcow2::new(16, &[Data, Hole]).build().bytes[..300].to_vec();
    let bad = conversion().backing("sec ond", &cut);
    let said = bad.run();
    let path = bad.path("sec ond");
    said.assert_failed(
        6,
        &format!("the backing file {} is broken: \"", path.display()),
    );
    let strange = conversion().backing("raw", &pattern(1, 5000));
    let said = strange.run();
    said.assert_failed(
        5,
        &format!(
            "{} is refused: \"unknown-format",
            strange.path("raw").display()
        ),
    );
    said.assert_failed(5, "; if it is a raw disk, give --allow unknown-format");
    let said = strange.arg("--allow=unknown-format").run();
    assert_eq!(said.code(), Some(0), "{}", said.stderr);
    // The last one lacks something, too.
    let short = conversion();
    let said = short.run();
    said.assert_failed(
        5,
        &format!(
            "{} is refused: \"backing-file",
            short.path("first").display()
        ),
    );
    said.assert_failed(5, "; give that file with --backing");
    let absent = conversion().arg("--backing=/nowhere/to be");
    let said = absent.run();
    said.assert_failed(3, "cannot open the backing file ");
    let own = Conversion::of(&cut);
    let said = own.run();
    said.assert_failed(
        6,
        &format!("the image {} is broken: \"", own.image().display()),
    );
}

#[test]
fn advice_is_given_only_where_it_helps_and_all_of_it_at_once() {
    needs_kvm!();
    let mut image = Qcow2::new(16, &[Data, Hole]).build().bytes;
    // Dirty and corrupt.
    image[79] |= 3;
    let both = Conversion::of(&image).run();
    both.assert_failed(
        5,
        "to use it all the same, give --allow marked-dirty and --allow marked-corrupt",
    );
    let taken = Conversion::of(&image)
        .arg("--allow=marked-corrupt")
        .arg("--allow=marked-dirty")
        .run();
    assert_eq!(taken.code(), Some(0), "{}", taken.stderr);
    // What is broken as well is not used, whatever is allowed.
    image[40..48].copy_from_slice(&(1_u64 << 50).to_be_bytes());
    let neither = Conversion::of(&image).run();
    assert!(matches!(neither.code(), Some(5 | 6)), "{neither:?}");
    assert!(!neither.stderr.contains("--allow"), "{}", neither.stderr);
    // A footer that is nowhere cannot be done without: what it says is not known.
    let mut headless = Vhd::new(true, &[Data; 4], 65536, 4 * 65536).build();
    let end = headless.len() - 512;
    headless.copy_within(end.., 0);
    headless.truncate(end);
    let finished = Conversion::of(&headless).run();
    assert_ne!(finished.code(), Some(0));
    let allowed = Conversion::of(&headless).arg("--allow=no-footer").run();
    let helps = allowed.code() == Some(0);
    assert_eq!(
        finished.stderr.contains("--allow no-footer"),
        helps,
        "{finished:?}"
    );
}

#[test]
fn what_was_found_is_told_to_its_end() {
    needs_kvm!();
    let mut image = Qcow2::new(16, &[Data, Hole]).build().bytes;
    image[20..24].copy_from_slice(&u32::MAX.to_be_bytes());
    let broken = Conversion::of(&image);
    broken.run().assert_failed(6, "0xffffffff)\"");
    let top = {
        let mut top = Qcow2::new(16, &[Hole, Data]);
        top.backing = Some("next");
        top.build().bytes
    };
    let below = Conversion::of(&top).backing("below", &image);
    below.run().assert_failed(6, "0xffffffff)\"");
    let json = broken.arg("--format=json").run();
    assert!(json.stdout.contains("0xffffffff)"), "{}", json.stdout);
}

#[test]
fn the_other_formats_are_read_in_more_shapes() {
    needs_kvm!();
    let puts = [Data, Zero, Hole, Data];
    let mut images = Vec::new();
    for unit in [4096, 65536] {
        let size = 4 * unit - 512;
        images.push(vdi::build(true, &[Data; 4], unit, 4 * unit));
        images.push(vdi::build(false, &puts, unit, size));
        images.push(Vmdk::new(false, &puts, unit, size).build());
        images.push(Vmdk::new(true, &[Data, Zero, Compressed, Data], unit, size).build());
        images.push(Vhd::new(false, &[Data, Hole, Data, Data], unit, size).build());
    }
    for (index, image) in images.iter().enumerate() {
        let expected = disk(image, &Options::default()).unwrap();
        let found = Conversion::of(image).convert();
        assert_same(&found, &expected, &format!("image {index}"));
    }
}
