//! The user's side of a run: what is shown where.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::error::RunError;
use super::signals::Signals;
use crate::config::{Config, Protocol, StatsFormat};
use crate::report::{Console, ConsoleOptions, Drained, OutputFormat};

/// How long a reader may take nothing before what is left is dropped.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the end may take in all.
const LIMIT: Duration = Duration::from_secs(3600);

/// What `config` wants to be shown, for `total` bytes to copy.
pub(super) fn open_console(config: &Config, total: u64) -> Console {
    Console::open(ConsoleOptions {
        quiet: config.quiet,
        verbose: config.verbose,
        debug: config.debug,
        format: match config.format {
            StatsFormat::Text => OutputFormat::Text,
            StatsFormat::Json => OutputFormat::Json,
        },
        raw_text: config.protocol == Protocol::Text,
        total: Some(total),
        verb: "copied",
    })
}

/// Writes what is left, unless nobody takes it or a signal comes.
pub(super) fn drain(console: &mut Console, signals: &Signals) -> Result<(), RunError> {
    let now = Instant::now();
    match console.drain(now + LIMIT, PATIENCE, signals.as_fd()) {
        Drained::Done | Drained::GaveUp { .. } => Ok(()),
        Drained::Interrupted => match signals.next() {
            Some(signal) => Err(RunError::Signal(signal)),
            None => Ok(()),
        },
    }
}
