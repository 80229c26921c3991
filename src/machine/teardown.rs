//! Leaves taking the virtual machine apart to a child process.
//!
//! When the last reference to a VM goes, the kernel waits for a grace period (SRCU) that began when
//! its ioeventfds were registered, 15 ms on the kernels where this was measured: several times as
//! long as a small copy takes, and with nothing left to do for whoever waits. So a child holds the
//! last reference. It can do nothing but wait until this process has ended, and ends then.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use kvm_ioctls::VmFd;

/// Keeps the child waiting for as long as it is open, which is as long as this process lives.
#[derive(Debug)]
pub(super) struct Teardown {
    _alive: OwnedFd,
}

impl Teardown {
    /// Starts the child. The process must have no other thread yet, and the guest's memory must
    /// not be mapped in children.
    pub(super) fn leave_to_child(vm: &VmFd) -> io::Result<Self> {
        let (ended, alive) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        // SAFETY: the process has one thread, so that no lock is held in the child, which makes
        // system calls and nothing else.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => wait_and_end([vm.as_raw_fd(), ended.as_raw_fd()]),
            _ => Ok(Self { _alive: alive }),
        }
    }
}

/// What the child does: keeps `vm`, gives up everything else, and reads until no one is left who
/// could write.
fn wait_and_end([vm, ended]: [RawFd; 2]) -> ! {
    let (low, high) = (vm.min(ended), vm.max(ended));
    for (first, last) in [(0, low - 1), (low + 1, high - 1), (high + 1, RawFd::MAX)] {
        if first <= last {
            // SAFETY: nothing in this process uses any of these descriptors any more.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    }
    // SAFETY: strict mode takes no argument; from here on, read and exit are all there is.
    unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT) };
    let mut byte = 0_u8;
    // SAFETY: the buffer has room for one byte.
    unsafe { libc::read(ended, (&raw mut byte).cast(), 1) };
    loop {
        // SAFETY: ends the process, whose only thread this is.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
}
