//! Images of every format, from the parsers' own writers.

use std::fs;
use std::os::unix::fs::MetadataExt;

use guest_formats::Options;
use vmm::config::ConvertConfig;

use crate::common::{needs_kvm, test};
use crate::support::Put::{Compressed, Data, Hole, Zero, ZeroAllocated};
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
    let found = conversion.arg("--transport=console").convert();
    assert_same(&found, &expected, "the same with a console");
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
    let refused = limit("191K");
    assert_eq!(refused.code(), Some(REFUSED[0]), "{}", refused.stderr);
    assert!(refused.stderr.contains("virtual-size-too-large"));
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
