//! The one thing through which a run speaks to its user: what is shown, where, and never so that
//! the run has to wait for it.
//!
//! Everything is opened and allocated in [`Console::open`], before the process is confined. Later
//! the console writes (`write`, or `sendto` on a socket), asks whether there is room (`ppoll`) and
//! how wide the terminal is (`TIOCGWINSZ`), and does nothing else.

use std::ffi::{OsStr, OsString};
use std::io::{stderr, stdout};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use guest_protocol::{GuestMessage, Payload};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::tcgetwinsize;

use super::bar::{Bar, summary};
use super::debug_lines::{DEBUG_PREFIX, DebugLines};
use super::json::{
    RunResult, debug_object, message_object, result_object, text_object, warning_object,
};
use super::line::{hex, push_message};
use super::stream::{FULL, Stream, lead_to_the_same};
use super::text::{TerminalText, TextLines};

/// So many of a guest's bytes, of frames or text of either port, may be shown on a console that is
/// not full before it is asked again: what becomes of them always fits. The worst is a line break,
/// which becomes an object of 26 bytes.
pub const PIECE: usize = FULL / 32;
/// The most bytes of an answer that are added at once: what fits if nothing waits.
pub const ANSWER_PIECE: usize = FULL;
/// Room for the line of a usual message, in bytes.
const LINE: usize = 256;
/// The bar is drawn no more often than this.
const FRAME: Duration = Duration::from_millis(100);
/// The width of a terminal that does not know its own, in columns.
const USUAL_WIDTH: u16 = 80;
/// Back to the beginning of the line, and nothing behind it. All of it, since a terminal that has
/// become narrower has broken the line.
const ERASE: &[u8] = b"\r\x1b[J";

/// How a run shows what it has to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputFormat {
    /// Lines for people.
    #[default]
    Text,
    /// Objects for programs (`docs/json.md`).
    Json,
}

/// What is to be shown.
#[derive(Clone, Debug)]
pub struct ConsoleOptions {
    /// Errors only.
    pub quiet: bool,
    /// The lines of messages beside a bar, too.
    pub verbose: bool,
    /// The guest's debug lines.
    pub debug: bool,
    /// For whom.
    pub format: OutputFormat,
    /// The guest speaks plain text, which is passed on; there is no bar then.
    pub raw_text: bool,
    /// How many bytes there are to do, for the bar.
    pub total: Option<u64>,
    /// What is done to them, as in `copied`.
    pub verb: &'static str,
}

/// How waiting for readers ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// All is written, or has nobody left to read it.
    Done,
    /// So many bytes were dropped, since nobody took them.
    GaveUp {
        /// How many.
        bytes: usize,
    },
    /// There is something else to do: the descriptor that may interrupt is readable.
    Interrupted,
}

/// Where a line goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sink {
    Out,
    Err,
}

/// Standard output and standard error.
pub struct Console {
    options: ConsoleOptions,
    /// `None` where standard output is the same terminal, pipe or socket as standard error: then
    /// all goes through one buffer, which keeps its order.
    out: Option<Stream>,
    err: Stream,
    bar: Option<ShownBar>,
    /// Whether the lines of messages are shown.
    lines: bool,
    /// The last of them.
    message_line: String,
    terminal_text: TerminalText,
    text_lines: TextLines,
    /// Why standard output was lost, if it was; the user has been told.
    failure: Option<Errno>,
    /// When a stream last took something.
    moved: Instant,
}

/// Shows on standard error why a program that has no console ends, and waits no longer than
/// `patience` for a terminal or a pipe that takes nothing. It opens standard error once more: a
/// process that is already confined must use the console that it has.
pub fn last_words(text: &str, patience: Duration) {
    let mut console = Console::open(ConsoleOptions {
        quiet: true,
        verbose: false,
        debug: false,
        format: OutputFormat::Text,
        raw_text: false,
        total: None,
        verb: "done",
    });
    console.error(text);
    let now = Instant::now();
    let give_up = now.checked_add(patience).unwrap_or(now);
    console.drain_unless(give_up, patience, None);
}

/// A bar, and what of it is on the terminal.
struct ShownBar {
    bar: Bar,
    /// The last frame.
    line: String,
    drawn: Option<Instant>,
    /// Whether the line is on the terminal, or waits to be written there.
    on_screen: bool,
    done: u64,
}

impl Default for Console {
    /// For programs and their users: lines, without a bar.
    fn default() -> Self {
        Self::open(ConsoleOptions {
            quiet: false,
            verbose: true,
            debug: false,
            format: OutputFormat::Text,
            raw_text: true,
            total: None,
            verb: "done",
        })
    }
}

impl Console {
    /// Opens everything that a run will ever need to speak to its user.
    #[must_use]
    pub fn open(options: ConsoleOptions) -> Self {
        let term = std::env::var_os("TERM");
        Self::on(
            options,
            borrow_static(&stdout()),
            borrow_static(&stderr()),
            term.as_ref(),
        )
    }

    fn on(
        options: ConsoleOptions,
        out: BorrowedFd<'static>,
        err: BorrowedFd<'static>,
        term: Option<&OsString>,
    ) -> Self {
        let shared = lead_to_the_same(out, err);
        let err = Stream::open(err);
        let obeys = term.is_some_and(|term| !term.is_empty() && term != OsStr::new("dumb"));
        let has_bar = err.is_terminal()
            && obeys
            && !options.quiet
            && !options.raw_text
            && options.format == OutputFormat::Text;
        let bar_is_on_stdout = has_bar && shared;
        Self {
            lines: !options.quiet && (!bar_is_on_stdout || options.verbose),
            bar: has_bar.then(|| ShownBar::new(options.total)),
            out: (!shared).then(|| Stream::open(out)),
            err,
            options,
            message_line: String::with_capacity(LINE),
            terminal_text: TerminalText::default(),
            text_lines: TextLines::new(),
            failure: None,
            moved: Instant::now(),
        }
    }

    /// Whether anybody will see reports of progress; if not, the guest is asked for none.
    #[must_use]
    pub const fn wants_reports(&self) -> bool {
        self.lines
    }

    /// Whether there is a bar.
    #[must_use]
    pub const fn has_bar(&self) -> bool {
        self.bar.is_some()
    }

    /// Shows `message`, as a line or as an object. Errors of the guest are always shown.
    pub fn message(&mut self, message: &GuestMessage) {
        let is_error = matches!(message.payload, Some(Payload::Error(_)));
        if !self.lines && !is_error {
            return;
        }
        if self.is_json() {
            let object = message_object(message).unwrap_or_default();
            self.print(Sink::Out, object.as_bytes());
            return;
        }
        // Its room is used again.
        let mut line = std::mem::take(&mut self.message_line);
        line.clear();
        if push_message(&mut line, message) {
            line.push('\n');
        }
        self.print(Sink::Out, line.as_bytes());
        self.message_line = line;
    }

    /// Says how many bytes there are to do, for a run that finds it out on its way.
    pub fn set_total(&mut self, total: u64) {
        self.options.total = Some(total);
        if self.bar.is_some() {
            self.bar = Some(ShownBar::new(Some(total)));
        }
    }

    /// Shows the digest of what was done, as programs do that compute nothing else. A result, and not
    /// a message beside a bar; a program finds it in the last object.
    pub fn digest(&mut self, algorithm: &str, digest: &[u8]) {
        if !self.options.quiet && !self.is_json() {
            let line = format!("{algorithm} {}\n", hex(digest));
            self.print(Sink::Out, line.as_bytes());
        }
    }

    /// Passes on what a guest says that speaks plain text.
    pub fn text(&mut self, bytes: &[u8]) {
        if !self.lines {
            return;
        }
        if self.is_json() {
            let stream = self.out.as_mut().unwrap_or(&mut self.err);
            let show = |line: &str| stream.print(text_object(line).as_bytes());
            self.text_lines.push(bytes, show);
        } else if self.out.as_ref().unwrap_or(&self.err).is_terminal() {
            let mut shown = String::new();
            self.terminal_text.push(bytes, &mut shown);
            self.print(Sink::Out, shown.as_bytes());
        } else {
            self.print(Sink::Out, bytes);
        }
    }

    /// Shows a line of debug text, which [`DebugLines`] has made, if that is wanted.
    pub fn debug(&mut self, line: &str) {
        if self.options.debug {
            self.show_debug(line);
        }
    }

    /// Shows the last debug lines of a run that the guest has made fail, unless all were shown.
    pub fn explain(&mut self, debug: &DebugLines) {
        if !self.options.debug {
            for line in debug.last() {
                self.show_debug(line);
            }
        }
    }

    fn show_debug(&mut self, line: &str) {
        if self.is_json() {
            self.print(Sink::Out, debug_object(line).as_bytes());
        } else {
            self.print(Sink::Err, format!("{DEBUG_PREFIX}{line}\n").as_bytes());
        }
    }

    /// Shows a warning: on standard error if standard output is lost.
    pub fn warn(&mut self, text: &str) {
        let lost = self.out.as_ref().is_some_and(Stream::is_broken);
        if self.is_json() && !lost {
            self.print(Sink::Out, warning_object(text).as_bytes());
        } else {
            self.print(Sink::Err, format!("vmm: warning: {text}\n").as_bytes());
        }
    }

    /// Shows why the run has failed, on standard error whatever the format is.
    pub fn error(&mut self, text: &str) {
        self.print(Sink::Err, format!("vmm: {text}\n").as_bytes());
    }

    /// Shows whole lines, such as statistics, on standard error.
    pub fn notice(&mut self, lines: &str) {
        self.print(Sink::Err, lines.as_bytes());
    }

    /// Shows a line on standard output.
    pub fn line(&mut self, text: &str) {
        self.print(Sink::Out, format!("{text}\n").as_bytes());
    }

    /// Shows a piece of an answer of at most [`ANSWER_PIECE`] bytes on standard output.
    pub fn answer(&mut self, piece: &[u8]) {
        self.print(Sink::Out, piece);
    }

    /// Why standard output could not be written, if that is so. A reader that has gone is no
    /// failure.
    #[must_use]
    pub const fn failure(&self) -> Option<Errno> {
        self.failure
    }

    /// Shows the last object of a run whose format is JSON.
    pub fn result(&mut self, result: &RunResult) {
        if self.is_json() {
            self.print(Sink::Out, result_object(result).as_bytes());
        }
    }

    /// Draws the bar for `done` bytes if it is time to, and writes what waits. To be called each
    /// 50 ms.
    pub fn tick(&mut self, done: u64) {
        // While the terminal takes nothing, a frame would be old when it is shown.
        if let Some(bar) = &mut self.bar
            && self.err.is_empty()
            && bar.drawn.is_none_or(|drawn| drawn.elapsed() >= FRAME)
        {
            bar.draw(done, width_of(&self.err), &mut self.err);
        }
        self.flush();
    }

    /// Whether so much waits that the guest should wait too: with room for another [`PIECE`].
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.streams().any(Stream::is_full)
    }

    /// Writes what can be written without waiting.
    pub fn flush(&mut self) {
        self.write();
    }

    /// As [`Self::flush`], and says whether anything was written.
    fn write(&mut self) -> bool {
        let mut wrote = self.out.as_mut().is_some_and(Stream::flush);
        self.report_failure();
        wrote |= self.err.flush();
        self.report_failure();
        if wrote || self.streams().all(Stream::is_empty) {
            self.moved = Instant::now();
        }
        // The bar comes back once all lines before it are written, and not between them.
        if let Some(bar) = &mut self.bar
            && !bar.on_screen
            && self.err.is_empty()
        {
            bar.put_back(&mut self.err);
            self.err.flush();
        }
        wrote
    }

    /// The descriptors on which text waits for room. They can be watched with `epoll`; nothing is
    /// lost if they are not, since each tick tries as well.
    pub fn waiting(&self) -> impl Iterator<Item = RawFd> {
        self.streams()
            .filter(|stream| stream.waits_for_room())
            .map(AsRawFd::as_raw_fd)
    }

    /// Takes the bar away. A run that has gone well leaves a line in its place: what was done, how
    /// long it took and how fast it was.
    pub fn finish_bar(&mut self, success: bool, elapsed: Duration) {
        let Some(bar) = self.bar.take() else {
            return;
        };
        if bar.drawn.is_some() {
            self.err.print(ERASE);
        }
        if success {
            let done = self.options.total.unwrap_or(bar.done);
            let columns = width_of(&self.err);
            let line = summary(self.options.verb, done, elapsed, columns) + "\n";
            self.err.print(line.as_bytes());
        }
    }

    /// Ends a line of a guest's text that has begun, for a program or a terminal.
    fn finish_text(&mut self) {
        let stream = self.out.as_mut().unwrap_or(&mut self.err);
        let show = |line: &str| stream.print(text_object(line).as_bytes());
        self.text_lines.finish(show);
        let mut shown = String::new();
        self.terminal_text.finish(&mut shown);
        self.print(Sink::Out, shown.as_bytes());
    }

    /// Waits until all is written: until `give_up`, and no longer than `patience` for a reader
    /// that takes nothing. What could not be written by then is dropped, and so is what comes
    /// later for the same reader. Ends early when `interrupt` becomes readable.
    pub fn drain(
        &mut self,
        give_up: Instant,
        patience: Duration,
        interrupt: BorrowedFd<'_>,
    ) -> Drained {
        self.drain_unless(give_up, patience, Some(interrupt))
    }

    fn drain_unless(
        &mut self,
        give_up: Instant,
        patience: Duration,
        interrupt: Option<BorrowedFd<'_>>,
    ) -> Drained {
        self.finish_text();
        let mut progress = Instant::now();
        loop {
            if self.write() {
                progress = Instant::now();
            }
            if self.streams().all(Stream::is_empty) {
                return match self.take_lost() {
                    0 => Drained::Done,
                    bytes => Drained::GaveUp { bytes },
                };
            }
            let now = Instant::now();
            let limit = progress
                .checked_add(patience)
                .map_or(give_up, |end| end.min(give_up));
            if now >= limit {
                return Drained::GaveUp {
                    bytes: self.give_up() + self.take_lost(),
                };
            }
            if self.wait_for_room(limit - now, interrupt) {
                return Drained::Interrupted;
            }
        }
    }

    /// Waits until a stream has room, and says whether `interrupt` has become readable.
    fn wait_for_room(&self, limit: Duration, interrupt: Option<BorrowedFd<'_>>) -> bool {
        let waiting = self.streams().filter(|stream| stream.waits_for_room());
        let mut entries: Vec<_> = waiting
            .map(|stream| PollFd::new(stream, PollFlags::OUT))
            .collect();
        let streams = entries.len();
        entries.extend(interrupt.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let limit = Timespec::try_from(limit).unwrap_or_default();
        // There is nothing to do about an error but to look again.
        let _ = poll(&mut entries, Some(&limit));
        let mut interrupts = entries.iter().skip(streams);
        interrupts.any(|entry| entry.revents().contains(PollFlags::IN))
    }

    /// Adds whole lines to where they go, with the bar out of their way.
    fn print(&mut self, sink: Sink, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        let stream = match (sink, &mut self.out) {
            (Sink::Out, Some(out)) => out,
            _ => {
                if let Some(bar) = &mut self.bar {
                    bar.erase(&mut self.err);
                }
                &mut self.err
            }
        };
        stream.print(lines);
    }

    /// Tells, once, that standard output can not be written.
    fn report_failure(&mut self) {
        let stream = self.out.as_mut().unwrap_or(&mut self.err);
        let Some(failure) = stream.take_failure() else {
            return;
        };
        // Where both are the same there is nowhere to tell it.
        if self.failure.replace(failure).is_none() && self.out.is_some() {
            let text = format!(
                "vmm: warning: cannot write to standard output: {failure}; its lines are dropped\n"
            );
            self.print(Sink::Err, text.as_bytes());
        }
    }

    /// Drops what waits for a reader that takes nothing, and what comes later for it. Returns how
    /// many bytes waited.
    pub fn give_up(&mut self) -> usize {
        let waiting = self.streams_mut().filter(|stream| !stream.is_empty());
        waiting.map(Stream::give_up).sum()
    }

    /// For how long text has waited for readers that took nothing.
    #[must_use]
    pub fn stuck_for(&self) -> Duration {
        if self.streams().all(Stream::is_empty) {
            Duration::ZERO
        } else {
            self.moved.elapsed()
        }
    }

    fn is_json(&self) -> bool {
        self.options.format == OutputFormat::Json
    }

    fn streams(&self) -> impl Iterator<Item = &Stream> {
        self.out.iter().chain([&self.err])
    }

    fn streams_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.out.iter_mut().chain([&mut self.err])
    }

    fn take_lost(&mut self) -> usize {
        self.streams_mut().map(Stream::take_lost).sum()
    }
}

impl ShownBar {
    fn new(total: Option<u64>) -> Self {
        Self {
            bar: Bar::new(total),
            line: String::with_capacity(512),
            drawn: None,
            on_screen: false,
            done: 0,
        }
    }

    /// Draws the line for `done` bytes.
    fn draw(&mut self, done: u64, columns: u16, terminal: &mut Stream) {
        self.done = done;
        self.drawn = Some(Instant::now());
        self.bar.draw(done, columns, &mut self.line);
        self.put(terminal);
    }

    /// Shows the last line again, if there has been one.
    fn put_back(&mut self, terminal: &mut Stream) {
        if self.drawn.is_some() {
            self.put(terminal);
        }
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
    fn erase(&mut self, terminal: &mut Stream) {
        if self.on_screen {
            terminal.print(ERASE);
            self.on_screen = false;
        }
    }
}

/// How wide the terminal is, in columns.
fn width_of(terminal: &Stream) -> u16 {
    let size = tcgetwinsize(terminal).map(|size| size.ws_col);
    size.ok()
        .filter(|columns| *columns > 0)
        .unwrap_or(USUAL_WIDTH)
}

/// The standard streams are open for as long as the process lives.
fn borrow_static(stream: &impl AsFd) -> BorrowedFd<'static> {
    // SAFETY: nothing in this program closes the standard streams; Rust's runtime opens them on
    // /dev/null if the process was started without.
    unsafe { BorrowedFd::borrow_raw(stream.as_fd().as_raw_fd()) }
}

#[cfg(test)]
#[path = "console_tests.rs"]
mod tests;
