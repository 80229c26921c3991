//! Standard output and standard error, neither of which a run ever waits for, and the progress bar
//! that keeps out of the way of the lines.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::shown_bar::ShownBar;
use crate::reason::reason;
use crate::report::stream::{Stream, lead_to_the_same};

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

/// Both streams of the process, and the bar.
pub(super) struct StandardStreams {
    /// `None` where standard output is the same terminal, pipe or socket as standard error: then
    /// all goes through one buffer, which keeps its order.
    out: Option<Stream>,
    err: Stream,
    /// It is on standard error.
    bar: Option<ShownBar>,
    /// Why standard output was lost, if it was; the user has been told.
    failure: Option<Errno>,
    /// Whether standard output carries an answer: whoever gives it tells that it is lost.
    answers: bool,
    /// Counts how often a wait for readers looked whether there is room.
    beats: Arc<AtomicU32>,
}

impl StandardStreams {
    /// Opens all that writing to `out` and `err` ever needs.
    pub(super) fn open(out: BorrowedFd<'static>, err: BorrowedFd<'static>) -> Self {
        let are_one = lead_to_the_same(out, err);
        Self {
            err: Stream::open(err),
            out: (!are_one).then(|| Stream::open(out)),
            bar: None,
            failure: None,
            answers: false,
            beats: Arc::default(),
        }
    }

    /// Counts in `beats` how often a wait for readers looks whether there is room.
    pub(super) fn count_beats(&mut self, beats: Arc<AtomicU32>) {
        self.beats = beats;
    }

    /// Whether both lead to the same terminal, pipe or socket.
    pub(super) const fn are_one(&self) -> bool {
        self.out.is_none()
    }

    /// Standard error.
    pub(super) const fn err(&self) -> &Stream {
        &self.err
    }

    /// Where standard output goes.
    pub(super) fn out(&self) -> &Stream {
        self.out.as_ref().unwrap_or(&self.err)
    }

    /// Where standard output goes, for what is printed while there is no bar.
    pub(super) fn out_mut(&mut self) -> &mut Stream {
        self.out.as_mut().unwrap_or(&mut self.err)
    }

    /// Whether standard output drops what it is given, so that only standard error is left.
    pub(super) fn is_out_lost(&self) -> bool {
        self.out.as_ref().is_some_and(Stream::is_broken)
    }

    /// Why standard output could not be written, if that is so.
    pub(super) const fn failure(&self) -> Option<Errno> {
        self.failure
    }

    /// Puts a bar for `total` bytes on standard error, which is a terminal.
    pub(super) fn add_bar(&mut self, total: Option<u64>) {
        self.bar = Some(ShownBar::new(total));
    }

    /// Whether there is a bar.
    pub(super) const fn has_bar(&self) -> bool {
        self.bar.is_some()
    }

    /// The bar, if there is one.
    pub(super) const fn bar_mut(&mut self) -> Option<&mut ShownBar> {
        self.bar.as_mut()
    }

    /// Takes the bar away. What has gone well has a verb, and leaves a line in the bar's place.
    pub(super) fn finish_bar(&mut self, verb: Option<&str>, elapsed: Duration) {
        match (self.bar.take(), verb) {
            (Some(bar), Some(verb)) => bar.conclude(verb, elapsed, &mut self.err),
            (Some(bar), None) => bar.remove(&mut self.err),
            (None, _) => {}
        }
    }

    /// Draws the bar for `done` bytes if it is time to. While the terminal takes nothing there is
    /// no new line: it would be old when it is shown.
    pub(super) fn draw_bar(&mut self, done: u64) {
        if let Some(bar) = &mut self.bar
            && self.err.is_empty()
        {
            bar.draw_if_due(done, &mut self.err);
        }
    }

    /// Adds whole lines to standard output.
    pub(super) fn print_out(&mut self, lines: &[u8]) {
        match &mut self.out {
            Some(out) => out.print(lines),
            None => self.print_err(lines),
        }
    }

    /// Adds a piece of an answer to standard output. That it cannot be written is for the caller to
    /// tell, who finds it in [`failure`](Self::failure).
    pub(super) fn print_answer(&mut self, piece: &[u8]) {
        self.answers = true;
        self.print_out(piece);
    }

    /// Adds whole lines to standard error, with the bar out of their way.
    pub(super) fn print_err(&mut self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        if let Some(bar) = &mut self.bar {
            bar.erase(&mut self.err);
        }
        self.err.print(lines);
    }

    /// Writes what can be written without waiting. Returns whether anything was.
    pub(super) fn write(&mut self) -> bool {
        let mut wrote = self.out.as_mut().is_some_and(Stream::flush);
        self.report_failure();
        wrote |= self.err.flush();
        self.report_failure();
        // The bar comes back once all lines before it are written, and not between them.
        if let Some(bar) = &mut self.bar
            && !bar.is_on_screen()
            && self.err.is_empty()
        {
            bar.put_back(&mut self.err);
            self.err.flush();
        }
        wrote
    }

    /// Whether so much waits that no more should be made.
    pub(super) fn are_full(&self) -> bool {
        self.all().any(Stream::is_full)
    }

    /// The descriptors on which text waits for room.
    pub(super) fn waiting(&self) -> impl Iterator<Item = RawFd> {
        self.all()
            .filter(|stream| stream.waits_for_room())
            .map(AsRawFd::as_raw_fd)
    }

    /// Waits until all is written: until `give_up`, and no longer than `patience` for readers none
    /// of which takes anything. What could not be written by then is dropped, and so is what comes
    /// later for the same reader. Ends early when `interrupt` becomes readable.
    pub(super) fn drain(
        &mut self,
        give_up: Instant,
        patience: Duration,
        interrupt: Option<BorrowedFd<'_>>,
    ) -> Drained {
        let mut progress = Instant::now();
        loop {
            if self.write() {
                progress = Instant::now();
            }
            self.beats.fetch_add(1, Ordering::Relaxed);
            if self.all().all(Stream::is_empty) {
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
        let waiting = self.all().filter(|stream| stream.waits_for_room());
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

    /// Writes what can be written without waiting, and drops what then waits for a reader that takes
    /// nothing, and what comes later for it. Returns how many bytes waited.
    pub(super) fn give_up(&mut self) -> usize {
        // What waits may not have been offered to its reader yet.
        self.write();
        let waiting = self.all_mut().filter(|stream| !stream.is_empty());
        waiting.map(Stream::give_up).sum()
    }

    /// Drops what waits for a reader that has taken nothing for `patience`, if so much waits that no
    /// more can be made, and what comes later for it. Returns how many bytes waited. The other stream
    /// goes on: that it takes something does not help who waits for this one.
    pub(super) fn give_up_stuck(&mut self, patience: Duration) -> usize {
        let is_stuck = |stream: &&mut Stream| stream.is_full() && stream.stuck_for() >= patience;
        self.all_mut().filter(is_stuck).map(Stream::give_up).sum()
    }

    /// Tells, once, that standard output cannot be written.
    fn report_failure(&mut self) {
        let stream = self.out.as_mut().unwrap_or(&mut self.err);
        let Some(failure) = stream.take_failure() else {
            return;
        };
        // Where both are the same there is nowhere to tell it.
        let is_news = self.failure.replace(failure).is_none() && !self.answers;
        if is_news && self.out.is_some() {
            let text = format!(
                "vmm: warning: cannot write to standard output: {}; its lines are dropped\n",
                reason(failure)
            );
            self.print_err(text.as_bytes());
        }
    }

    /// How many bytes were dropped for want of room since this was last asked.
    pub(super) fn take_lost(&mut self) -> usize {
        self.all_mut().map(Stream::take_lost).sum()
    }

    fn all(&self) -> impl Iterator<Item = &Stream> {
        self.out.iter().chain([&self.err])
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.out.iter_mut().chain([&mut self.err])
    }
}
