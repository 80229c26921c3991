//! Durable storage, and how to tell that a file system does not offer it from a failure to give it.
//! Systems say "not supported" with many error numbers (fsync(2), fuse(4), each file system's own).

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{fdatasync, fsync};
use rustix::io::Errno;

use crate::storage::Cancel;

/// What came of the wish to make something durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Synced {
    /// It is on stable storage.
    Yes,
    /// The file system, or the device, knows no such thing.
    Unsupported,
}

/// Waits until the file or folder, with all that describes it, is on stable storage.
pub(super) fn sync_all(file: impl AsFd, cancel: &Cancel) -> io::Result<Synced> {
    outcome(cancel.repeat(|| fsync(&file)))
}

/// Waits until the file's data is on stable storage, unless the run has ended.
pub(super) fn sync_data(file: impl AsFd, cancel: &Cancel) -> io::Result<Synced> {
    cancel.check()?;
    outcome(cancel.repeat(|| fdatasync(&file)))
}

fn outcome(synced: io::Result<()>) -> io::Result<Synced> {
    match synced {
        Ok(()) => Ok(Synced::Yes),
        Err(error) if Errno::from_io_error(&error).is_some_and(is_unsupported) => {
            Ok(Synced::Unsupported)
        }
        Err(error) => Err(error),
    }
}

/// Whether the error number says that the file system does not know the call for this kind of
/// file, and not that the call has failed.
pub(super) fn is_unsupported(errno: Errno) -> bool {
    // EINVAL: "a special file which does not support synchronization" (fsync(2)). EBADF: some network
    // file systems, for a folder, which cannot be open for writing. The descriptor itself is always
    // good here. EISDIR: as EBADF. ENOTTY: unknown ioctl requests. EROFS is none of them, although
    // fsync(2) names it beside EINVAL: file systems answer so that have gone read-only after an error.
    matches!(
        errno,
        Errno::INVAL | Errno::BADF | Errno::ISDIR | Errno::NOTTY | Errno::NOSYS | Errno::OPNOTSUPP
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn not_supported_is_told_from_failed() {
        let outcome = |errno: Errno| outcome(Err(errno.into()));
        for errno in [Errno::INVAL, Errno::OPNOTSUPP, Errno::NOSYS] {
            assert_eq!(outcome(errno).unwrap(), Synced::Unsupported);
        }
        for errno in [Errno::IO, Errno::NOSPC, Errno::DQUOT, Errno::ROFS] {
            assert_eq!(
                outcome(errno).unwrap_err().raw_os_error(),
                Some(errno.raw_os_error())
            );
        }
        assert_eq!(super::outcome(Ok(())).unwrap(), Synced::Yes);
    }

    #[test]
    fn data_is_not_waited_for_once_the_run_has_ended() {
        let file = tempfile::tempfile().unwrap();
        let cancel = Cancel::new();
        cancel.cancel();
        let error = sync_data(&file, &cancel).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    }

    #[test]
    fn a_pipe_cannot_be_synced_and_that_is_no_failure() {
        let (reader, _writer) = std::io::pipe().unwrap();
        assert_eq!(
            sync_all(&reader, &Cancel::new()).unwrap(),
            Synced::Unsupported
        );
        assert_eq!(
            sync_data(&reader, &Cancel::new()).unwrap(),
            Synced::Unsupported
        );
    }
}
