//! Waiting for descriptors (poll(2)), where there is no event loop.

use std::os::fd::AsFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Whether a read of `fd` would return at once, or a write, as `flags` say.
///
/// # Errors
///
/// The system does not say.
pub(crate) fn is_ready(fd: impl AsFd, flags: PollFlags) -> Result<bool, Errno> {
    let ready = poll(&mut [PollFd::new(&fd, flags)], Some(&Timespec::default()))?;
    Ok(ready > 0)
}

/// Whether something can be read from `fd` now, as far as the system says so.
pub(crate) fn is_readable(fd: impl AsFd) -> bool {
    is_ready(fd, PollFlags::IN).unwrap_or(false)
}

/// An entry for what becomes readable.
pub(crate) fn readable<'fd>(fd: &'fd impl AsFd) -> PollFd<'fd> {
    PollFd::new(fd, PollFlags::IN)
}

/// Waits until one of `entries` is ready, or until `until`, and says whether one is. A signal ends it
/// early.
///
/// # Errors
///
/// The system's reason.
pub(crate) fn wait(entries: &mut [PollFd<'_>], until: Option<Instant>) -> Result<bool, Errno> {
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    // A time that is too long to be told is as good as none.
    let limit = left.and_then(|left| Timespec::try_from(left).ok());
    match poll(entries, limit.as_ref()) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_wait_ends_when_something_is_there_or_the_time_is_over() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let begun = Instant::now();
        let until = begun + Duration::from_millis(20);
        assert!(!is_readable(&reader));
        assert_eq!(wait(&mut [readable(&reader)], Some(until)), Ok(false));
        assert!(begun.elapsed() >= Duration::from_millis(20));
        writer.write_all(b"x").unwrap();
        assert!(is_readable(&reader));
        assert_eq!(wait(&mut [readable(&reader)], None), Ok(true));
    }
}
