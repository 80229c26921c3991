//! What the tests of this module share: descriptors that live for ever, and pseudo-terminals.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, open};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// The descriptor is leaked: a stream borrows for ever.
pub(super) fn leak(fd: impl Into<OwnedFd>) -> BorrowedFd<'static> {
    let fd: &'static OwnedFd = Box::leak(Box::new(fd.into()));
    fd.as_fd()
}

/// A pseudo-terminal: the test's side, and the side for a process.
pub(super) struct Pty {
    pub(super) ours: File,
    pub(super) theirs: OwnedFd,
}

impl Pty {
    /// A terminal of 24 lines of `columns` columns.
    pub(super) fn open(columns: u16) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let theirs = open(name, flags, Mode::empty()).unwrap();
        let pty = Self {
            ours: ours.into(),
            theirs,
        };
        pty.resize(columns);
        pty
    }

    pub(super) fn resize(&self, columns: u16) {
        let size = Winsize {
            ws_row: 24,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.theirs, size).unwrap();
    }

    /// What has been shown since this was last asked.
    pub(super) fn shown(&mut self) -> String {
        let flags = fcntl_getfl(&self.ours).unwrap();
        fcntl_setfl(&self.ours, flags | OFlags::NONBLOCK).unwrap();
        let mut shown = Vec::new();
        let mut part = [0; 4096];
        while let Ok(len @ 1..) = self.ours.read(&mut part) {
            shown.extend_from_slice(&part[..len]);
        }
        fcntl_setfl(&self.ours, flags).unwrap();
        String::from_utf8(shown).unwrap()
    }
}
