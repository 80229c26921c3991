//! That no file of a run is what a standard stream goes to: the run would write its lines there.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, OFlags, fcntl_getfl};

use super::error::{DistinctError, FileError, Role};
use super::identity::{Identity, Known};
use super::system::{fstat, statat};

/// The standard streams that go to files of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnStreams {
    /// Standard output alone.
    Output,
    /// Standard error alone.
    Error,
    /// Both.
    Both,
}

impl OwnStreams {
    fn and(self, other: Self) -> Self {
        if self == other { self } else { Self::Both }
    }
}

impl Display for OwnStreams {
    fn fmt(&self, to: &mut Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::Output => "standard output goes",
            Self::Error => "standard error goes",
            Self::Both => "standard output and standard error go",
        })
    }
}

/// How a file and a stream meet.
enum Meeting {
    SameFile,
    SameBytes,
}

impl Known<'_> {
    /// How this file, which is read or written, meets the stream that goes to `stream`, if it does. A
    /// device such as /dev/null can take both; a file would lose one of them.
    fn meeting(&self, is_written: bool, stream: Identity) -> Option<Meeting> {
        let own = self.identity?;
        if own.is_same(&stream) {
            Some(Meeting::SameFile)
        } else if stream.takes(own) || is_written && own.takes(stream) {
            Some(Meeting::SameBytes)
        } else {
            None
        }
    }
}

/// Refuses a run one of whose files, all of which are in `reads` and `writes`, is where a standard
/// stream goes, lies on that, or is written and has that lie on it.
pub(super) fn check_streams(reads: &[Known<'_>], writes: &[Known<'_>]) -> Result<(), FileError> {
    let streams = [
        (written_to(io::stdout()), OwnStreams::Output),
        (written_to(io::stderr()), OwnStreams::Error),
    ];
    let files = [(reads, false), (writes, true)];
    let files = files.into_iter().flat_map(|(files, are_written)| {
        let files = files.iter();
        files.map(move |known| (known, are_written))
    });
    let mut found: Option<(&Known<'_>, Meeting, OwnStreams)> = None;
    for (known, is_written) in files {
        for (identity, stream) in streams {
            let meeting = identity.and_then(|identity| known.meeting(is_written, identity));
            // Of several the first is told; each of the streams must be known.
            found = match (found, meeting) {
                (Some((first, how, streams)), Some(_)) => Some((first, how, streams.and(stream))),
                (None, Some(meeting)) => Some((known, meeting, stream)),
                (found, None) => found,
            };
        }
    }
    let Some((known, meeting, streams)) = found else {
        return Ok(());
    };
    let (role, path) = (known.role, known.path.to_owned());
    Err(match meeting {
        Meeting::SameFile => DistinctError::StandardStream {
            role,
            path,
            streams,
        },
        Meeting::SameBytes => DistinctError::BytesOfStream {
            role,
            path,
            streams,
        },
    }
    .into())
}

/// Refuses the same run before anything is opened, by the paths of what it reads and writes: whatever
/// else is wrong with it would be written to its own files.
///
/// # Errors
///
/// [`FileError::Distinct`].
pub fn check_streams_of<'a>(
    reads: impl IntoIterator<Item = (Role, &'a Path)>,
    writes: impl IntoIterator<Item = (Role, &'a Path)>,
) -> Result<(), FileError> {
    let reads: Vec<_> = reads.into_iter().map(at_path).collect();
    let writes: Vec<_> = writes.into_iter().map(at_path).collect();
    check_streams(&reads, &writes)
}

/// What is at a path, if it is something that keeps what is written to it.
fn at_path((role, path): (Role, &Path)) -> Known<'_> {
    let found = statat(CWD, path, AtFlags::empty()).ok();
    let identity = found.as_ref().map(Identity::of);
    let keeps = |identity: &Identity| {
        matches!(identity.kind, FileType::RegularFile | FileType::BlockDevice)
    };
    Known {
        role,
        path,
        identity: identity.filter(keeps),
        entry: None,
    }
}

/// The file behind a standard stream, unless it was opened for reading alone.
fn written_to(stream: impl AsFd) -> Option<Identity> {
    let access = fcntl_getfl(&stream).ok()? & OFlags::ACCMODE;
    let stat = fstat(&stream).ok()?;
    (access != OFlags::RDONLY).then(|| Identity::of(&stat))
}
