//! The system calls of the runtime's own threads, and of what is done on them: the only place
//! where they are listed. A worker joins those that it needs.
//!
//! Calls that the C library makes by itself are not here but in [`super::ANY_THREAD`].

use std::os::fd::RawFd;

use super::Calls;

/// `_IO(KVMIO, 0x80)` (KVM API, section 4.10): the one call that the vCPU's thread makes of KVM
/// while the guest runs.
const KVM_RUN: u64 = 0xae80;
/// Reading the registers of a guest that has faulted (KVM API, sections 4.11, 4.13 and 4.42).
const KVM_GET_REGS: u64 = 0x8090_ae81;
const KVM_GET_SREGS: u64 = 0x8138_ae83;
const KVM_GET_XSAVE: u64 = 0x9000_aea4;

/// Changing a terminal's settings, the second way where the system has not the first, and asking whose it
/// is (asm-generic/ioctls.h).
const TCSETS2: u64 = 0x402c_542b;
const TCSETS: u64 = 0x5402;
const TIOCGPGRP: u64 = 0x540f;

/// A descriptor or another signed number, as a filter compares it.
const fn word(number: i32) -> u64 {
    number.cast_unsigned() as u64
}

/// Waiting for events. Which of the calls it is depends on the C library: glibc has the first, musl
/// the second.
#[must_use]
pub fn event_loop() -> Calls {
    Calls::new()
        .allow(libc::SYS_epoll_wait)
        .allow(libc::SYS_epoll_pwait)
}

/// Waiting for events of a device, and going to another processor.
#[must_use]
pub fn device_loop() -> Calls {
    const THIS_THREAD: u64 = 0;
    event_loop().allow_with(libc::SYS_sched_setaffinity, &[(0, THIS_THREAD)])
}

/// Ending the process although the main thread is stuck: an alarm ends it if the last line cannot be
/// said either.
#[must_use]
pub fn watcher() -> Calls {
    Calls::new()
        .allow_with(libc::SYS_rt_sigaction, &[(0, word(libc::SIGALRM))])
        .allow(libc::SYS_alarm)
}

/// Running the guest.
#[must_use]
pub fn vcpu() -> Calls {
    [KVM_RUN, KVM_GET_REGS, KVM_GET_SREGS, KVM_GET_XSAVE]
        .into_iter()
        .fold(Calls::new(), |calls, request| {
            calls.allow_with(libc::SYS_ioctl, &[(1, request)])
        })
}

/// The main loop: it waits for events, changes what it waits for, nudges the thread `vcpu` of this
/// process, `process`, with `signal`, and asks what the run has cost.
#[must_use]
pub fn main_loop(process: libc::pid_t, vcpu: libc::pid_t, signal: libc::c_int) -> Calls {
    event_loop()
        .allow(libc::SYS_epoll_ctl)
        .allow(libc::SYS_getrusage)
        // Standard output or standard error may be a socket.
        .allow(libc::SYS_sendto)
        // A bar is drawn while this job has the terminal.
        .allow_with(libc::SYS_ioctl, &[(1, TIOCGPGRP)])
        .allow_with(
            libc::SYS_tgkill,
            &[(0, word(process)), (1, word(vcpu)), (2, word(signal))],
        )
}

/// Giving the file that is open as `file` its name in the folder that is open as `folder`: no relative
/// path can be linked, renamed or removed but from there and to there, and no other file's mode be
/// changed. The paths themselves cannot be looked at, which is Landlock's part; see the threat model.
#[must_use]
pub fn place_file(folder: RawFd, file: RawFd) -> Calls {
    let (folder, file) = (word(folder), word(file));
    Calls::new()
        // What is linked is an open file, by way of /proc/self/fd.
        .allow_with(libc::SYS_linkat, &[(2, folder)])
        .allow_with(libc::SYS_renameat, &[(0, folder), (2, folder)])
        // The one that replaces nothing, which rename(2) cannot say.
        .allow_with(
            libc::SYS_renameat2,
            &[(0, folder), (2, folder), (4, libc::RENAME_NOREPLACE.into())],
        )
        // It takes access away if what it replaces has changed meanwhile.
        .allow_with(libc::SYS_fchmod, &[(0, file)])
        .allow_with(libc::SYS_fchown, &[(0, file)])
        // No flags: a file, not a folder.
        .allow_with(libc::SYS_unlinkat, &[(0, folder), (2, 0)])
        .allow(libc::SYS_fsync)
        .allow(libc::SYS_ftruncate)
}

/// Looking at the attributes of the file that is open as `file`, of which some say who may use it.
#[must_use]
pub fn see_attributes(file: RawFd) -> Calls {
    Calls::new()
        .allow_with(libc::SYS_flistxattr, &[(0, word(file))])
        .allow_with(libc::SYS_fgetxattr, &[(0, word(file))])
}

/// Asking an open device for its size, and waiting until it is on stable storage: what is written in
/// place needs nothing else in the end.
#[must_use]
pub fn finish_device() -> Calls {
    Calls::new().allow(libc::SYS_lseek).allow(libc::SYS_fsync)
}

/// Looking for holes in a file that is open, and at what has come to be in one or behind the end. To write
/// the file back before takes fsync(2), which is among the calls that finish each output.
#[must_use]
pub fn find_holes() -> Calls {
    Calls::new().allow(libc::SYS_lseek).allow(libc::SYS_pread64)
}

/// Reading from the socket that is open as `socket`.
#[must_use]
pub fn read_socket(socket: RawFd) -> Calls {
    Calls::new().allow_with(libc::SYS_recvfrom, &[(0, word(socket))])
}

/// Giving the terminal that is open as `terminal` its settings back, if it still belongs to this
/// job. Which of the calls asks that depends on the C library.
#[must_use]
pub fn restore_terminal(terminal: RawFd) -> Calls {
    [TCSETS2, TCSETS, TIOCGPGRP]
        .into_iter()
        .fold(Calls::new(), |calls, request| {
            calls.allow_with(libc::SYS_ioctl, &[(0, word(terminal)), (1, request)])
        })
        .allow(libc::SYS_getpgrp)
        .allow_with(libc::SYS_getpgid, &[(0, 0)])
}

/// Reading a file that is open.
#[must_use]
pub fn read_file() -> Calls {
    Calls::new().allow(libc::SYS_preadv)
}

/// Writing a file that is open or making parts of it zero, and waiting until its data is stored.
#[must_use]
pub fn write_file() -> Calls {
    Calls::new()
        .allow(libc::SYS_pwritev)
        .allow(libc::SYS_fallocate)
        .allow(libc::SYS_fdatasync)
}
