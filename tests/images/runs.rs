//! How a look into an image ends when something else than the image is wrong.

use std::fs::{self, File};
use std::io::Read;

use crate::common::strace::with_fault;
use crate::common::{Vmm, needs_kvm, needs_strace, random, test};
use crate::support::Put::Data;
use crate::support::qcow2::Qcow2;
use crate::{REFUSED, vmm};

#[test]
fn a_file_that_cannot_be_read_is_the_hosts_failure() {
    let folder = tempfile::tempdir().unwrap();
    let missing = vmm("info", &folder.path().join("missing"), &[]);
    missing.assert_failed(3, "No such file");
    let json = vmm("info", folder.path(), &["--format", "json"]);
    json.assert_failed(3, "directory");
    let object: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(object["type"], "result");
    assert_eq!(object["outcome"], "host_error");
    assert_eq!(object["status"], 3);
}

#[test]
fn an_image_whose_bytes_cannot_be_read_has_no_answer() {
    needs_kvm!();
    needs_strace!();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    fs::write(&path, Qcow2::new(16, &[Data]).build().bytes).unwrap();
    for command in ["info", "check"] {
        let vmm = Vmm::bare().arg(command).arg("--no-sandbox").arg(&path);
        let finished = with_fault(vmm, "preadv:error=EIO");
        assert_eq!((finished.code(), finished.stdout.as_str()), (Some(3), ""));
        let last = finished.stderr.lines().last().unwrap();
        assert!(last.ends_with("at offset 0: Input/output error"), "{last}");
    }
}

#[test]
fn an_answer_that_cannot_be_written_is_a_failure_and_a_reader_who_has_gone_is_none() {
    needs_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    fs::write(&path, Qcow2::new(16, &[Data]).build().bytes).unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let run = Vmm::bare().arg("info").arg(&path).stdout(full).run();
    assert_eq!(run.code(), Some(3), "{run:?}");
    assert!(run.stderr.contains("cannot write the answer"), "{run:?}");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let run = Vmm::bare().arg("info").arg(&path).stdout(writer).run();
    assert_eq!((run.code(), run.stderr.as_str()), (Some(0), ""));
}

#[test]
fn an_answer_of_any_length_arrives_whole_however_slow_its_reader_is() {
    needs_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let mut image = Qcow2::new(16, &[Data]);
    // A byte that is shown as four.
    let name: &'static str = "\u{1}".repeat(250).leak();
    image.snapshots = vec![(name, name); 300];
    fs::write(&path, image.build().bytes).unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let running = Vmm::bare().arg("info").arg(&path).stdout(writer).start();
    let mut text = Vec::new();
    loop {
        let mut piece = [0; 32768];
        match reader.read(&mut piece).unwrap() {
            0 => break,
            len => text.extend_from_slice(&piece[..len]),
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let run = running.finish();
    let text = String::from_utf8(text).unwrap();
    assert_eq!(run.code(), Some(0), "{run:?}");
    assert!(text.len() > 256 << 10, "{}", text.len());
    assert_eq!(
        text.lines().filter(|line| line.contains("\\u{1}")).count(),
        256
    );
    assert!(text.contains("snapshots: 300\n") && text.contains("  and 44 more\n"));
    assert!(text.ends_with("verdict: safe\n"));
}

#[test]
fn any_bytes_are_an_image_and_nothing_is_changed_beside_it() {
    needs_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    for len in [0, 1, 511, 512, 513, 100_000] {
        let bytes = random(len, 7);
        fs::write(&path, &bytes).unwrap();
        for command in ["info", "check"] {
            let run = vmm(command, &path, &[]);
            assert_eq!(
                (run.code(), run.stderr.as_str()),
                (Some(REFUSED), ""),
                "{run:?}"
            );
        }
        assert!(fs::read(&path).unwrap() == bytes);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
