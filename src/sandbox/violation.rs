//! A forbidden system call: one line on standard error, and the end by SIGSYS, which a shell shows
//! as status 159.
//!
//! The handler runs wherever the call was made, within the allocator for one: it takes no lock, no
//! memory but a little of the stack, and makes system calls that every thread may make.

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::OnceLock;

use super::call::name;

/// `SYS_SECCOMP` (sigaction(2)): the signal comes from a filter.
const FROM_A_FILTER: c_int = 1;
/// More than a line can have.
const LINE: usize = 384;
/// What a thread's name has at most, with the zero behind it (prctl(2)).
const NAME: usize = 16;

const ADVICE: &str = ", which the sandbox forbids; this is a fault of vmm or of its surroundings: \
                      if libraries are preloaded into the process (LD_PRELOAD), run it without \
                      them; otherwise please report it; --no-sandbox runs without the sandbox\n";

/// What is to be done before the process ends.
static LAST_ACT: OnceLock<fn()> = OnceLock::new();

/// Has `act` done before a forbidden call ends the process. Only the first one counts.
pub(super) fn set_last_act(act: fn()) {
    let _ = LAST_ACT.set(act);
}

/// Has forbidden calls of all threads reported, and lets this thread, and those that it starts
/// later, receive the signal for it, whatever the process has inherited.
///
/// # Errors
///
/// The system's reason.
pub(super) fn catch() -> io::Result<()> {
    // SAFETY: a `sigaction` is plain data, for which all zeros are valid: no flags, no mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = report;
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the action is valid, and its handler does only what is safe in one.
    if unsafe { libc::sigaction(libc::SIGSYS, &raw const action, null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut set = MaybeUninit::uninit();
    // SAFETY: `set` is valid for writing.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: `sigemptyset` has initialised all of it.
    let mut set = unsafe { set.assume_init() };
    // SAFETY: `set` is an initialised set and the signal number is valid.
    unsafe { libc::sigaddset(&raw mut set, libc::SIGSYS) };
    // SAFETY: `set` is valid, and the old mask is not wanted.
    match unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// The beginning of `siginfo_t` for SIGSYS, whose fields the `libc` crate does not have.
#[repr(C)]
struct SigsysInfo {
    signal: c_int,
    error: c_int,
    code: c_int,
    _padding: c_int,
    call_address: *mut c_void,
    call_number: c_int,
}

extern "C" fn report(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel hands over a valid structure of this layout (sigaction(2)).
    let info = unsafe { &*info.cast::<SigsysInfo>() };
    // Somebody may also have sent the signal by hand, which is nobody's fault.
    if info.code == FROM_A_FILTER {
        let mut line = Line::new();
        line.add(b"vmm: the thread ");
        line.add_thread_name();
        line.add(b" made the system call ");
        line.add(name(info.call_number.into()).as_bytes());
        line.add(b" (");
        line.add_number(info.call_number.cast_unsigned());
        line.add(b")");
        line.add(ADVICE.as_bytes());
        line.write();
    }
    if let Some(act) = LAST_ACT.get() {
        act();
    }
    end();
}

/// Ends the process by this signal, which is blocked while its handler runs. A confined thread may
/// not change what a signal does: the kernel ends the process at the first of these calls. On any
/// other thread they do what they say once the handler has returned.
fn end() {
    // SAFETY: the default action runs no code.
    unsafe { libc::signal(libc::SIGSYS, libc::SIG_DFL) };
    // SAFETY: sends a signal to this thread.
    unsafe { libc::raise(libc::SIGSYS) };
}

/// A line on the stack. What does not fit is dropped.
struct Line {
    bytes: [u8; LINE],
    len: usize,
}

impl Line {
    fn new() -> Self {
        Self {
            bytes: [0; LINE],
            len: 0,
        }
    }

    fn add(&mut self, text: &[u8]) {
        for (place, byte) in self.bytes.iter_mut().skip(self.len).zip(text) {
            *place = *byte;
            self.len += 1;
        }
    }

    fn add_number(&mut self, mut number: u32) {
        let mut digits = [0; 10];
        let mut count = 0;
        for place in digits.iter_mut().rev() {
            *place = b'0' + u8::try_from(number % 10).unwrap_or(0);
            number /= 10;
            count += 1;
            if number == 0 {
                break;
            }
        }
        let (_, digits) = digits.split_at(digits.len() - count);
        self.add(digits);
    }

    /// The name of this thread. Anybody in the process may have set it: bytes that do not belong
    /// in a line are shown as question marks.
    fn add_thread_name(&mut self) {
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

    /// Writes the line if standard error has room: a reader that is stuck must not keep the
    /// process alive. A pipe with room for anything has room for a line, and takes it in one
    /// piece; a terminal is asked again for each byte.
    fn write(&self) {
        let (text, _) = self.bytes.split_at(self.len.min(LINE));
        let piece = if is_terminal() { 1 } else { text.len().max(1) };
        for part in text.chunks(piece) {
            if !has_room() {
                return;
            }
            // SAFETY: `part` is valid for reading.
            unsafe { libc::write(libc::STDERR_FILENO, part.as_ptr().cast(), part.len()) };
        }
    }
}

fn is_terminal() -> bool {
    let mut size = MaybeUninit::<libc::winsize>::uninit();
    // SAFETY: `size` has room for what the kernel writes.
    unsafe { libc::ioctl(libc::STDERR_FILENO, libc::TIOCGWINSZ, size.as_mut_ptr()) == 0 }
}

fn has_room() -> bool {
    let mut entry = libc::pollfd {
        fd: libc::STDERR_FILENO,
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
        let mut line = Line::new();
        for number in [0, 7, 10, u32::MAX] {
            line.add_number(number);
            line.add(b" ");
        }
        assert_eq!(line.bytes.get(..line.len), Some(&b"0 7 10 4294967295 "[..]));
        line.add(&[b'x'; 2 * LINE]);
        assert_eq!(line.len, LINE);
    }
}
