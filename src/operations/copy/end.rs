//! The end of a copy: whose fault it is that there is none, and what the user is told.

use std::time::Duration;

use super::disks::Disks;
use super::{Copy, Session};
use crate::config::Config;
use crate::operations::ending;
use crate::operations::written::{self, Written};
use crate::runtime::{GuestEnd, Outcome, RunError};

/// Whether the output may be put in place. The output itself still checks that all was written.
/// `driver_fault` tells what the guest's drivers did wrong.
pub(super) fn judge(
    end: GuestEnd<'_>,
    session: &Session,
    disks: &Disks,
    driver_fault: impl Fn() -> Option<String>,
) -> Result<(), RunError> {
    let failed =
        |text: String| ending::guest_failed(format!("the copy failed: {text}"), driver_fault());
    let exited = |status| match status {
        0 => session.verdict().map_err(&failed),
        _ => Err(failed(match session.complaint() {
            Some(said) => format!("{said} (exit status {status})"),
            None => GuestEnd::Exited(status).to_string(),
        })),
    };
    ending::judge(end, disks.host_error(), exited, &failed)
}

/// Shows what is left to show, and returns the exit status.
pub(super) fn finish(
    config: &Config,
    copy: &Copy,
    outcome: Outcome,
    elapsed: Duration,
    digest_seconds: Option<f64>,
) -> u8 {
    let written = Written {
        files: &copy.files,
        stats_format: config.stats.then_some(config.format),
        counters: &copy.disks.counters(),
        verb: "copied",
        sector_size: config.input_sector_size.bytes(),
        digest: copy.session.digest().filter(|_| copy.shows_digest),
        digest_seconds,
    };
    written::finish(written, outcome, elapsed)
}
