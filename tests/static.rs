//! A static binary runs where there is nothing else. `make test-static` builds one and runs this
//! with it; the binary that cargo builds for tests is not static.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use common::preload::is_static;
use common::process::{binary, copy_program};
use common::{Files, Vmm, is_root, needs_kvm, skip, test};

fn main() -> std::process::ExitCode {
    common::harness::main()
}

fn needs_static() -> bool {
    if !is_static() {
        skip("the binary under test is not static: make test-static tests one that is");
    }
    is_static()
}

#[test]
fn a_static_binary_starts_where_there_is_no_library() {
    if !needs_static() {
        return;
    }
    if !is_root() {
        return skip("it takes root to enter an empty root folder");
    }
    let folder = tempfile::tempdir().unwrap();
    copy_program(&binary(), &folder.path().join("vmm"));
    let root = CString::new(folder.path().as_os_str().as_bytes()).unwrap();
    let enter = move || {
        // SAFETY: the path is a string of C.
        let entered = unsafe { libc::chroot(root.as_ptr()) };
        // SAFETY: as above.
        if entered == 0 && unsafe { libc::chdir(c"/".as_ptr()) } == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    };
    let version = Vmm::of(Path::new("/vmm"))
        .arg("--version")
        .before_start(enter)
        .succeed();
    assert!(version.stdout.starts_with("vmm "), "{version:?}");
}

#[test]
fn a_static_binary_copies_in_its_sandbox() {
    needs_kvm!();
    if needs_static() {
        let files = Files::random(1_000_000);
        files.vmm().succeed();
        files.assert_copied();
    }
}
