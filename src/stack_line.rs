//! A line for standard error where there may be no memory and no lock: in the handler of a signal,
//! when the allocator has nothing left, or while another thread is stuck. It lies on the stack, and
//! writing it takes system calls that every thread may make.

use std::ffi::c_int;
use std::fmt;
use std::mem::MaybeUninit;

/// More than a line can have, in bytes.
pub(crate) const LINE: usize = 384;
/// What a thread's name has at most, with the zero behind it (prctl(2)).
const NAME: usize = 16;

/// A line on the stack. What does not fit is dropped.
pub(crate) struct StackLine {
    bytes: [u8; LINE],
    len: usize,
}

impl StackLine {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self {
            bytes: [0; LINE],
            len: 0,
        }
    }

    /// Adds what fits of `text`.
    pub(crate) fn add(&mut self, text: &[u8]) {
        for (place, byte) in self.bytes.iter_mut().skip(self.len).zip(text) {
            *place = *byte;
            self.len += 1;
        }
    }

    /// Adds a number in decimal digits.
    pub(crate) fn add_number(&mut self, number: u64) {
        self.add(itoa::Buffer::new().format(number).as_bytes());
    }

    /// Adds the name of this thread. Anybody in the process may have set it: bytes that do not belong
    /// in a line are shown as question marks.
    pub(crate) fn add_thread_name(&mut self) {
        let mut name = [0_u8; NAME];
        // SAFETY: `name` has room for what the kernel writes.
        unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
        for byte in name {
            match byte {
                0 => break,
                b' '..=b'~' => self.add(&[byte]),
                _ => self.add(b"?"),
            }
        }
    }

    /// Writes the line if standard error has room.
    pub(crate) fn write(&self) {
        let (text, _) = self.bytes.split_at(self.len.min(LINE));
        write_if_room(libc::STDERR_FILENO, text);
    }
}

impl fmt::Write for StackLine {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.add(text.as_bytes());
        Ok(())
    }
}

/// Writes a line to a standard stream if it has room: a reader that is stuck must not keep the
/// process alive. A pipe with room for anything has room for a line, and takes it in one piece; a
/// terminal is asked again for each byte.
pub(crate) fn write_if_room(stream: c_int, text: &[u8]) {
    let piece = if is_terminal(stream) {
        1
    } else {
        text.len().max(1)
    };
    for part in text.chunks(piece) {
        if !has_room(stream) {
            return;
        }
        // SAFETY: `part` is valid for reading.
        unsafe { libc::write(stream, part.as_ptr().cast(), part.len()) };
    }
}

fn is_terminal(stream: c_int) -> bool {
    let mut size = MaybeUninit::<libc::winsize>::uninit();
    // SAFETY: `size` has room for what the kernel writes.
    unsafe { libc::ioctl(stream, libc::TIOCGWINSZ, size.as_mut_ptr()) == 0 }
}

fn has_room(stream: c_int) -> bool {
    let mut entry = libc::pollfd {
        fd: stream,
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: `entry` is one valid entry; the call returns at once.
    unsafe { libc::poll(&raw mut entry, 1, 0) == 1 && entry.revents & libc::POLLOUT != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_takes_numbers_and_drops_what_does_not_fit() {
        let mut line = StackLine::new();
        for number in [0, 7, 10, u64::MAX] {
            line.add_number(number);
            line.add(b" ");
        }
        assert_eq!(
            line.bytes.get(..line.len),
            Some(&b"0 7 10 18446744073709551615 "[..])
        );
        line.add(&[b'x'; 2 * LINE]);
        assert_eq!(line.len, LINE);
    }
}
