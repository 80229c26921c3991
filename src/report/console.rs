//! The one thing through which a run speaks to its user: what is shown, where, and never so that
//! the run has to wait for it.
//!
//! Everything is opened and allocated in [`Console::open`], before the process is confined. Later
//! the console writes (`write`, or `sendto` on a socket), asks whether there is room (`ppoll`) and
//! how wide the terminal is (`TIOCGWINSZ`) and whose (`TIOCGPGRP`), and does nothing else.

use std::ffi::{OsStr, OsString};
use std::io::{stderr, stdout};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use guest_protocol::{GuestMessage, Payload};
use rustix::io::Errno;

use super::debug_lines::{DEBUG_PREFIX, DebugLines};
use super::json::{
    RunResult, debug_object, message_object, result_object, text_object, warning_object,
};
use super::line::{hex, push_message};
use super::stream::FULL;
use super::text::{TerminalText, TextLines};

mod options;
mod shown_bar;
mod standard_streams;

pub use options::{ConsoleOptions, OutputFormat};
pub use standard_streams::Drained;
use standard_streams::StandardStreams;

/// How many of a guest's bytes, of frames or text of either port, may be shown on a console that is
/// not full before it is asked again. What they become always fits. The worst is a line break,
/// which becomes an object of 26 bytes.
pub const PIECE: usize = FULL / 32;
/// The most bytes of an answer that are added at once: what fits if nothing waits.
pub const ANSWER_PIECE: usize = FULL;
/// Room for the line of a usual message, in bytes.
const LINE: usize = 256;

/// Standard output and standard error.
pub struct Console {
    options: ConsoleOptions,
    streams: StandardStreams,
    /// Whether the lines of messages are shown.
    lines: bool,
    /// The last of them.
    message_line: String,
    terminal_text: TerminalText,
    text_lines: TextLines,
}

/// Shows on standard error why a program that has no console ends, and to a program that reads what is
/// said also its `last_object`. It waits no longer than `patience` for a terminal or a pipe that takes
/// nothing, and opens the standard streams once more. A process that is already confined may not, and
/// says it more slowly: whoever still has a console uses that.
pub fn last_words(text: &str, last_object: Option<&str>, patience: Duration) {
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
    if let Some(object) = last_object {
        console.streams.print_out(object.as_bytes());
    }
    let now = Instant::now();
    let give_up = now.checked_add(patience).unwrap_or(now);
    console.drain_unless(give_up, patience, None);
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
        let mut streams = StandardStreams::open(out, err);
        let obeys = term.is_some_and(|term| !term.is_empty() && term != OsStr::new("dumb"));
        let has_bar = streams.err().is_terminal()
            && obeys
            && !options.quiet
            && !options.raw_text
            && options.format == OutputFormat::Text;
        if has_bar {
            streams.add_bar(options.total);
        }
        let bar_is_on_stdout = has_bar && streams.are_one();
        Self {
            lines: !options.quiet && (!bar_is_on_stdout || options.verbose),
            streams,
            options,
            message_line: String::with_capacity(LINE),
            terminal_text: TerminalText::default(),
            text_lines: TextLines::new(),
        }
    }

    /// Whether anybody will see reports of progress; if not, the guest is asked for none.
    #[must_use]
    pub const fn wants_reports(&self) -> bool {
        self.lines
    }

    /// Whether lines go to a terminal that has no bar and on which they were not asked for: to a person,
    /// who wants few of them.
    #[must_use]
    pub fn is_bare_terminal(&self) -> bool {
        let few = !(self.is_json() || self.options.verbose || self.options.raw_text);
        few && !self.has_bar() && self.streams.out().is_terminal()
    }

    /// Whether there is a bar.
    #[must_use]
    pub const fn has_bar(&self) -> bool {
        self.streams.has_bar()
    }

    /// Shows `message`, as a line or as an object. Errors of the guest are always shown.
    pub fn message(&mut self, message: &GuestMessage) {
        let is_error = matches!(message.payload, Some(Payload::Error(_)));
        if !self.lines && !is_error {
            return;
        }
        if self.is_json() {
            let object = message_object(message).unwrap_or_default();
            self.streams.print_out(object.as_bytes());
            return;
        }
        // Its room is used again.
        let mut line = std::mem::take(&mut self.message_line);
        line.clear();
        if push_message(&mut line, message) {
            line.push('\n');
        }
        self.streams.print_out(line.as_bytes());
        self.message_line = line;
    }

    /// Says how many bytes there are to do, for a run that finds it out on its way.
    pub fn set_total(&mut self, total: u64) {
        if let Some(bar) = self.streams.bar_mut() {
            bar.set_total(total);
        }
    }

    /// Shows the digest of what was done, as programs do that compute nothing else. It is a result that
    /// was asked for, and not a message beside a bar; a program finds it in the last object.
    pub fn digest(&mut self, algorithm: &str, digest: &[u8]) {
        if !self.is_json() {
            let line = format!("{algorithm} {}\n", hex(digest));
            self.streams.print_out(line.as_bytes());
        }
    }

    /// Passes on what a guest says that speaks plain text.
    pub fn text(&mut self, bytes: &[u8]) {
        if !self.lines {
            return;
        }
        if self.is_json() {
            let stream = self.streams.out_mut();
            let show = |line: &str| stream.print(text_object(line).as_bytes());
            self.text_lines.push(bytes, show);
        } else if self.streams.out().is_terminal() {
            let mut shown = String::new();
            self.terminal_text.push(bytes, &mut shown);
            self.streams.print_out(shown.as_bytes());
        } else {
            self.streams.print_out(bytes);
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
            self.streams.print_out(debug_object(line).as_bytes());
        } else {
            self.streams
                .print_err(format!("{DEBUG_PREFIX}{line}\n").as_bytes());
        }
    }

    /// Shows a warning: on standard error if standard output is lost.
    pub fn warn(&mut self, text: &str) {
        if self.is_json() && !self.streams.is_out_lost() {
            self.streams.print_out(warning_object(text).as_bytes());
        } else {
            self.streams
                .print_err(format!("vmm: warning: {text}\n").as_bytes());
        }
    }

    /// Shows why the run has failed, on standard error whatever the format is.
    pub fn error(&mut self, text: &str) {
        self.streams.print_err(format!("vmm: {text}\n").as_bytes());
    }

    /// Shows whole lines, such as statistics, on standard error.
    pub fn notice(&mut self, lines: &str) {
        self.streams.print_err(lines.as_bytes());
    }

    /// Shows a line on standard output.
    pub fn line(&mut self, text: &str) {
        self.streams.print_out(format!("{text}\n").as_bytes());
    }

    /// Shows a piece of an answer of at most [`ANSWER_PIECE`] bytes on standard output. That it
    /// cannot be written is for the caller to tell, who finds it in [`failure`](Self::failure).
    pub fn answer(&mut self, piece: &[u8]) {
        self.streams.print_answer(piece);
    }

    /// Why standard output could not be written, if that is so. A reader that has gone is no
    /// failure.
    #[must_use]
    pub const fn failure(&self) -> Option<Errno> {
        self.streams.failure()
    }

    /// Shows the last object of a run whose format is JSON.
    pub fn result(&mut self, result: &RunResult) {
        if self.is_json() {
            self.streams.print_out(result_object(result).as_bytes());
        }
    }

    /// Draws the bar for `done` bytes if it is time to, and writes what waits. To be called each
    /// 50 ms.
    pub fn tick(&mut self, done: u64) {
        self.streams.draw_bar(done);
        self.flush();
    }

    /// Whether so much waits that the guest should wait too: with room for another [`PIECE`].
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.streams.are_full()
    }

    /// Writes what can be written without waiting.
    pub fn flush(&mut self) {
        self.streams.write();
    }

    /// The descriptors on which text waits for room. They can be watched with `epoll`; nothing is
    /// lost if they are not, since each tick tries as well.
    pub fn waiting(&self) -> impl Iterator<Item = RawFd> {
        self.streams.waiting()
    }

    /// Takes the bar away. A run that has gone well leaves a line in its place: what was done, how
    /// long it took and how fast it was.
    pub fn finish_bar(&mut self, success: bool, elapsed: Duration) {
        let verb = success.then_some(self.options.verb);
        self.streams.finish_bar(verb, elapsed);
    }

    /// Ends a line of a guest's text that has begun, for a program or a terminal.
    fn finish_text(&mut self) {
        let stream = self.streams.out_mut();
        let show = |line: &str| stream.print(text_object(line).as_bytes());
        self.text_lines.finish(show);
        let mut shown = String::new();
        self.terminal_text.finish(&mut shown);
        self.streams.print_out(shown.as_bytes());
    }

    /// Counts in `beats` how often a wait for readers looks whether there is room: a count that stands
    /// still tells that writing itself does not come back.
    pub fn count_beats(&mut self, beats: Arc<AtomicU32>) {
        self.streams.count_beats(beats);
    }

    /// Waits until all is written: until `give_up`, and no longer than `patience` for readers none
    /// of which takes anything. What could not be written by then is dropped, and so is what comes
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
        self.streams.drain(give_up, patience, interrupt)
    }

    /// Writes what can be written without waiting, and drops what then waits for a reader that takes
    /// nothing, and what comes later for it. Returns how many bytes waited.
    pub fn give_up(&mut self) -> usize {
        self.streams.give_up()
    }

    /// Drops what waits for a reader that has taken nothing for `patience`, if the console is full
    /// because of it, and what comes later for it. Returns how many bytes waited. What another reader
    /// takes, such as a progress bar, makes nothing of this.
    pub fn give_up_stuck(&mut self, patience: Duration) -> usize {
        self.streams.give_up_stuck(patience)
    }

    fn is_json(&self) -> bool {
        self.options.format == OutputFormat::Json
    }
}

/// The standard streams are open for as long as the process lives.
fn borrow_static(stream: &impl AsFd) -> BorrowedFd<'static> {
    // SAFETY: nothing in this program closes the standard streams; those that were closed are opened
    // on /dev/null before `main`.
    unsafe { BorrowedFd::borrow_raw(stream.as_fd().as_raw_fd()) }
}

#[cfg(test)]
mod tests;
