//! Standard streams that are closed when the program starts.

use std::ffi::CStr;

/// The special file that keeps the place of a closed stream.
const NOTHING: &CStr = c"/dev/null";

/// Opens for reading only what is closed of standard input and output. A write to standard output then
/// fails with the reason that it has ("Bad file descriptor"), and no file that is opened later gets its
/// number. Rust's runtime would open it for writing too, so that an answer is lost without a word.
///
/// To be called before that runtime begins, and so it uses the system's calls and nothing else.
pub extern "C" fn hold_closed_streams() {
    for stream in [libc::STDIN_FILENO, libc::STDOUT_FILENO] {
        // SAFETY: the call takes numbers.
        if unsafe { libc::fcntl(stream, libc::F_GETFD) } < 0 {
            // The lowest free number is this one. What cannot be opened is left to Rust's runtime.
            // SAFETY: the path is a valid string.
            unsafe { libc::open(NOTHING.as_ptr(), libc::O_RDONLY) };
        }
    }
}
