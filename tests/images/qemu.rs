//! Agreement with qemu-img, where it is installed.

use serde_json::Value;

use crate::common::qemu::{qemu, text};
use crate::common::{needs_kvm, needs_qemu, test};
use crate::{SAFE, object};

/// Sub-formats of all formats that are read, each with its options for qemu-img.
const IMAGES: [(&str, &str); 19] = [
    ("qcow2", "compat=0.10"),
    ("qcow2", "compat=0.10,cluster_size=512"),
    ("qcow2", "compat=1.1,cluster_size=2M"),
    ("qcow2", "compat=1.1,lazy_refcounts=on"),
    ("qcow2", "compat=1.1,refcount_bits=1"),
    ("qcow2", "compat=1.1,refcount_bits=64"),
    ("qcow2", "compat=1.1,extended_l2=on,cluster_size=128k"),
    ("qcow2", "compat=1.1,compression_type=zstd"),
    ("qcow2", "compat=1.1,preallocation=metadata"),
    ("vmdk", "subformat=monolithicSparse"),
    ("vmdk", "subformat=streamOptimized"),
    ("vpc", "subformat=dynamic"),
    ("vpc", "subformat=fixed"),
    ("vpc", "subformat=dynamic,force_size=on"),
    ("vhdx", "subformat=dynamic"),
    ("vhdx", "subformat=fixed"),
    ("vhdx", "subformat=dynamic,block_size=1M"),
    ("vdi", "static=off"),
    ("vdi", "static=on"),
];

#[test]
fn the_answer_has_qemu_imgs_values_under_qemu_imgs_names() {
    needs_kvm!();
    needs_qemu!("qemu-img");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    for (format, options) in IMAGES {
        for size in ["64M", "3145728"] {
            qemu(
                "qemu-img",
                &[
                    "create",
                    "-q",
                    "-f",
                    format,
                    "-o",
                    options,
                    text(&path),
                    size,
                ],
            );
            let theirs = qemu(
                "qemu-img",
                &["info", "--output=json", "-f", format, text(&path)],
            );
            let theirs: Value = serde_json::from_str(&theirs).unwrap();
            let (ours, status) = object("info", &path, &[]);
            let what = format!("{format} {options} {size}: {ours} {theirs}");
            assert_eq!(status, Some(SAFE), "{what}");
            compare(&ours, &theirs, &what);
            std::fs::remove_file(&path).unwrap();
        }
    }
}

/// Compares all fields that qemu-img has.
fn compare(ours: &Value, theirs: &Value, what: &str) {
    for field in [
        "virtual-size",
        "actual-size",
        "filename",
        "cluster-size",
        "dirty-flag",
        "backing-filename",
        "backing-filename-format",
    ] {
        if let Some(theirs) = theirs.get(field) {
            assert_eq!(ours.get(field), Some(theirs), "{field} of {what}");
        }
    }
    assert_eq!(
        ours.get("virtual-size").is_some(),
        theirs.get("virtual-size").is_some()
    );
    for field in [
        "compat",
        "compression-type",
        "lazy-refcounts",
        "refcount-bits",
        "corrupt",
        "extended-l2",
    ] {
        let [ours, theirs] = [ours, theirs].map(|object| &object["format-specific"]["data"][field]);
        if !theirs.is_null() {
            assert_eq!(ours, theirs, "{field} of {what}");
        }
    }
}

#[test]
fn snapshots_and_backing_files_are_told_as_qemu_img_tells_them() {
    needs_kvm!();
    needs_qemu!("qemu-img");
    let folder = tempfile::tempdir().unwrap();
    let [base, path] = ["base", "image"].map(|name| folder.path().join(name));
    qemu(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", text(&base), "64M"],
    );
    qemu(
        "qemu-img",
        &[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-b",
            text(&base),
            "-F",
            "qcow2",
            text(&path),
        ],
    );
    qemu("qemu-img", &["snapshot", "-c", "first one", text(&path)]);
    qemu(
        "qemu-img",
        &["snapshot", "-c", "zweiter Stand, größer", text(&path)],
    );
    let theirs = qemu("qemu-img", &["info", "--output=json", text(&path)]);
    let theirs: Value = serde_json::from_str(&theirs).unwrap();
    let (ours, _) = object("info", &path, &["--allow", "backing-file"]);
    compare(&ours, &theirs, "an image with snapshots");
    assert_eq!(ours["snapshot-count"], 2);
    for index in 0..2 {
        let [ours, theirs] = [&ours, &theirs].map(|object| &object["snapshots"][index]);
        for field in ["id", "name", "date-sec", "vm-state-size"] {
            assert_eq!(ours[field], theirs[field], "{field}");
        }
    }
}

#[test]
fn the_parent_of_a_vmdk_is_told_as_qemu_img_tells_it() {
    needs_kvm!();
    needs_qemu!("qemu-img");
    let folder = tempfile::tempdir().unwrap();
    let [base, path] = ["base.vmdk", "top.vmdk"].map(|name| folder.path().join(name));
    qemu(
        "qemu-img",
        &["create", "-q", "-f", "vmdk", text(&base), "64M"],
    );
    let over = ["-b", "base.vmdk", "-F", "vmdk", text(&path)];
    qemu(
        "qemu-img",
        &[&["create", "-q", "-f", "vmdk"][..], &over].concat(),
    );
    let theirs = qemu("qemu-img", &["info", "--output=json", text(&path)]);
    let theirs: Value = serde_json::from_str(&theirs).unwrap();
    let (ours, _) = object("info", &path, &["--allow", "backing-file"]);
    compare(&ours, &theirs, "an image with a parent");
    assert_eq!(ours["backing-filename"], "base.vmdk");
    assert_eq!(ours["backing-filename-format"], "vmdk");
    let (ours, _) = object("info", &base, &[]);
    assert!(
        ours.get("backing-filename").is_none() && ours.get("backing-filename-format").is_none()
    );
}

#[test]
fn sizes_are_written_as_qemu_img_writes_them() {
    needs_kvm!();
    needs_qemu!("qemu-img");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    for size in [
        "512",
        "1024000",
        "1047552",
        "1049088",
        "5242880",
        "10538496",
        "104857600",
        "1073741824",
        "1074790400",
        "1572864000",
        "107911053312",
        "8796093022208",
        "1023998976",
    ] {
        qemu(
            "qemu-img",
            &["create", "-q", "-f", "qcow2", text(&path), size],
        );
        let theirs = qemu("qemu-img", &["info", text(&path)]);
        let line = |text: &str| {
            let line = text.lines().find(|line| line.starts_with("virtual size:"));
            line.unwrap().to_owned()
        };
        let ours = crate::vmm("info", &path, &[]);
        assert_eq!(line(&ours.stdout), line(&theirs));
    }
}

#[test]
fn a_check_comes_to_what_qemu_img_comes_to() {
    needs_kvm!();
    needs_qemu!("qemu-img");
    let folder = tempfile::tempdir().unwrap();
    let [source, path] = ["source", "image"].map(|name| folder.path().join(name));
    std::fs::write(&source, crate::common::random(3 << 20, 1)).unwrap();
    for options in ["cluster_size=4k", "cluster_size=64k", "refcount_bits=4"] {
        qemu(
            "qemu-img",
            &[
                "convert",
                "-f",
                "raw",
                "-O",
                "qcow2",
                "-o",
                options,
                text(&source),
                text(&path),
            ],
        );
        qemu("qemu-img", &["snapshot", "-c", "s", text(&path)]);
        let (ours, status) = object("check", &path, &[]);
        assert_eq!(
            (status, &ours["verdict"]),
            (Some(SAFE), &"sound".into()),
            "{ours}"
        );
        let theirs = qemu("qemu-img", &["check", "--output=json", text(&path)]);
        let theirs: Value = serde_json::from_str(&theirs).unwrap();
        assert_eq!(
            ours["check"]["image-end-offset"],
            theirs["image-end-offset"]
        );
        let cluster = ours["cluster-size"].as_u64().unwrap();
        let data = ours["check"]["data"].as_u64().unwrap();
        assert_eq!(Some(data / cluster), theirs["allocated-clusters"].as_u64());
    }
}
