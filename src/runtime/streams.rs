//! Standard streams that are closed when the program starts, or that go to a file of the run.

use std::ffi::{CStr, c_int};

/// The special file that keeps the place of a closed stream.
const NOTHING: &CStr = c"/dev/null";

/// Opens for reading only what is closed of standard input and output. A write to standard output then
/// fails with the reason that it has ("Bad file descriptor"), and no file that is opened later gets its
/// number. Rust's runtime would open it for writing too, so that an answer is lost without a word, and
/// would end the process where there is no such file to open.
///
/// To be called before that runtime begins, and so it uses the system's calls and nothing else.
pub extern "C" fn hold_closed_streams() {
    for (stream, mode) in [
        (libc::STDIN_FILENO, libc::O_RDONLY),
        (libc::STDOUT_FILENO, libc::O_RDONLY),
        (libc::STDERR_FILENO, libc::O_WRONLY),
    ] {
        // SAFETY: the call takes numbers.
        if unsafe { libc::fcntl(stream, libc::F_GETFD) } >= 0 {
            continue;
        }
        // Whatever is opened gets the lowest free number, which is this one.
        hold(mode);
    }
}

/// Has nothing more be written to what standard output goes to: from here on it is a stream that nobody
/// reads.
pub fn abandon_stdout() {
    replace(libc::STDOUT_FILENO, None);
}

/// Has nothing more be written to what standard error goes to: from here on it is another name for
/// standard output if `speaks_there`, and else a stream that nobody reads.
pub fn abandon_stderr(speaks_there: bool) {
    let elsewhere = speaks_there.then_some(libc::STDOUT_FILENO);
    replace(libc::STDERR_FILENO, elsewhere);
}

/// Replaces a standard stream by `other`, or by a pipe without a reader.
fn replace(stream: c_int, other: Option<c_int>) {
    let mut ends = [-1; 2];
    // SAFETY: `ends` has room for both.
    unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) };
    let [reader, writer] = ends;
    // SAFETY: the call takes numbers.
    if unsafe { libc::dup2(other.unwrap_or(writer), stream) } < 0 {
        // Where no pipe could be made there is at least room for one descriptor then.
        // SAFETY: its number is taken again at once, so that no file that is opened later gets it.
        unsafe { libc::close(stream) };
        hold(libc::O_WRONLY);
    }
    for end in [reader, writer] {
        // SAFETY: each is this function's own, or no descriptor.
        unsafe { libc::close(end) };
    }
}

/// Has the lowest free number stand for a file in which there is nothing, open as `mode` says.
fn hold(mode: c_int) {
    // SAFETY: the path is a valid string.
    if unsafe { libc::open(NOTHING.as_ptr(), mode) } < 0 {
        hold_without_file();
    }
}

/// Has the lowest free number stand for a pipe that nothing is written to.
fn hold_without_file() {
    let mut ends = [-1; 2];
    // SAFETY: `ends` has room for both.
    if unsafe { libc::pipe(ends.as_mut_ptr()) } == 0 {
        // SAFETY: the descriptor is this function's own.
        unsafe { libc::close(ends[1]) };
    }
}
