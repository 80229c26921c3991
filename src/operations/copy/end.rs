//! The end of a copy: whose fault it is that there is none, and what the user is told.

use std::os::fd::AsFd;
use std::time::Duration;

use super::disks::Disks;
use super::{Copy, Session, console_options};
use crate::config::Config;
use crate::operations::{ending, written};
use crate::report::{Console, RunResult};
use crate::runtime::{GuestEnd, Outcome, RunError, say_goodbye};
use crate::stats::Stats;

/// Whether the output may be put in place. The output itself still checks that all was written.
/// `driver_fault` tells what the guest's drivers did wrong.
pub(super) fn judge(
    end: GuestEnd<'_>,
    session: &Session,
    disks: &Disks,
    driver_fault: impl Fn() -> Option<String>,
) -> Result<(), RunError> {
    // What the host could not do explains all that came after it. An error that the guest has made
    // good, by asking again, is none any more.
    if let Some(error) = disks.host_error() {
        return Err(RunError::Storage(error));
    }
    let failed = |text: String| {
        RunError::Guest(match driver_fault() {
            Some(cause) => format!("the copy failed: {text}; {cause}"),
            None => format!("the copy failed: {text}"),
        })
    };
    match end {
        GuestEnd::Exited(0) => session.verdict().map_err(failed),
        GuestEnd::Exited(status) => Err(failed(match session.complaint() {
            Some(said) => format!("{said} (exit status {status})"),
            None => format!("the guest ended with exit status {status}"),
        })),
        GuestEnd::NothingInFlight => Err(failed(
            "the guest waits for a disk, and no disk has anything to do".to_owned(),
        )),
        GuestEnd::Fault(_) | GuestEnd::Unexpected(_) => match end.check() {
            Err(RunError::Guest(text)) => Err(failed(text)),
            other => other,
        },
    }
}

/// Shows what is left to show, and returns the exit status.
pub(super) fn finish(
    config: &Config,
    copy: &Copy,
    outcome: Outcome,
    elapsed: Duration,
    digest_seconds: Option<f64>,
) -> u8 {
    let Outcome {
        result,
        exits,
        debug,
        mut console,
        signals,
    } = outcome;
    if result.is_err() {
        copy.files.discard();
    }
    console.finish_bar(result.is_ok(), elapsed);
    if matches!(result, Err(RunError::Guest(_))) {
        console.explain(&debug);
    }
    let bytes = copy.files.output.bytes_written();
    let stats = Stats::new(
        result.is_ok(),
        bytes,
        elapsed,
        &exits,
        &copy.disks.counters(),
    )
    .with_digest_seconds(digest_seconds);
    let format = config.stats.then_some(config.format);
    let file = copy.files.stats.as_deref();
    written::tell_stats(&stats, &mut console, format, file);
    let sectors = bytes.div_ceil(config.input_sector_size.bytes().into());
    let succeeded = result.is_ok();
    let result = result.map(|warnings| warnings.iter().for_each(|line| console.warn(line)));
    let status = ending::conclude(&mut console, &result, |result| RunResult {
        bytes,
        sectors,
        seconds: elapsed.as_secs_f64(),
        exits: (&exits).into(),
        digest: copy
            .session
            .digest()
            .filter(|_| succeeded && copy.shows_digest)
            .map(|digits| format!("sha256:{digits}")),
        ..result
    });
    say_goodbye(&mut console, result.as_ref().err(), signals.as_fd());
    status
}

/// Says why a run did not even begin, and returns the exit status.
pub(super) fn refuse(config: &Config, error: &RunError, elapsed: Duration) -> u8 {
    ending::refuse(Console::open(console_options(config, 0)), error, elapsed)
}
