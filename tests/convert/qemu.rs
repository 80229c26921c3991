//! What `qemu-img` writes, converted by both and compared. Skipped where it is not installed.

use std::path::Path;
use std::process::Command;

use crate::common::{kvm_is_usable, skip, test};
use crate::support::pattern;
use crate::{Conversion, assert_same, read};

/// Whether the tests can run; says so if not.
fn ready() -> bool {
    let there = Command::new("qemu-img").arg("--version").output().is_ok();
    if !there {
        skip("qemu-img is not installed");
    }
    there && kvm_is_usable()
}

pub(crate) fn qemu(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program} {arguments:?}: {said}");
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

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
    let conversion = Conversion::new();
    let (raw, again) = (conversion.path("raw"), conversion.path("again"));
    std::fs::write(&raw, source()).unwrap();
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
    if !ready() {
        return;
    }
    for size in ["512", "1k", "4k", "16k", "64k", "128k", "256k", "1M", "2M"] {
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
    if !ready() {
        return;
    }
    for size in ["16k", "64k", "2M"] {
        let values = format!("cluster_size={size},extended_l2=on");
        compare(&values, "qcow2", &["-o", &values]);
        compare(&values, "qcow2", &["-c", "-o", &values]);
    }
    for bits in ["1", "2", "4", "8", "16", "32", "64"] {
        let values = format!("refcount_bits={bits}");
        compare(&values, "qcow2", &["-o", &values]);
    }
}

#[test]
fn the_other_formats_with_their_kinds() {
    if !ready() {
        return;
    }
    for (format, values) in [
        ("vmdk", "subformat=monolithicSparse"),
        ("vmdk", "subformat=streamOptimized"),
        ("vpc", "subformat=dynamic"),
        ("vpc", "subformat=fixed"),
        ("vpc", "subformat=dynamic,force_size=on"),
        ("vpc", "subformat=fixed,force_size=on"),
        ("vhdx", "subformat=dynamic"),
        ("vhdx", "subformat=fixed"),
        ("vhdx", "block_size=8M"),
        ("vdi", "static=off"),
        ("vdi", "static=on"),
    ] {
        compare(&format!("{format} {values}"), format, &["-o", values]);
    }
}

#[test]
fn zero_flags_snapshots_and_backing_files() {
    if !ready() || Command::new("qemu-io").arg("--version").output().is_err() {
        return;
    }
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
fn an_empty_disk_of_8_tebibytes_takes_no_time_and_no_room() {
    use std::os::unix::fs::MetadataExt;
    if !ready() {
        return;
    }
    let conversion = Conversion::new();
    let image = conversion.image();
    qemu("qemu-img", &["create", "-f", "qcow2", text(&image), "8T"]);
    let finished = conversion.run();
    assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
    let made = std::fs::metadata(conversion.disk()).unwrap();
    assert_eq!(made.len(), 8 << 40);
    assert!(made.blocks() < 1000);
}
