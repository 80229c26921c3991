//! The user's side of a run: what is shown where.

use std::io::{IsTerminal, stderr, stdout};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};

use super::error::RunError;
use super::signals::Signals;
use super::supervisor::Console;
use crate::config::{Config, Protocol};
use crate::report::{Printer, ProgressBar};

/// Standard output and standard error as `config` wants them, for `total` bytes to copy.
///
/// On a terminal a progress bar takes the place of the message lines, unless they are asked for.
/// Text from the guest has no bar beside it: it is shown as it comes.
pub(super) fn open_console(config: &Config, total: u64) -> Console {
    let terminal = stdout().is_terminal() && stderr().is_terminal();
    let text = config.protocol == Protocol::Text;
    let bar = terminal && !config.quiet && !text;
    Console {
        out: Printer::new(borrow_static(&stdout())),
        err: Printer::new(borrow_static(&stderr())),
        bar: if bar {
            ProgressBar::new(total)
        } else {
            ProgressBar::none()
        },
        lines: !config.quiet && (!terminal || text || config.verbose),
        debug: config.debug,
    }
}

impl Console {
    /// Prints each of `lines` as a warning.
    pub(super) fn warn(&mut self, lines: &[String]) {
        for line in lines {
            let Self { err, bar, .. } = self;
            bar.suspend(|| err.print(format!("vmm: warning: {line}\n").as_bytes()));
        }
    }
}

/// Writes what is left, however long that takes, unless a signal comes.
pub(super) fn drain(console: &mut Console, signals: &Signals) -> Result<(), RunError> {
    let Console { out, err, .. } = console;
    for printer in [out, err] {
        loop {
            printer.flush();
            if printer.is_empty() {
                break;
            }
            wait_for_room(printer, signals);
            if let Some(signal) = signals.next() {
                return Err(RunError::Signal(signal));
            }
        }
    }
    Ok(())
}

fn wait_for_room(printer: &Printer, signals: &Signals) {
    let mut entries = [
        PollFd::new(printer, PollFlags::OUT),
        PollFd::new(signals, PollFlags::IN),
    ];
    // There is nothing to do about an error but to look again.
    let _ = poll(&mut entries, None);
}

/// The standard streams are open for as long as the process lives.
fn borrow_static(stream: &impl AsFd) -> BorrowedFd<'static> {
    // SAFETY: nothing in this program closes the standard streams; Rust's runtime opens them on
    // /dev/null if the process was started without.
    unsafe { BorrowedFd::borrow_raw(stream.as_fd().as_raw_fd()) }
}
