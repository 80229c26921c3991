//! The jobs of a shell, and which of them has the terminal (credentials(7), "Sessions and process groups").

use std::os::fd::{AsFd, AsRawFd};

/// The job that this process is a part of.
pub(crate) fn own() -> libc::pid_t {
    // SAFETY: the call takes nothing and cannot fail.
    unsafe { libc::getpgrp() }
}

/// Whether `terminal` belongs to another job than `own`. Where the jobs are in another namespace, both are
/// told as 0, for which rustix has no number.
pub(crate) fn has_another(terminal: impl AsFd, own: libc::pid_t) -> bool {
    let mut foreground: libc::pid_t = 0;
    let fd = terminal.as_fd().as_raw_fd();
    // SAFETY: `foreground` is valid for writing.
    let asked = unsafe { libc::ioctl(fd, libc::TIOCGPGRP, &raw mut foreground) };
    // A terminal that is not the one of this session has no jobs.
    asked == 0 && foreground != own
}
