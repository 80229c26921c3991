//! What the whole-VM tests share: the VMM as a child process with a hard limit on its time, a
//! folder for its files, and exact comparison of what it leaves there.
//!
//! The binary under test is the one that cargo built, or `VMM_BINARY`, so that the test binaries
//! can be carried to another host.
#![allow(
    dead_code,
    unused_macros,
    unused_imports,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "each test binary uses a part of this, and a failure in a test is to panic"
)]

pub(crate) mod elf;
pub(crate) mod files;
pub(crate) mod fuse;
pub(crate) mod process;
pub(crate) mod program;
pub(crate) mod virtio;

use std::io::Write;

pub(crate) use files::{Files, random};
pub(crate) use process::{Finished, Running, Vmm};

/// The guest that the VMM has built in, as an ELF image.
pub(crate) static GUEST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/guest.elf"));

/// Ends the test here on a host without KVM: as a failure under CI, otherwise as skipped.
macro_rules! needs_kvm {
    () => {
        if !$crate::common::kvm_is_usable() {
            return;
        }
    };
}
pub(crate) use needs_kvm;

/// Whether this process may use `/dev/kvm`; says so if not.
pub(crate) fn kvm_is_usable() -> bool {
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm");
    match opened {
        Ok(_) => true,
        Err(error) if std::env::var_os("CI").is_some_and(|value| value == "true") => {
            panic!("cannot open /dev/kvm: {error}")
        }
        Err(error) => {
            skip(&format!("cannot open /dev/kvm: {error}"));
            false
        }
    }
}

/// Says that the current test is skipped. Not with `eprintln!`, which the test runner captures.
pub(crate) fn skip(reason: &str) {
    let thread = std::thread::current();
    let line = format!("skipped {}: {reason}\n", thread.name().unwrap_or("a test"));
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Whether the tests run as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
