//! The progress bar on a terminal: percent, throughput and time left.
//!
//! It shows what the VMM has itself written to the output, not what the guest claims, so that it
//! needs no reports from the guest.

use indicatif::{ProgressBar as Bar, ProgressDrawTarget, ProgressStyle};

/// How often a second the bar may be drawn.
const FRAMES: u8 = 10;
const TEMPLATE: &str = "{bar:30} {percent:>3}%  {decimal_bytes}/{decimal_total_bytes}  \
                        {decimal_bytes_per_sec}  {eta} left";

/// A progress bar on stderr, or none.
#[derive(Debug)]
pub struct ProgressBar(Option<Bar>);

impl ProgressBar {
    /// A bar for `total` bytes.
    #[must_use]
    pub fn new(total: u64) -> Self {
        let bar = Bar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(FRAMES));
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self(Some(bar))
    }

    /// No bar: there is no terminal, or nobody wants one.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// Shows that `bytes` are done.
    pub fn set(&self, bytes: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(bytes);
        }
    }

    /// Runs `print`, which writes to the terminal, with the bar out of its way.
    pub fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.0 {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Draws the bar for the last time and leaves it there, or takes it away if the run failed.
    /// Returns whether the cursor is left behind it, so that the line has to be ended.
    pub fn finish(&self, success: bool) -> bool {
        match &self.0 {
            Some(bar) if success => bar.finish(),
            Some(bar) => bar.finish_and_clear(),
            None => {}
        }
        success && self.0.is_some()
    }
}
