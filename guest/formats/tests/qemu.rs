//! Agreement with qemu-img, an independent reader and writer, over a matrix of its options.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a failure in a test is to panic"
)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use guest_formats::qcow2::{Check, CheckOptions};
use guest_formats::{Image, Options, Reason};
use support::Put::{Compressed, Data, Hole, Zero, ZeroAllocated};
use support::bytes::{be16, be64};
use support::mutate::{images, place, seal};
use support::{allowing, contents, disk, info, open, open_qcow2, open_with, pattern, skip};

/// A folder for the test, or the end of it where there is no qemu-img.
macro_rules! needs_qemu {
    () => {
        match Command::new("qemu-img").arg("--version").output() {
            Ok(_) => tempfile::tempdir().unwrap(),
            Err(error) => return skip(&format!("cannot run qemu-img: {error}")),
        }
    };
}

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap()
}

fn qemu(arguments: &[&str]) {
    let output = run("qemu-img", arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "qemu-img {arguments:?}: {error}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A disk with data, text, zeros, and an end within a cluster.
fn source(folder: &Path) -> (PathBuf, Vec<u8>) {
    let mut disk = vec![0; (5 << 20) + 1536];
    disk[..700_000].copy_from_slice(&pattern(1, 700_000));
    for (at, byte) in disk[1_500_000..2_500_000].iter_mut().enumerate() {
        *byte = (at / 700) as u8;
    }
    let end = disk.len();
    disk[end - 3000..].copy_from_slice(&pattern(2, 3000));
    let path = folder.join("source");
    std::fs::write(&path, &disk).unwrap();
    (path, disk)
}

/// What qemu-img makes of an image.
fn as_raw(format: &str, path: &Path) -> Vec<u8> {
    let raw = path.with_extension("raw");
    qemu(&["convert", "-f", format, "-O", "raw", text(path), text(&raw)]);
    std::fs::read(&raw).unwrap()
}

/// Converts the source with these options and compares what is read of the result.
fn agrees(folder: &Path, format: &str, options: &str, compressed: bool) {
    let (source, _) = source(folder);
    let path = folder.join("image");
    let mut arguments = vec!["convert", "-f", "raw", "-O", format];
    if compressed {
        arguments.push("-c");
    }
    if !options.is_empty() {
        arguments.extend(["-o", options]);
    }
    arguments.extend([text(&source), text(&path)]);
    qemu(&arguments);
    let bytes = std::fs::read(&path).unwrap();
    let expected = as_raw(format, &path);
    let what = format!("{format} {options} compressed {compressed}");
    let report = info(&bytes);
    assert_eq!(report.format.qemu_name(), format, "{what}");
    assert!(report.findings.is_empty(), "{what}: {:?}", report.findings);
    assert_eq!(report.virtual_size, Some(expected.len() as u64), "{what}");
    if let Some(cluster) = report.cluster_size {
        let json = run(
            "qemu-img",
            &["info", "--output=json", "-f", format, text(&path)],
        );
        let json = String::from_utf8(json.stdout).unwrap();
        let field = format!("\"cluster-size\": {cluster},");
        assert!(
            json.contains(&field) || !json.contains("cluster-size"),
            "{what}: {json}"
        );
    }
    let read = disk(&bytes, &Options::default()).unwrap();
    assert!(read == expected, "{what}");
}

#[test]
fn qcow2_of_each_cluster_size_version_and_compression_is_read_as_qemu_img_reads_it() {
    let folder = needs_qemu!();
    for bits in 9..=21 {
        let size = 1 << bits;
        agrees(
            folder.path(),
            "qcow2",
            &format!("compat=0.10,cluster_size={size}"),
            bits % 2 == 0,
        );
        for (kind, compressed) in [("zlib", false), ("zlib", true), ("zstd", true)] {
            let options = format!("cluster_size={size},compression_type={kind}");
            agrees(folder.path(), "qcow2", &options, compressed);
        }
        if bits >= 14 {
            let options = format!("cluster_size={size},extended_l2=on");
            agrees(folder.path(), "qcow2", &options, bits % 2 == 0);
        }
    }
    for options in [
        "refcount_bits=1",
        "refcount_bits=2",
        "refcount_bits=64",
        "lazy_refcounts=on",
        "preallocation=metadata",
        "preallocation=falloc",
        "preallocation=full",
    ] {
        agrees(folder.path(), "qcow2", options, false);
    }
}

#[test]
fn the_other_formats_and_their_kinds_are_read_as_qemu_img_reads_them() {
    let folder = needs_qemu!();
    for (format, options, compressed) in [
        ("vpc", "subformat=dynamic", false),
        ("vpc", "subformat=fixed", false),
        ("vpc", "subformat=dynamic,force_size=on", false),
        ("vpc", "subformat=fixed,force_size=on", false),
        ("vhdx", "", false),
        ("vhdx", "subformat=fixed", false),
        ("vhdx", "block_size=1M", false),
        ("vhdx", "block_size=32M,log_size=2M", false),
        ("vdi", "", false),
        ("vdi", "static=on", false),
        ("vmdk", "", false),
        ("vmdk", "zeroed_grain=on", false),
        ("vmdk", "subformat=streamOptimized", false),
        ("vmdk", "compat6=on", false),
    ] {
        agrees(folder.path(), format, options, compressed);
    }
}

#[test]
fn subclusters_and_zero_flags_that_qemu_wrote_are_read_as_it_reads_them() {
    let folder = needs_qemu!();
    let path = folder.path().join("image");
    let (base, _) = source(folder.path());
    let backing = format!("backing_file={},backing_fmt=raw", text(&base));
    for options in ["extended_l2=on", "cluster_size=4096", "compat=0.10"] {
        let options = format!("{options},{backing}");
        qemu(&["create", "-q", "-f", "qcow2", "-o", &options, text(&path)]);
        for write in [
            "write -P 7 4096 2048",
            "write -P 9 700416 65536",
            "write -z 1572864 131072",
            "write -z -u 1966080 4096",
            "write -P 3 5242880 1536",
            "discard 700416 4096",
        ] {
            let output = run("qemu-io", &["-f", "qcow2", "-c", write, text(&path)]);
            assert!(output.status.success());
        }
        let bytes = std::fs::read(&path).unwrap();
        let backing = std::fs::read(&base).unwrap();
        let mut image = open_with(&bytes, &allowing(&[Reason::BackingFile])).unwrap();
        let read = contents(&mut image, &bytes, Some(&backing)).unwrap();
        assert!(read == as_raw("qcow2", &path), "{options}");
    }
}

#[test]
fn snapshots_that_qemu_took_are_read_as_it_reads_them() {
    let folder = needs_qemu!();
    let (source, _) = source(folder.path());
    let path = folder.path().join("image");
    qemu(&[
        "convert",
        "-f",
        "raw",
        "-O",
        "qcow2",
        text(&source),
        text(&path),
    ]);
    for round in 1..4 {
        qemu(&["snapshot", "-c", &format!("round {round}"), text(&path)]);
        let write = format!("write -P {round} {} 100000", round * 65536);
        run("qemu-io", &["-f", "qcow2", "-c", &write, text(&path)]);
    }
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(info(&bytes).snapshots, 3);
    for round in 1..4 {
        let name = format!("round {round}");
        let raw = folder.path().join("raw");
        let selector = format!("snapshot.name={name}");
        let arguments = [
            "convert",
            "-l",
            &selector,
            "-O",
            "raw",
            text(&path),
            text(&raw),
        ];
        qemu(&arguments);
        let mut image = open_qcow2(&bytes);
        let mut file = &bytes[..];
        image
            .select_snapshot(&mut file, name.as_bytes(), &Options::default())
            .unwrap();
        let read = contents(&mut Image::Qcow2(image), &bytes, None).unwrap();
        assert!(read == std::fs::read(&raw).unwrap(), "{name}");
    }
}

/// Errors and leaks by both checks.
fn checks(folder: &Path, bytes: &[u8]) -> [(u64, u64); 2] {
    let path = folder.join("image");
    std::fs::write(&path, bytes).unwrap();
    let output = run(
        "qemu-img",
        &["check", "--output=json", "-f", "qcow2", text(&path)],
    );
    let json = String::from_utf8(output.stdout).unwrap();
    let field = |name: &str| {
        let Some(at) = json.find(&format!("\"{name}\": ")) else {
            return 0;
        };
        let rest = &json[at + name.len() + 4..];
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap();
        rest[..end].parse().unwrap()
    };
    let theirs = (field("corruptions"), field("leaks"));
    let image = open_qcow2(bytes);
    let mut source = bytes;
    let mut check = Check::new(&image, &source, &CheckOptions::default());
    while !check.step(&mut source).unwrap() {}
    [(check.report().errors, check.report().leaks), theirs]
}

#[test]
fn checks_of_refcounts_count_what_qemu_img_counts() {
    let folder = needs_qemu!();
    let puts = [
        Data,
        Compressed,
        Hole,
        Zero,
        ZeroAllocated,
        Compressed,
        Data,
        Data,
    ];
    for (bits, order, snapshots) in [(16, 4, true), (9, 3, false), (12, 6, true), (16, 2, false)] {
        let mut image = support::qcow2::Qcow2::new(bits, &puts);
        image.refcount_order = order;
        if snapshots {
            image.snapshots = vec![("1", "one"), ("2", "two")];
        }
        let built = image.build();
        let [ours, theirs] = checks(folder.path(), &built.bytes);
        assert_eq!(
            (ours, theirs),
            ((0, 0), (0, 0)),
            "bits {bits}, order {order}"
        );
    }
    let built = support::qcow2::Qcow2::new(16, &puts).build();
    let cluster = built.first_l2 / 65536 + 1;
    let mut spoilt = [(); 4].map(|()| built.bytes.clone());
    be16(&mut spoilt[0], built.first_block + cluster * 2, 3);
    be16(&mut spoilt[1], built.first_block + cluster * 2, 0);
    be64(&mut spoilt[2], built.first_l2, 0);
    be64(&mut spoilt[3], built.first_l2, (cluster as u64) << 16);
    for (case, bytes) in spoilt.iter().enumerate() {
        let [ours, theirs] = checks(folder.path(), bytes);
        assert_eq!(ours, theirs, "case {case}");
    }
    // What qemu-img itself makes, with everything in it.
    let (source, _) = source(folder.path());
    let path = folder.path().join("made");
    for options in ["cluster_size=512", "extended_l2=on", "refcount_bits=1"] {
        let arguments = ["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options];
        let mut arguments = arguments.to_vec();
        if options == "refcount_bits=1" {
            arguments.remove(1);
        }
        arguments.extend([text(&source), text(&path)]);
        qemu(&arguments);
        let bitmap = ["bitmap", "--add", text(&path), "dirty"];
        qemu(&bitmap);
        let [ours, theirs] = checks(folder.path(), &std::fs::read(&path).unwrap());
        assert_eq!((ours, theirs), ((0, 0), (0, 0)), "{options}");
    }
}

#[test]
fn images_of_our_writers_are_read_by_qemu_img_as_they_are_here() {
    let folder = needs_qemu!();
    let path = folder.path().join("image");
    let puts = [Data, Compressed, Hole, Zero, ZeroAllocated, Data];
    for bits in [9, 14, 16, 21] {
        for extended in [false, true] {
            let mut image = support::qcow2::Qcow2::new(bits, &puts);
            image.extended = extended && bits >= 14;
            std::fs::write(&path, image.build().bytes).unwrap();
            assert!(
                as_raw("qcow2", &path) == image.disk,
                "bits {bits}, extended {extended}"
            );
        }
    }
    for stream in [false, true] {
        let image = support::vmdk::Vmdk::new(stream, &[Data, Hole, Data], 65536, 3 << 16);
        std::fs::write(&path, image.build()).unwrap();
        assert!(as_raw("vmdk", &path) == image.disk, "streamed {stream}");
    }
    // The size of a VHD is by its creator.
    for creator in [
        b"vpc ", b"qemu", b"qem2", b"win ", b"d2v ", b"tap\0", b"wa\0\0", b"abcd",
    ] {
        let mut image = support::vhd::Vhd::new(true, &[Data], 1 << 20, 1 << 20);
        image.creator = *creator;
        let bytes = image.build();
        std::fs::write(&path, &bytes).unwrap();
        assert!(as_raw("vpc", &path) == disk(&bytes, &Options::default()).unwrap());
    }
    // qemu-img replays a log only when it may write.
    let mut image = support::vhdx::Vhdx::new(&[Data, Hole, Data], 1 << 20, 3 << 20);
    image.bat_in_log = true;
    std::fs::write(&path, image.build()).unwrap();
    qemu(&["check", "-r", "all", "-f", "vhdx", text(&path)]);
    assert!(as_raw("vhdx", &path) == image.disk);
}

#[test]
fn changed_images_that_are_read_at_all_are_read_as_qemu_img_reads_them() {
    let folder = needs_qemu!();
    let images = images(false);
    let path = folder.path().join("image");
    let raw = folder.path().join("raw");
    let (mut read, mut refused) = (0, 0);
    for round in 0..60 * images.len() {
        let mut bytes = images[round % images.len()].clone();
        let random = pattern(round as u64, 64);
        for change in random[1..]
            .chunks_exact(6)
            .take(1 + usize::from(random[0] % 4))
        {
            let at = u32::from_le_bytes(change[..4].try_into().unwrap());
            let at = place(at, change[4], bytes.len());
            // One bit: more than that is seldom believed.
            bytes[at] ^= 1 << (change[5] % 8);
        }
        seal(&mut bytes);
        let report = info(&bytes);
        // QEMU leaves out what is behind the last whole sector of a qcow2 disk.
        let fits = |size: u64| size <= 64 << 20 && size.is_multiple_of(512);
        if !report.virtual_size.is_some_and(fits) {
            continue;
        }
        let Ok(ours) = disk(&bytes, &Options::default()) else {
            refused += 1;
            continue;
        };
        std::fs::write(&path, &bytes).unwrap();
        let format = report.format.qemu_name();
        let arguments = [
            "convert",
            "-f",
            format,
            "-O",
            "raw",
            text(&path),
            text(&raw),
        ];
        if run("qemu-img", &arguments).status.success() {
            read += 1;
            let theirs = std::fs::read(&raw).unwrap();
            assert!(ours == theirs, "round {round}, {format}: {report:?}");
        }
    }
    assert!(read > 50 && refused > 50, "{read} read, {refused} refused");
}

#[test]
fn checks_of_changed_images_agree_with_qemu_img_on_what_is_sound() {
    let folder = needs_qemu!();
    let images = &images(false)[..3];
    let (mut sound, mut unsound) = (0, 0);
    for round in 0..100 * images.len() {
        let mut bytes = images[round % images.len()].clone();
        let random = pattern(round as u64 + 7, 16);
        let at = u32::from_le_bytes(random[..4].try_into().unwrap());
        let at = place(at, random[4] % 3 + 9, bytes.len());
        bytes[at] ^= 1 << (random[5] % 8);
        if open(&bytes).is_err() {
            continue;
        }
        let [ours, theirs] = checks(folder.path(), &bytes);
        assert_eq!(
            ours.0 > 0,
            theirs.0 > 0,
            "round {round}: {ours:?}, {theirs:?}"
        );
        if ours.0 == 0 {
            // Behind an entry that is not followed, only this check counts what is lost.
            assert_eq!(ours.1, theirs.1, "round {round}");
        }
        sound += usize::from(ours == (0, 0));
        unsound += usize::from(ours != (0, 0));
    }
    assert!(sound > 50 && unsound > 20, "{sound} sound, {unsound} not");
}
