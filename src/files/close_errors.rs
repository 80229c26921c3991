//! Errors of writes that a file system reports only when a descriptor is closed (close(2), "Dealing
//! with error returns"): NFS and FUSE take all writes, and tell of a full disk or a quota then. To
//! hear of it while the file is still open and not yet in place, a duplicate of its descriptor is
//! closed.

use std::io;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};

use rustix::io::fcntl_dupfd_cloexec;

/// A descriptor to close when everything is written.
#[derive(Debug)]
pub(super) struct CloseErrors(OwnedFd);

impl CloseErrors {
    /// Duplicates the descriptor of a file that will be written.
    pub(super) fn of(file: impl AsFd) -> io::Result<Self> {
        // The number must not be that of a standard stream, which may be closed at present.
        Ok(Self(fcntl_dupfd_cloexec(file, 3)?))
    }

    /// Closes the duplicate, and returns the error that a write up to now has met, if there is one.
    pub(super) fn collect(self) -> io::Result<()> {
        let descriptor = self.0.into_raw_fd();
        // SAFETY: the descriptor was owned, and `into_raw_fd` has given it up, so that nothing
        // else uses or closes it.
        match unsafe { libc::close(descriptor) } {
            0 => Ok(()),
            _ => match io::Error::last_os_error() {
                // On Linux the descriptor is closed, although the call says that it failed.
                error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
                error => Err(error),
            },
        }
    }
}
