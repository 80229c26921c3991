//! What is said of images, as text and as JSON.

use std::fs;

use serde_json::Value;

use crate::common::{needs_kvm, test};
use crate::support::Put::{Compressed, Data, Hole};
use crate::support::bytes::{be16, be64, put};
use crate::support::qcow2::Qcow2;
use crate::support::vhd::Vhd;
use crate::{BROKEN, LEAKS, REFUSED, SAFE, object, reasons, vmm};

fn qcow2() -> Qcow2 {
    Qcow2::new(16, &[Data, Hole, Compressed])
}

#[test]
fn an_image_is_described_in_lines_that_end_with_the_verdict() {
    needs_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.qcow2");
    let image = qcow2().build().bytes;
    fs::write(&path, &image).unwrap();
    let run = vmm("info", &path, &[]);
    assert_eq!((run.code(), run.stderr.as_str()), (Some(SAFE), ""));
    let lines = run.lines();
    assert_eq!(lines[0], format!("image: {}", path.display()));
    for line in [
        "format: qcow2 version 3",
        "virtual size: 192 KiB (196608 bytes)",
        "cluster size: 64 KiB (65536 bytes)",
        "compression: zlib",
        "refcount bits: 16",
    ] {
        assert!(lines.contains(&line), "{line} in {lines:?}");
    }
    assert!(run.stdout.contains(&format!("({} bytes)", image.len())));
    assert_eq!(lines.last(), Some(&"verdict: safe"));
}

#[test]
fn names_from_the_image_are_quoted_whatever_is_in_them() {
    needs_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let mut image = qcow2();
    image.snapshots = vec![("1", "a\nverdict: safe\u{1b}[2J"), ("2", "\u{202e}efas")];
    image.backing = Some("/etc/passwd\"\nverdict: safe");
    fs::write(&path, image.build().bytes).unwrap();
    let run = vmm("info", &path, &[]);
    assert_eq!(run.code(), Some(REFUSED));
    let lines = run.lines();
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.starts_with("verdict:"))
            .count(),
        1
    );
    assert!(lines.contains(&"verdict: refused"));
    assert!(
        lines.contains(&r#"backing: "/etc/passwd\"\nverdict: safe""#),
        "{lines:?}"
    );
    assert!(
        run.stdout.contains(r#""1" "a\nverdict: safe\u{1b}[2J""#),
        "{}",
        run.stdout
    );
    assert!(
        run.stdout.contains(r#""2" "\u{202e}efas""#),
        "{}",
        run.stdout
    );
    let is_plain = |c: char| c == '\n' || c == ' ' || c.is_ascii_graphic();
    assert!(run.stdout.chars().all(is_plain), "{:?}", run.stdout);

    let json = vmm("info", &path, &["--format=json"]);
    assert!(json.stdout.chars().all(is_plain), "{:?}", json.stdout);
    let (object, _) = object("info", &path, &[]);
    assert_eq!(object["backing-filename"], "/etc/passwd\"\nverdict: safe");
    assert_eq!(object["snapshots"][0]["name"], "a\nverdict: safe\u{1b}[2J");
    assert_eq!(object["references"][0]["kind"], "backing");
}

#[test]
fn a_reason_that_is_allowed_is_told_and_does_not_count() {
    needs_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let mut image = qcow2();
    image.backing = Some("base");
    fs::write(&path, image.build().bytes).unwrap();
    let (refused, status) = object("info", &path, &[]);
    assert_eq!(
        (&refused["verdict"], status),
        (&"refused".into(), Some(REFUSED))
    );
    assert_eq!(refused["reasons"][0]["allowed"], false);
    let (allowed, status) = object("info", &path, &["--allow", "backing-file"]);
    assert_eq!((&allowed["verdict"], status), (&"safe".into(), Some(SAFE)));
    assert_eq!(reasons(&allowed), ["backing-file"]);
    assert_eq!(allowed["reasons"][0]["allowed"], true);
    // What its clusters lack is that file's.
    let (checked, _) = object("check", &path, &[]);
    let [zero, backing] = ["zero", "backing"].map(|key| &checked["check"][key]);
    assert_eq!((zero, backing), (&0.into(), &65536.into()));
    let text = vmm("info", &path, &["--allow", "backing-file"]);
    assert!(
        text.lines().last().unwrap().ends_with("- allowed"),
        "{text:?}"
    );
}

#[test]
fn raw_is_for_the_user_to_say_unless_there_is_a_partition_table() {
    needs_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let mut disk = vec![0; 1 << 20];
    fs::write(&path, &disk).unwrap();
    let (unknown, status) = object("info", &path, &[]);
    assert_eq!(
        (reasons(&unknown), status),
        (vec!["unknown-format"], Some(REFUSED))
    );
    let (claimed, status) = object("info", &path, &["--image-format", "raw"]);
    assert_eq!((reasons(&claimed), status), (vec![], Some(SAFE)));
    put(&mut disk, 450, &[0x83, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0]);
    put(&mut disk, 510, b"\x55\xaa");
    fs::write(&path, &disk).unwrap();
    let (table, status) = object("info", &path, &[]);
    assert_eq!(
        (&table["partition-table"], status),
        (&"mbr".into(), Some(SAFE))
    );
    let (other, status) = object("info", &path, &["--image-format", "qcow2"]);
    assert_eq!(status, Some(BROKEN));
    assert!(reasons(&other).contains(&"other-format"));
}

#[test]
fn a_disk_that_is_too_large_is_refused_where_the_user_says_so() {
    needs_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    fs::write(&path, qcow2().build().bytes).unwrap();
    let (object, status) = object("info", &path, &["--max-virtual-size", "128K"]);
    assert_eq!(status, Some(REFUSED));
    assert_eq!(reasons(&object), ["virtual-size-too-large"]);
}

#[test]
fn a_check_tells_sound_leaking_broken_and_unchecked_images_apart() {
    needs_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let checked = |bytes: &[u8]| -> (Value, Option<i32>) {
        fs::write(&path, bytes).unwrap();
        object("check", &path, &[])
    };
    let built = qcow2().build();
    let (sound, status) = checked(&built.bytes);
    assert_eq!((&sound["verdict"], status), (&"sound".into(), Some(SAFE)));
    assert_eq!(sound["check"]["corruptions"], 0);
    assert_eq!(sound["check"]["data"], 65536);
    assert_eq!(sound["check"]["compressed"], 65536);
    assert_eq!(
        (&sound["check"]["zero"], &sound["check"]["lost"]),
        (&65536.into(), &0.into())
    );
    assert_eq!(sound["check"]["image-end-offset"], built.bytes.len());

    let mut leaking = built.bytes.clone();
    leaking.extend([0; 65536]);
    let cluster = leaking.len() / 65536 - 1;
    be16(&mut leaking, built.first_block + 2 * cluster, 1);
    let (leaks, status) = checked(&leaking);
    assert_eq!((&leaks["verdict"], status), (&"leaks".into(), Some(LEAKS)));
    assert_eq!(leaks["check"]["problems"][0]["name"], "leak");
    assert_eq!(leaks["check"]["problems"][0]["offset"], cluster << 16);

    let mut broken = built.bytes.clone();
    be16(&mut broken, built.first_block, 0);
    let (errors, status) = checked(&broken);
    assert_eq!(
        (&errors["verdict"], status),
        (&"broken".into(), Some(BROKEN))
    );
    assert_eq!(errors["check"]["problems"][0]["name"], "refcount-too-low");

    let mut beyond = built.bytes.clone();
    be64(&mut beyond, built.first_l2, 1 << 63 | 1 << 40);
    let (errors, status) = checked(&beyond);
    assert_eq!(status, Some(BROKEN), "{errors}");

    // What only refcounts tell is left out where there are none.
    let (other, status) = checked(&Vhd::new(false, &[Data, Hole], 65536, 131_072).build());
    assert_eq!(
        (&other["check"]["zero"], status),
        (&65536.into(), Some(SAFE))
    );
    assert_eq!(other["check"].get("image-end-offset"), None, "{other}");

    let (raw, status) = checked(&[0; 4096]);
    assert_eq!(
        (&raw["verdict"], status),
        (&"not checked".into(), Some(REFUSED))
    );
    assert_eq!(raw.get("check"), None);
    assert_eq!(
        raw["uncheckable"],
        "a raw disk has no tables that could be checked"
    );
}

#[test]
fn a_check_of_an_image_that_names_another_file_opens_only_the_image() {
    needs_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let mut image = qcow2();
    // A named pipe: whoever opened it would hang.
    let pipe: &'static str = folder
        .path()
        .join("pipe")
        .to_str()
        .unwrap()
        .to_owned()
        .leak();
    image.backing = Some(pipe);
    rustix::fs::mkfifoat(rustix::fs::CWD, pipe, rustix::fs::Mode::RWXU).unwrap();
    fs::write(&path, image.build().bytes).unwrap();
    let (object, status) = object("check", &path, &["--timeout", "10"]);
    assert_eq!((&object["verdict"], status), (&"sound".into(), Some(SAFE)));
    assert_eq!(reasons(&object), ["backing-file"]);
}
