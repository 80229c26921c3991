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

pub(crate) mod before_start;
pub(crate) mod elf;
pub(crate) mod files;
pub(crate) mod fuse;
pub(crate) mod harness;
pub(crate) mod image;
pub(crate) mod loop_device;
pub(crate) mod memory_device;
pub(crate) mod mount;
pub(crate) mod operation;
pub(crate) mod preload;
pub(crate) mod process;
pub(crate) mod program;
pub(crate) mod qemu;
pub(crate) mod strace;
pub(crate) mod terminal;
pub(crate) mod virtio;

use std::io::Write;

pub(crate) use files::{Files, random};
pub(crate) use loop_device::Loop;
pub(crate) use operation::Operation;
pub(crate) use process::{Finished, Running, Vmm};
pub(crate) use qemu::needs_qemu;
pub(crate) use strace::needs_strace;
pub(crate) use test_attribute::test;

/// The guest that the VMM has built in, as an ELF image.
pub(crate) static GUEST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/guest.elf"));

/// Ends the test here on a host without KVM: as a failure under CI, otherwise as ignored.
macro_rules! needs_kvm {
    () => {
        if !$crate::common::kvm_is_usable() {
            return;
        }
    };
}
pub(crate) use needs_kvm;

/// Whether this process may use `/dev/kvm`. If not, the current test is counted as ignored.
pub(crate) fn kvm_is_usable() -> bool {
    match vmm::machine::open_kvm() {
        Ok(_) => true,
        Err(error) if std::env::var_os("CI").is_some_and(|value| value == "true") => {
            panic!("{error}")
        }
        Err(error) => {
            skip(&error.to_string());
            false
        }
    }
}

/// Has the current test counted as ignored, for `reason`; the test then returns. In a target with
/// the compiler's own harness nothing can do that.
pub(crate) fn skip(reason: &str) {
    harness::ignore(reason);
}

/// Says that the current test leaves something out, and does the rest. Not with `eprintln!`, which
/// a harness may capture.
pub(crate) fn leave_out(reason: &str) {
    let _ = std::io::stderr().write_all(format!("left out: {reason}\n").as_bytes());
    harness::list(&format!("in part: {reason}"));
}

/// A file system that stops answering ([`fuse`]). If there can be none the test is counted as ignored.
pub(crate) fn hanging(silence: fuse::Silence, polite: bool) -> Option<fuse::Hanging> {
    let hanging = fuse::Hanging::mount(silence, polite);
    if hanging.is_none() {
        skip("a FUSE file system cannot be mounted here");
    }
    hanging
}

/// Whether the tests run as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
