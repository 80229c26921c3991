//! The end of a conversion: whose fault it is that there is none, and what the user is told.

use std::time::Duration;

use super::disks::{Disks, SECTOR_SIZE};
use super::session::Complaint;
use super::{Conversion, Session, console_options};
use crate::config::ConvertConfig;
use crate::operations::ending;
use crate::operations::written::{self, Written};
use crate::report::Console;
use crate::runtime::{GuestEnd, Outcome, RunError, Watch};

/// How long the output is, if it may be put in place. The output itself still checks that all was
/// written.
pub(super) fn judge(end: GuestEnd<'_>, session: &Session, disks: &Disks) -> Result<u64, RunError> {
    // What the host could not do explains all that came after it.
    if let Some(error) = disks.host_error() {
        return Err(RunError::Storage(error));
    }
    let failed = |text: String| {
        RunError::Guest(match disks.driver_fault() {
            Some(cause) => format!("the conversion failed: {text}; {cause}"),
            None => format!("the conversion failed: {text}"),
        })
    };
    let complain = |complaint| match complaint {
        Complaint::Refused(text) => RunError::Refused(format!("the image is refused: {text}")),
        Complaint::Broken(text) => RunError::Broken(format!("the image is broken: {text}")),
        Complaint::Failed(text) => failed(text),
    };
    match end {
        GuestEnd::Exited(0) => session.verdict().map_err(complain),
        GuestEnd::Exited(status) => Err(match session.verdict() {
            Err(Complaint::Failed(text)) => failed(format!("{text} (exit status {status})")),
            Err(complaint) => complain(complaint),
            Ok(_) => failed(format!(
                "the guest claimed success and ended with exit status {status}"
            )),
        }),
        GuestEnd::NothingInFlight => Err(failed(
            "the guest waits for a disk, and no disk has anything to do".to_owned(),
        )),
        GuestEnd::Fault(_) | GuestEnd::Unexpected(_) => match end.check() {
            Err(RunError::Guest(text)) => Err(failed(text)),
            Err(error) => Err(error),
            Ok(()) => Err(failed("the guest ended in an unknown way".to_owned())),
        },
    }
}

/// Shows what is left to show, and returns the exit status.
pub(super) fn finish(
    config: &ConvertConfig,
    run: &Conversion,
    outcome: Outcome,
    elapsed: Duration,
) -> u8 {
    let written = Written {
        output: &run.files.output,
        stats_file: run.files.stats.as_deref(),
        stats_format: config.stats.then_some(config.format),
        counters: &run.disks.counters(),
        sector_size: SECTOR_SIZE,
        digest: run.session.digest(),
        digest_seconds: None,
    };
    written::finish(written, outcome, elapsed)
}

/// Says why a run did not even begin, and returns the exit status.
pub(super) fn refuse(
    config: &ConvertConfig,
    error: &RunError,
    elapsed: Duration,
    watch: &Watch,
) -> u8 {
    let console = Console::open(console_options(config));
    ending::refuse(console, error, elapsed, watch)
}
