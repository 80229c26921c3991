//! A static binary runs where there is nothing else. `make test-static` builds one and runs this
//! with it; the binary that cargo builds for tests is not static.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use common::process::{binary, copy_program};
use common::{Files, Vmm, is_root, needs_kvm, skip, test};

fn main() -> std::process::ExitCode {
    common::harness::main()
}

/// Whether an ELF file asks for a dynamic loader (PT_INTERP, System V ABI, "Program Header").
fn wants_loader(path: &Path) -> bool {
    const PT_INTERP: u32 = 3;
    let elf = fs::read(path).unwrap();
    let half = |at: usize| usize::from(u16::from_le_bytes(elf[at..at + 2].try_into().unwrap()));
    let table = usize::try_from(u64::from_le_bytes(elf[32..40].try_into().unwrap())).unwrap();
    let (size, count) = (half(54), half(56));
    (0..count).any(|index| {
        let entry = table + index * size;
        elf[entry..entry + 4] == PT_INTERP.to_le_bytes()
    })
}

fn is_static() -> bool {
    let is_static = !wants_loader(&binary());
    if !is_static {
        skip("the binary under test is not static: make test-static tests one that is");
    }
    is_static
}

#[test]
fn a_static_binary_starts_where_there_is_no_library() {
    if !is_static() {
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
    if is_static() {
        let files = Files::random(1_000_000);
        files.vmm().succeed();
        files.assert_copied();
    }
}
