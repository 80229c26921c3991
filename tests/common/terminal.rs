//! A terminal on which a test can look at what is shown, and type.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::Vmm;

/// A pseudoterminal: the test's side of it, and the side for a process.
pub(crate) struct Terminal {
    ours: File,
    theirs: OwnedFd,
}

impl Terminal {
    /// A terminal of 24 lines of 100 columns.
    pub(crate) fn open() -> Self {
        let (mut ours, mut theirs) = (-1, -1);
        let size = libc::winsize {
            ws_row: 24,
            ws_col: 100,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let none = std::ptr::null_mut();
        // SAFETY: the descriptors are written to valid places; there is no name to be written,
        // and the size is only read.
        let opened = unsafe {
            libc::openpty(
                &raw mut ours,
                &raw mut theirs,
                none,
                std::ptr::null(),
                &raw const size,
            )
        };
        assert_eq!(opened, 0, "{}", io::Error::last_os_error());
        for descriptor in [ours, theirs] {
            // SAFETY: the descriptor is open; a process that is started meanwhile must not have it.
            unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
        // SAFETY: the descriptor is new and nobody else's.
        let ours = unsafe { File::from_raw_fd(ours) };
        // SAFETY: as above.
        let theirs = unsafe { OwnedFd::from_raw_fd(theirs) };
        Self { ours, theirs }
    }

    /// Hangs up, and returns the side of a process, which has nobody to talk to any more.
    pub(crate) fn hang_up(self) -> OwnedFd {
        self.theirs
    }

    /// Both output streams of `vmm` on this terminal.
    pub(crate) fn attach(&self, vmm: Vmm) -> Vmm {
        self.attach_stderr(vmm)
            .stdout(self.theirs.try_clone().unwrap())
    }

    /// Standard error of `vmm` on this terminal.
    pub(crate) fn attach_stderr(&self, vmm: Vmm) -> Vmm {
        vmm.env("TERM", "xterm")
            .stderr(self.theirs.try_clone().unwrap())
    }

    /// Standard input of `vmm` from this terminal.
    pub(crate) fn attach_stdin(&self, vmm: Vmm) -> Vmm {
        vmm.stdin(self.theirs.try_clone().unwrap())
    }

    /// Types `keys`.
    pub(crate) fn type_keys(&self, keys: &[u8]) {
        (&self.ours).write_all(keys).unwrap();
    }

    /// What was shown, as far as it waits to be read.
    pub(crate) fn shown(&self) -> String {
        let mut waiting: libc::c_int = 0;
        // SAFETY: `waiting` is valid for writing.
        unsafe { libc::ioctl(self.ours.as_raw_fd(), libc::FIONREAD, &raw mut waiting) };
        let mut shown = vec![0; usize::try_from(waiting).unwrap()];
        (&self.ours).read_exact(&mut shown).unwrap();
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// Its settings, to be compared: modes and keys.
    pub(crate) fn settings(&self) -> (Vec<u32>, Vec<u8>) {
        // SAFETY: a `termios` is plain data, for which all zeros are valid.
        let mut settings: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: `settings` is valid for writing.
        let asked = unsafe { libc::tcgetattr(self.theirs.as_raw_fd(), &raw mut settings) };
        assert_eq!(asked, 0, "{}", io::Error::last_os_error());
        let modes = [
            settings.c_iflag,
            settings.c_oflag,
            settings.c_cflag,
            settings.c_lflag,
        ];
        (modes.to_vec(), settings.c_cc.to_vec())
    }

    /// Gives it other settings, as an editor does.
    pub(crate) fn edit(&self) {
        // SAFETY: a `termios` is plain data, for which all zeros are valid.
        let mut settings: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: `settings` is valid for writing.
        let asked = unsafe { libc::tcgetattr(self.theirs.as_raw_fd(), &raw mut settings) };
        assert_eq!(asked, 0, "{}", io::Error::last_os_error());
        settings.c_lflag &= !(libc::ICANON | libc::ECHO | libc::ISIG);
        settings.c_iflag ^= libc::ICRNL;
        // SAFETY: `settings` is only read.
        let set =
            unsafe { libc::tcsetattr(self.theirs.as_raw_fd(), libc::TCSANOW, &raw const settings) };
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
    }

    /// The group of processes that is in its foreground.
    pub(crate) fn foreground(&self) -> i32 {
        let mut group: libc::pid_t = 0;
        // SAFETY: `group` is valid for writing.
        let asked = unsafe { libc::ioctl(self.ours.as_raw_fd(), libc::TIOCGPGRP, &raw mut group) };
        assert_eq!(asked, 0, "{}", io::Error::last_os_error());
        group
    }

    /// Stops it, as Ctrl-S does.
    pub(crate) fn stop(&self) {
        // SAFETY: the descriptor is that of a terminal.
        let stopped = unsafe { libc::tcflow(self.theirs.as_raw_fd(), libc::TCOOFF) };
        assert_eq!(stopped, 0, "{}", io::Error::last_os_error());
    }

    /// What gives it another width, in columns, from any thread.
    pub(crate) fn resizer(&self) -> impl FnMut(u16) + Send + use<> {
        let terminal = self.ours.try_clone().unwrap();
        move |columns| {
            let size = libc::winsize {
                ws_row: 24,
                ws_col: columns,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            // SAFETY: the size is only read, and the descriptor is open.
            let set =
                unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
            assert_eq!(set, 0, "{}", io::Error::last_os_error());
        }
    }

    /// What is shown, for who wants to read it as it comes.
    pub(crate) fn reader(&self) -> File {
        self.ours.try_clone().unwrap()
    }

    /// What is shown until the last process with this terminal has ended.
    pub(crate) fn read_to_end(self) -> String {
        let Self { mut ours, theirs } = self;
        drop(theirs);
        let mut shown = Vec::new();
        // The end of a terminal without processes is an error, EIO.
        let _ = ours.read_to_end(&mut shown);
        String::from_utf8_lossy(&shown).into_owned()
    }
}
