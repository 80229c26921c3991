//! The progress bar on a terminal: what of it stands there now, how it comes back after other
//! lines, and how it leaves nothing behind.

use std::time::{Duration, Instant};

use rustix::termios::tcgetwinsize;

use crate::job;
use crate::report::bar::{Bar, summary};
use crate::report::stream::Stream;

/// The bar is drawn no more often than this.
pub(super) const FRAME: Duration = Duration::from_millis(100);
/// The width of a terminal that does not know its own, in columns.
pub(super) const USUAL_WIDTH: u16 = 80;
/// Moves the cursor to the beginning of the line and erases all that follows it. More than the one
/// line can follow, since a terminal that has become narrower has broken the line.
const ERASE: &[u8] = b"\r\x1b[J";

/// A bar, and what of it is on the terminal.
pub(super) struct ShownBar {
    bar: Bar,
    /// The last line that was drawn.
    line: String,
    drawn: Option<Instant>,
    /// Whether the line is on the terminal, or waits to be written there.
    on_screen: bool,
    done: u64,
    total: Option<u64>,
    /// The job of the shell that this process is a part of.
    job: libc::pid_t,
}

impl ShownBar {
    /// A bar for `total` bytes, if that is known. Nothing of it is on the terminal yet.
    pub(super) fn new(total: Option<u64>) -> Self {
        Self {
            bar: Bar::new(total),
            line: String::with_capacity(512),
            drawn: None,
            on_screen: false,
            done: 0,
            total,
            job: job::own(),
        }
    }

    /// Says how many bytes there are to do. The line that is on the terminal stays there until the
    /// next one is drawn over it.
    pub(super) fn set_total(&mut self, total: u64) {
        self.bar = Bar::new(Some(total));
        self.total = Some(total);
    }

    /// Whether the line is on the terminal, or waits to be written there.
    pub(super) const fn is_on_screen(&self) -> bool {
        self.on_screen
    }

    /// Draws the line for `done` bytes, unless the last one was drawn just before.
    pub(super) fn draw_if_due(&mut self, done: u64, terminal: &mut Stream) {
        if self.drawn.is_none_or(|drawn| drawn.elapsed() >= FRAME) {
            self.done = done;
            self.drawn = Some(Instant::now());
            self.bar.draw(done, width_of(terminal), &mut self.line);
            if self.is_in_background(terminal) {
                self.on_screen = false;
            } else {
                self.put(terminal);
            }
        }
    }

    /// Shows the last line again, if there has been one.
    pub(super) fn put_back(&mut self, terminal: &mut Stream) {
        if self.drawn.is_some() && !self.is_in_background(terminal) {
            self.put(terminal);
        }
    }

    /// Whether the terminal belongs to another job, as a shell that waits for a command: a bar would be
    /// drawn over what is typed there.
    fn is_in_background(&self, terminal: &Stream) -> bool {
        job::has_another(terminal, self.job)
    }

    /// The cursor stays at the beginning of the line: a terminal that is made narrower breaks the
    /// line, but the cursor stays before all of it, and the next line takes all of it away. What
    /// the terminal itself shows of a key, such as `^C`, is overwritten as well.
    fn put(&mut self, terminal: &mut Stream) {
        terminal.print(b"\r");
        terminal.print(self.line.as_bytes());
        terminal.print(b"\x1b[J\r");
        self.on_screen = true;
    }

    /// Takes the line away, so that others can be printed.
    pub(super) fn erase(&mut self, terminal: &mut Stream) {
        if self.on_screen {
            terminal.print(ERASE);
            self.on_screen = false;
        }
    }

    /// Takes the line away for ever.
    pub(super) fn remove(self, terminal: &mut Stream) {
        if self.drawn.is_some() && !self.is_in_background(terminal) {
            terminal.print(ERASE);
        }
    }

    /// Takes the line away and leaves another in its place: what was done (`verb` says what, as in
    /// `copied`), how long it took and how fast it was.
    pub(super) fn conclude(self, verb: &str, elapsed: Duration, terminal: &mut Stream) {
        let done = self.total.unwrap_or(self.done);
        let line = summary(verb, done, elapsed, width_of(terminal)) + "\n";
        self.remove(terminal);
        terminal.print(line.as_bytes());
    }
}

/// How wide the terminal is, in columns.
fn width_of(terminal: &Stream) -> u16 {
    let size = tcgetwinsize(terminal).map(|size| size.ws_col);
    size.ok()
        .filter(|columns| *columns > 0)
        .unwrap_or(USUAL_WIDTH)
}
