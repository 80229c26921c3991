//! The end of a copy: whose fault it is that there is none, and what the user is told.

use std::path::Path;
use std::time::Duration;

use super::disks::Disks;
use super::{Copy, Session};
use crate::config::Config;
use crate::operations::ending;
use crate::operations::written::{self, Written};
use crate::quote::quote_path;
use crate::runtime::{GuestEnd, Outcome, RunError};

/// Whether the output may be put in place. The output itself still checks that all was written.
/// `causes` tells what the guest's drivers did wrong, or why it may be no guest at all.
pub(super) fn judge(
    end: GuestEnd<'_>,
    session: &Session,
    disks: &Disks,
    causes: impl Fn() -> Vec<String>,
) -> Result<(), RunError> {
    let failed = |text: String| ending::guest_failed(format!("the copy failed: {text}"), &causes());
    let exited = |status| match status {
        0 => session.verdict().map_err(&failed),
        _ => Err(failed(match session.complaint() {
            Some(said) => format!("{said} (exit status {status})"),
            None => GuestEnd::Exited(status).to_string(),
        })),
    };
    ending::judge(end, disks.host_error(), exited, &failed)
}

/// What to do about a guest that has done what no guest does, if it was given as an argument too many.
pub(super) fn stray(guest: &Path) -> String {
    format!(
        "the guest is {}, the argument behind the disks: leave it out if it is no program for vmm",
        quote_path(guest)
    )
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
