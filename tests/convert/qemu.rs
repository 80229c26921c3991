//! What `qemu-img` writes, converted by both and compared. Skipped where it is not installed.

use crate::common::qemu::{qemu, text};
use crate::common::{needs_kvm, needs_qemu, test};
use crate::support::pattern;
use crate::{Conversion, assert_same, read};

/// A disk of data that can and cannot be compressed, with holes, of no whole number of clusters.
pub(crate) fn source() -> Vec<u8> {
    let mut disk = vec![0; 5 * (1 << 20) + 3 * 512];
    for part in 0..24_usize {
        let at = part * 211_000 % (disk.len() - 90_000);
        let noise = pattern(part as u64 + 1, 2000 + part * 900);
        disk[at..at + noise.len()].copy_from_slice(&noise);
        let at = at + noise.len();
        disk[at..at + 40_000]
            .iter_mut()
            .enumerate()
            .for_each(|(index, byte)| *byte = (index / 50 + part) as u8);
    }
    disk
}

/// Converts what `qemu-img convert` makes of the source, and compares it with that as raw.
fn compare(name: &str, format: &str, options: &[&str]) {
    compare_disk(&source(), name, format, options);
}

/// The same with another source.
fn compare_disk(disk: &[u8], name: &str, format: &str, options: &[&str]) {
    let conversion = Conversion::new();
    let (raw, again) = (conversion.path("raw"), conversion.path("again"));
    std::fs::write(&raw, disk).unwrap();
    let image = conversion.image();
    let mut arguments = vec!["convert", "-f", "raw", "-O", format];
    arguments.extend(options);
    arguments.extend([text(&raw), text(&image)]);
    qemu("qemu-img", &arguments);
    let back = [
        "convert",
        "-f",
        format,
        "-O",
        "raw",
        text(&image),
        text(&again),
    ];
    qemu("qemu-img", &back);
    assert_same(&conversion.convert(), &read(&again), name);
}

#[test]
fn qcow2_of_any_cluster_size_version_and_codec() {
    needs_kvm!();
    needs_qemu!("qemu-img");
    for size in (9..=21).map(|bits| 1 << bits) {
        for (codec, compat) in [
            ("", "0.10"),
            ("", "1.1"),
            ("zlib", "0.10"),
            ("zlib", "1.1"),
            ("zstd", "1.1"),
        ] {
            let name = format!("{size} {codec} {compat}");
            let mut values = format!("cluster_size={size},compat={compat}");
            if codec == "zstd" {
                values += ",compression_type=zstd";
            }
            match codec {
                "" => compare(&name, "qcow2", &["-o", &values]),
                _ => compare(&name, "qcow2", &["-c", "-o", &values]),
            }
        }
    }
}

#[test]
fn qcow2_with_extended_l2_tables_and_any_refcounts() {
    needs_kvm!();
    needs_qemu!("qemu-img");
    for size in ["16k", "64k", "2M"] {
        let values = format!("cluster_size={size},extended_l2=on");
        compare(&values, "qcow2", &["-o", &values]);
        compare(&values, "qcow2", &["-c", "-o", &values]);
        let zstd = format!("{values},compression_type=zstd");
        compare(&zstd, "qcow2", &["-c", "-o", &zstd]);
    }
    for values in [
        "lazy_refcounts=on",
        "preallocation=metadata",
        "preallocation=full",
        "preallocation=metadata,extended_l2=on",
    ] {
        compare(values, "qcow2", &["-o", values]);
    }
    for bits in ["1", "2", "4", "8", "16", "32", "64"] {
        let values = format!("refcount_bits={bits}");
        compare(&values, "qcow2", &["-o", &values]);
        // With clusters so small that there are many blocks of them.
        let small = format!("{values},cluster_size=512");
        compare(&small, "qcow2", &["-o", &small]);
        // Clusters that are compressed share one, and are counted that often.
        if bits != "1" {
            compare(&values, "qcow2", &["-c", "-o", &values]);
        }
    }
}

#[test]
fn disks_of_odd_sizes() {
    needs_kvm!();
    needs_qemu!("qemu-img");
    let whole = source();
    for size in [
        0,
        1,
        511,
        512,
        513,
        4095,
        65_024,
        65_536,
        66_048,
        (2 << 20) - 512,
        (4 << 20) + 512,
    ] {
        for (format, options) in [
            ("qcow2", &["-o", "cluster_size=512"][..]),
            ("qcow2", &["-c"]),
            ("qcow2", &["-o", "cluster_size=2M"]),
            ("qcow2", &["-o", "extended_l2=on"]),
            ("vmdk", &["-o", "subformat=monolithicSparse"]),
            ("vmdk", &["-o", "subformat=streamOptimized"]),
            ("vpc", &["-o", "subformat=dynamic,force_size=on"]),
            ("vpc", &["-o", "subformat=fixed"]),
            ("vhdx", &["-o", "subformat=dynamic"]),
            ("vhdx", &["-o", "subformat=fixed"]),
            ("vdi", &["-o", "static=off"]),
            ("vdi", &["-o", "static=on"]),
        ] {
            // QEMU makes images of nothing in two formats only.
            if size == 0 && !["qcow2", "vdi"].contains(&format) {
                continue;
            }
            let name = format!("{size} bytes, {format} {options:?}");
            compare_disk(&whole[..size], &name, format, options);
        }
    }
}

#[test]
fn the_other_formats_with_their_kinds() {
    needs_kvm!();
    needs_qemu!("qemu-img");
    for (format, values) in [
        ("vmdk", "subformat=monolithicSparse"),
        ("vmdk", "subformat=streamOptimized"),
        ("vpc", "subformat=dynamic"),
        ("vpc", "subformat=fixed"),
        ("vpc", "subformat=dynamic,force_size=on"),
        ("vpc", "subformat=fixed,force_size=on"),
        ("vhdx", "subformat=dynamic"),
        ("vhdx", "subformat=fixed"),
        ("vhdx", "block_size=1M"),
        ("vhdx", "block_size=8M"),
        ("vhdx", "block_size=256M,log_size=2M"),
        ("vhdx", "block_state_zero=off"),
        ("vmdk", "zeroed_grain=on"),
        ("vmdk", "compat6=on"),
        ("vmdk", "adapter_type=lsilogic,hwversion=13"),
        ("vdi", "static=off"),
        ("vdi", "static=on"),
    ] {
        compare(&format!("{format} {values}"), format, &["-o", values]);
    }
}

#[test]
fn zero_flags_snapshots_and_backing_files() {
    needs_kvm!();
    needs_qemu!("qemu-img", "qemu-io");
    let conversion = Conversion::new();
    let base = conversion.path("base.qcow2");
    let top = conversion.image();
    let expected = conversion.path("expected");
    let raw = conversion.path("raw");
    std::fs::write(&raw, source()).unwrap();
    let make = ["convert", "-c", "-f", "raw", "-O", "qcow2"];
    qemu(
        "qemu-img",
        &[
            &make[..],
            &["-o", "cluster_size=256k", text(&raw), text(&base)],
        ]
        .concat(),
    );
    let create = ["create", "-f", "qcow2", "-F", "qcow2", "-b", text(&base)];
    let values = ["-o", "cluster_size=16k,extended_l2=on", text(&top), "7M"];
    qemu("qemu-img", &[&create[..], &values].concat());
    let write = |commands: &[&str]| {
        let mut arguments = Vec::new();
        for command in commands {
            arguments.extend(["-c", command]);
        }
        arguments.push(text(&top));
        qemu("qemu-io", &arguments);
    };
    write(&[
        "write -P 5 100k 300k",
        "write -z 1M 90k",
        "write -P 9 3M 512",
        "write -z -u 2M 16k",
    ]);
    qemu("qemu-img", &["snapshot", "-c", "before", text(&top)]);
    write(&[
        "write -P 7 50k 200k",
        "discard 300k 64k",
        "write -P 8 6M 100k",
    ]);
    let with_base = |conversion: Conversion| {
        let base = text(&conversion.path("base.qcow2")).to_owned();
        conversion.arg("--backing").arg(&base)
    };
    let back = ["convert", "-f", "qcow2", "-O", "raw"];
    qemu(
        "qemu-img",
        &[&back[..], &[text(&top), text(&expected)]].concat(),
    );
    let now = read(&expected);
    let options = ["-l", "before", text(&top), text(&expected)];
    qemu("qemu-img", &[&back[..], &options].concat());
    let before = read(&expected);
    let conversion = with_base(conversion);
    assert_same(&conversion.convert(), &now, "the disk as it is");
    let conversion = conversion.arg("--snapshot=before");
    assert_same(&conversion.convert(), &before, "the snapshot");
}

#[test]
fn snapshots_of_every_version_and_size_of_clusters() {
    needs_kvm!();
    needs_qemu!("qemu-img", "qemu-io");
    for values in [
        "compat=0.10,cluster_size=512",
        "compat=0.10",
        "cluster_size=2M",
        "refcount_bits=64,cluster_size=4k",
        "extended_l2=on,refcount_bits=8",
    ] {
        let conversion = Conversion::new();
        let (raw, image) = (conversion.path("raw"), conversion.image());
        let expected = conversion.path("expected");
        std::fs::write(&raw, source()).unwrap();
        let make = ["convert", "-f", "raw", "-O", "qcow2", "-o", values];
        qemu(
            "qemu-img",
            &[&make[..], &[text(&raw), text(&image)]].concat(),
        );
        let mut disks = Vec::new();
        for round in ["first", "second", "third"] {
            qemu("qemu-img", &["snapshot", "-c", round, text(&image)]);
            let back = ["convert", "-f", "qcow2", "-O", "raw", "-l", round];
            qemu(
                "qemu-img",
                &[&back[..], &[text(&image), text(&expected)]].concat(),
            );
            disks.push((round, read(&expected)));
            let write = format!("write -P {} {}k 70k", round.len(), disks.len() * 300);
            let zero = format!("write -z {}k 70k", disks.len() * 700);
            qemu("qemu-io", &["-c", &write, "-c", &zero, text(&image)]);
        }
        let mut conversion = conversion;
        for (name, disk) in disks {
            conversion.arguments = vec!["--snapshot".to_owned(), name.to_owned()];
            assert_same(&conversion.convert(), &disk, &format!("{values}: {name}"));
        }
    }
}

#[test]
fn backing_files_that_are_raw_and_shorter_or_longer() {
    needs_kvm!();
    needs_qemu!("qemu-img");
    for (values, size) in [
        ("compat=0.10", "5M"),
        ("compat=0.10,cluster_size=512", "7M"),
        ("cluster_size=2M", "6000128"),
        ("extended_l2=on", "1M"),
    ] {
        let conversion = Conversion::new();
        let (base, image) = (conversion.path("base"), conversion.image());
        let expected = conversion.path("expected");
        std::fs::write(&base, source()).unwrap();
        let create = [
            "create",
            "-f",
            "qcow2",
            "-F",
            "raw",
            "-b",
            text(&base),
            "-o",
            values,
        ];
        qemu("qemu-img", &[&create[..], &[text(&image), size]].concat());
        let back = ["convert", "-f", "qcow2", "-O", "raw"];
        qemu(
            "qemu-img",
            &[&back[..], &[text(&image), text(&expected)]].concat(),
        );
        let base = text(&base).to_owned();
        let conversion = conversion.arg("--allow=unknown-format").arg("--backing");
        let conversion = conversion.arg(&base);
        assert_same(&conversion.convert(), &read(&expected), values);
    }
}

#[test]
fn an_empty_disk_of_8_tebibytes_takes_no_time_and_no_room() {
    use std::os::unix::fs::MetadataExt;
    needs_kvm!();
    needs_qemu!("qemu-img");
    let conversion = Conversion::new();
    let image = conversion.image();
    qemu("qemu-img", &["create", "-f", "qcow2", text(&image), "8T"]);
    let finished = conversion.run();
    assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
    let made = std::fs::metadata(conversion.disk()).unwrap();
    assert_eq!(made.len(), 8 << 40);
    assert!(made.blocks() < 1000);
}
