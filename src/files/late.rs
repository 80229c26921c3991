//! Errors that a file system tells late. Some (NFS, FUSE) take all writes and report a full disk
//! or a quota only when a descriptor is closed (close(2), "Dealing with error returns"). Closing a
//! duplicate asks for that report while the file is still open and not yet in place.

use std::io;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};

use rustix::io::fcntl_dupfd_cloexec;

/// A descriptor to close when everything is written.
#[derive(Debug)]
pub(super) struct LateErrors(OwnedFd);

impl LateErrors {
    /// Duplicates the descriptor of a file that will be written.
    pub(super) fn of(file: impl AsFd) -> io::Result<Self> {
        // Not one of the standard streams, should they be closed.
        Ok(Self(fcntl_dupfd_cloexec(file, 3)?))
    }

    /// The error, if there was one, of the writes up to now.
    pub(super) fn collect(self) -> io::Result<()> {
        let descriptor = self.0.into_raw_fd();
        // SAFETY: the descriptor was owned, and `into_raw_fd` has given it up, so that nothing
        // else uses or closes it.
        match unsafe { libc::close(descriptor) } {
            0 => Ok(()),
            _ => match io::Error::last_os_error() {
                // On Linux the descriptor is closed all the same.
                error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
                error => Err(error),
            },
        }
    }
}
