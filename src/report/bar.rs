//! The progress bar: percent, how fast, and time left, as one line for a terminal.
//!
//! It shows what the VMM has itself written, not what the guest claims, so that it needs no reports
//! from the guest. indicatif counts and lays out; it draws on a [`Page`] in memory, never on the
//! terminal, since a write there could wait.

use std::fmt::Write;
use std::io;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::style::ProgressTracker;
use indicatif::{
    BinaryBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
    TermLike,
};

use crate::lock::lock;

/// The longest line that is drawn, in columns.
const MAX_COLUMNS: u16 = 300;
/// The shape of the line, by the columns that it needs at least. Every amount is in units of
/// 1024, as in the statistics.
const SHAPES: [(u16, &str); 4] = [
    (
        72,
        "[{wide_bar}] {percent:>3}%  {binary_bytes}/{binary_total_bytes}  \
         {binary_bytes_per_sec}  {left}",
    ),
    (
        40,
        "[{wide_bar}] {percent:>3}%  {binary_bytes_per_sec}  {left}",
    ),
    (15, "{percent:>3}%  {left}"),
    (0, "{percent:>3}%"),
];
/// The shape of the line while nobody knows how much there is to do.
const ENDLESS: &str = "{binary_bytes}  {binary_bytes_per_sec}";

/// A progress bar that draws itself into a string.
pub(super) struct Bar {
    bar: ProgressBar,
    page: Arc<Page>,
    /// One for each of [`SHAPES`], made once.
    styles: Vec<ProgressStyle>,
    shape: Option<usize>,
}

impl Bar {
    /// A bar for `total` bytes, if that is known.
    pub(super) fn new(total: Option<u64>) -> Self {
        let page = Arc::new(Page::default());
        let target = ProgressDrawTarget::term_like(Box::new(Shared(page.clone())));
        let templates = SHAPES.map(|(_, template)| total.map_or(ENDLESS, |_| template));
        let styles = templates.into_iter().map(|template| {
            // The templates are constants, and a test makes a bar of each.
            ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("=> ")
                .with_key("left", Left)
        });
        Self {
            bar: ProgressBar::with_draw_target(total, target),
            page,
            styles: styles.collect(),
            shape: None,
        }
    }

    /// Writes the line for `done` bytes on a terminal that is `columns` wide into `line`. It is
    /// always shorter than the terminal is wide, so that the terminal does not break it.
    pub(super) fn draw(&mut self, done: u64, columns: u16, line: &mut String) {
        let columns = columns.clamp(2, MAX_COLUMNS) - 1;
        let fits = |(least, _): &(u16, &str)| columns + 1 >= *least;
        let shape = SHAPES.iter().position(fits);
        if self.shape != shape
            && let Some(style) = shape.and_then(|shape| self.styles.get(shape))
        {
            self.bar.set_style(style.clone());
            self.shape = shape;
        }
        self.page.columns.store(columns, Ordering::Relaxed);
        self.bar.update(|state| state.set_pos(done));
        line.clear();
        let text = lock(&self.page.text);
        line.extend(text.trim_end().chars().take(columns.into()));
    }
}

/// What is left of the bar of a run that has gone well: how much of what was done, how long it took
/// and how fast it was.
pub(super) fn summary(verb: &str, done: u64, elapsed: Duration, columns: u16) -> String {
    let mut line = String::from("100%  ");
    if columns >= 60 {
        line += verb;
        line.push(' ');
    }
    // Writing to a string cannot fail.
    let _ = write!(line, "{} in {}", BinaryBytes(done), Took(elapsed));
    let rate = done_per_second(done, elapsed);
    if rate > 0 {
        let _ = write!(line, ", {}/s", BinaryBytes(rate));
    }
    line
}

/// How long it still takes, once there is something to tell it by.
#[derive(Clone)]
struct Left;

impl ProgressTracker for Left {
    fn clone_box(&self) -> Box<dyn ProgressTracker> {
        Box::new(self.clone())
    }

    fn tick(&mut self, _: &ProgressState, _: Instant) {}

    fn reset(&mut self, _: &ProgressState, _: Instant) {}

    fn write(&self, state: &ProgressState, line: &mut dyn Write) {
        if state.pos() > 0 {
            // Writing to a string cannot fail.
            let _ = write!(line, "{:#} left", HumanDuration(state.eta()));
        }
    }
}

fn done_per_second(done: u64, elapsed: Duration) -> u64 {
    let nanoseconds = elapsed.as_nanos().max(1);
    let rate = u128::from(done) * 1_000_000_000 / nanoseconds;
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// A time for people: `2.34 s`, `3 min 04 s`, `5 h 06 min`.
struct Took(Duration);

impl std::fmt::Display for Took {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.0.as_secs();
        match seconds {
            0..60 => write!(f, "{:.2} s", self.0.as_secs_f64()),
            60..3600 => write!(f, "{} min {:02} s", seconds / 60, seconds % 60),
            _ => write!(f, "{} h {:02} min", seconds / 3600, seconds / 60 % 60),
        }
    }
}

/// What indicatif takes for a terminal: one line in memory.
#[derive(Debug, Default)]
struct Page {
    text: Mutex<String>,
    columns: AtomicU16,
}

#[derive(Debug)]
struct Shared(Arc<Page>);

impl TermLike for Shared {
    fn width(&self) -> u16 {
        // indicatif fills a line to its end and computes with what is left of it: never none.
        self.0.columns.load(Ordering::Relaxed).max(1)
    }

    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        lock(&self.0.text).clear();
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.write_str(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        lock(&self.0.text).push_str(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn drawn(bar: &mut Bar, done: u64, columns: u16) -> String {
        let mut line = String::new();
        bar.draw(done, columns, &mut line);
        line
    }

    #[test]
    fn the_bar_takes_the_width_there_is_and_never_more() {
        let mut bar = Bar::new(Some(10 * GIB));
        for columns in (0..=400).chain((0..400).rev()) {
            let line = drawn(&mut bar, 5 * GIB, columns);
            assert!(
                line.len() < columns.clamp(2, MAX_COLUMNS).into(),
                "{line:?}"
            );
            if columns >= 5 {
                assert!(line.contains("50%"), "{columns}: {line:?}");
            }
            if columns >= 40 {
                let expected = usize::from(columns.min(MAX_COLUMNS)) - 1;
                assert_eq!(line.len(), expected, "{line:?}");
                assert!(line.starts_with("[=") && line.contains("=>"), "{line:?}");
                assert!(line.ends_with(" left"), "{line:?}");
            }
        }
    }

    #[test]
    fn nothing_is_said_of_the_time_left_before_anything_is_done() {
        for columns in [20, 40, 80] {
            let mut bar = Bar::new(Some(GIB));
            let line = drawn(&mut bar, 0, columns);
            assert!(line.contains("  0%") && !line.contains("left"), "{line:?}");
            assert!(drawn(&mut bar, 1, columns).ends_with(" left"));
        }
    }

    #[test]
    fn amounts_are_in_units_of_1024() {
        let mut bar = Bar::new(Some(2 * GIB));
        let line = drawn(&mut bar, GIB, 100);
        assert!(line.contains("1.00 GiB/2.00 GiB"), "{line:?}");
    }

    #[test]
    fn an_unknown_amount_and_none_at_all_have_a_line_too() {
        let mut bar = Bar::new(None);
        assert!(drawn(&mut bar, GIB, 80).starts_with("1.00 GiB "));
        assert!(drawn(&mut Bar::new(Some(0)), 0, 80).contains("100%"));
        // More than was announced is no more than all of it.
        assert!(drawn(&mut Bar::new(Some(10)), 20, 80).contains("100%"));
    }

    #[test]
    fn the_summary_tells_amount_time_and_rate() {
        let summary =
            |done, millis, columns| summary("copied", done, Duration::from_millis(millis), columns);
        assert_eq!(
            summary(GIB, 2000, 80),
            "100%  copied 1.00 GiB in 2.00 s, 512.00 MiB/s"
        );
        assert_eq!(
            summary(GIB, 2000, 40),
            "100%  1.00 GiB in 2.00 s, 512.00 MiB/s"
        );
        assert_eq!(summary(0, 10, 80), "100%  copied 0 B in 0.01 s");
        assert_eq!(
            summary(GIB, 184_000, 80),
            "100%  copied 1.00 GiB in 3 min 04 s, 5.57 MiB/s"
        );
        assert!(summary(GIB, 3_960_000, 80).contains("1 h 06 min"));
        assert!(summary(u64::MAX, 0, 80).contains("16.00 EiB"));
    }
}
