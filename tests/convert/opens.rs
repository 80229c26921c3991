//! What is opened, as strace(1) sees it: the files that the user names, and none that an image names,
//! although each of these is there and could be opened. The sandbox is off, so that nothing but the
//! program itself keeps it from that.

use std::fs;
use std::path::Path;

use crate::common::{Vmm, needs_kvm, needs_strace, test};
use crate::support::Put::{Data, Hole};
use crate::support::bytes::{be32, be64, put};
use crate::support::pattern;
use crate::support::qcow2::Qcow2;
use crate::support::vhd::{Vhd, seal};
use crate::support::vmdk::{Vmdk, descriptor};

/// What all names in the images have in common, and no name of the system.
const MARK: &str = "named-by-an-image";

/// Runs the VMM with these arguments in `folder`, and returns all that it has asked the kernel for
/// by a path.
fn paths(folder: &Path, arguments: &[&str]) -> String {
    let vmm = Vmm::bare().args(arguments).arg("--no-sandbox");
    let log = folder.join("log");
    vmm.traced(&log, &["-s", "4096", "-e", "trace=%file"])
        .current_dir(folder)
        .run();
    fs::read_to_string(log).unwrap()
}

/// Images that name a file, by a relative path and by an absolute one.
fn images(folder: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let mut images = Vec::new();
    for name in [
        MARK.to_owned(),
        folder.join(MARK).to_str().unwrap().to_owned(),
    ] {
        let name: &'static str = name.leak();
        let mut image = Qcow2::new(16, &[Data, Hole]);
        image.backing = Some(name);
        images.push(("a backing file of qcow2", image.build().bytes));

        let mut bytes = Qcow2::new(16, &[Data, Hole]).build().bytes;
        be64(&mut bytes, 72, 4);
        be32(&mut bytes, 112, 0x4441_5441);
        be32(&mut bytes, 116, name.len() as u32);
        put(&mut bytes, 120, &[0; 512]);
        put(&mut bytes, 120, name.as_bytes());
        images.push(("an external data file of qcow2", bytes));

        for kind in ["FLAT", "SPARSE", "VMFS"] {
            let text = descriptor("monolithicFlat", &format!("RW 8 {kind} \"{name}\" 0"));
            images.push(("an extent of a VMDK", text.into_bytes()));
        }
        let mut image = Vmdk::new(false, &[Data, Hole], 65536, 131_072);
        image.descriptor = descriptor("monolithicSparse", &format!("RW 256 SPARSE \"{name}\""));
        images.push(("an extent in the descriptor in a VMDK", image.build()));

        let mut image = Vmdk::new(false, &[Data, Hole], 65536, 131_072);
        image.descriptor = image
            .descriptor
            .replace("parentCID=ffffffff", "parentCID=1");
        let hint = format!("parentFileNameHint=\"{name}\"\n");
        image.descriptor.push_str(&hint);
        images.push(("the parent of a VMDK", image.build()));

        let mut image = Vhd::new(false, &[Data, Hole], 65536, 131_072);
        image.kind = 4;
        let mut bytes = image.build();
        let mut header = bytes[512..1536].to_vec();
        for (index, byte) in name.bytes().enumerate() {
            header[64 + index * 2 + 1] = byte;
        }
        seal(&mut header, 36);
        put(&mut bytes, 512, &header);
        images.push(("the parent of a VHD", bytes));

        let mut qed = vec![0; 4096];
        put(&mut qed, 0, b"QED\0");
        qed[16] = 1;
        qed[56] = 64;
        qed[60] = name.len() as u8;
        put(&mut qed, 64, name.as_bytes());
        images.push(("a backing file of QED", qed));
    }
    images
}

#[test]
fn no_path_that_an_image_names_is_opened() {
    needs_kvm!();
    needs_strace!();
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    // It could be opened, and be the disk that is meant.
    fs::write(folder.path().join(MARK), pattern(1, 131_072)).unwrap();
    let allow = [
        "--allow=backing-file",
        "--allow=unknown-format",
        "--allow=other-format",
        "--allow=several-formats",
    ];
    let convert = ["convert", "--input", "image", "--output", "disk"];
    for (what, bytes) in images(folder.path()) {
        fs::write(&image, bytes).unwrap();
        for command in [&["info", "image"][..], &["check", "image"], &convert] {
            for allowed in [&[][..], &allow] {
                let opened = paths(folder.path(), &[command, allowed].concat());
                // The trace is one: the image itself is in it.
                assert!(opened.contains("\"image\""), "{what}: {opened}");
                let named = opened.lines().find(|line| line.contains(MARK));
                assert_eq!(named, None, "{what}: {command:?} {allowed:?}");
                let _ = fs::remove_file(folder.path().join("disk"));
            }
        }
    }
    // What the user names is opened, and then it is seen.
    let mut top = Qcow2::new(16, &[Hole]);
    top.backing = Some("elsewhere");
    fs::write(&image, top.build().bytes).unwrap();
    let given = [&convert[..], &["--backing", MARK, allow[1]]].concat();
    let opened = paths(folder.path(), &given);
    let by_path = opened.lines().filter(|line| !line.contains("execve"));
    assert!(by_path.clone().any(|line| line.contains(MARK)), "{opened}");
    assert!(folder.path().join("disk").exists(), "{opened}");
}
