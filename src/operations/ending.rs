//! How every operation ends: whose fault it is that there is no result, and how the user is told what
//! has come of it.

use std::borrow::Borrow;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use crate::files::{FileError, OwnStreams};
use crate::reason::reason;
use crate::report::{Console, Exits, OutputFormat, RunEnd, RunResult, result_object};
use crate::runtime::{
    GuestEnd, LastObject, RunError, Stage, Watch, abandon_stderr, abandon_stdout, say_goodbye,
};
use crate::virtio::block::BlockIoError;

/// Whether the result of a guest that ended like this is good. `exited` judges one that ended with a
/// status, and `failed` says what it means that the guest did anything else.
pub(super) fn judge<T>(
    end: GuestEnd<'_>,
    host_error: Option<Arc<BlockIoError>>,
    exited: impl FnOnce(u8) -> Result<T, RunError>,
    failed: &impl Fn(String) -> RunError,
) -> Result<T, RunError> {
    // What the host could not do explains all that came after it. An error that the guest has made
    // good, by asking again, is none any more.
    if let Some(error) = host_error {
        // The file layer names the file, the operation and the offset.
        return Err(RunError::Storage(reason(&error.source).into()));
    }
    match end {
        GuestEnd::Exited(status) => exited(status),
        GuestEnd::NothingInFlight => Err(failed(
            "the guest waits for a disk, and no disk has anything to do".to_owned(),
        )),
        GuestEnd::Fault(_) | GuestEnd::Unexpected(_) => Err(failed(end.to_string())),
    }
}

impl From<FileError> for RunError {
    fn from(error: FileError) -> Self {
        match error {
            // All writes have gone well, but the guest has not made all of them.
            FileError::Incomplete { .. } => Self::Guest(error.to_string()),
            error => Self::Storage(Box::new(error)),
        }
    }
}

/// The error of a run that failed by its guest, as `text` says. Any of the `driver_faults` may be why.
pub(super) fn guest_failed(text: String, driver_faults: &[String]) -> RunError {
    let add = |text, cause: &String| format!("{text}; {cause}");
    RunError::Guest(driver_faults.iter().fold(text, add))
}

/// The error of an output that cannot be put in place. If the guest has not written all of it, it may
/// have tried to: any of the `driver_faults` may be why.
pub(super) fn uncommitted(error: RunError, driver_faults: &[String]) -> RunError {
    match error {
        RunError::Guest(text) => guest_failed(text, driver_faults),
        error => error,
    }
}

/// To be called before anything is said of `error`. If it is that a standard stream goes to a file of
/// the run, nothing is written there: the reason itself would do the damage that it is about. It then
/// goes to the other stream, unless a program reads `format` there.
pub(super) fn spare_own_files(error: &RunError, format: OutputFormat) {
    let RunError::Storage(source) = error else {
        return;
    };
    let Some(FileError::Distinct(error)) = source.downcast_ref() else {
        return;
    };
    match error.own_streams() {
        Some(OwnStreams::Output) => abandon_stdout(),
        Some(OwnStreams::Error) => abandon_stderr(format == OutputFormat::Text),
        Some(OwnStreams::Both) => {
            abandon_stdout();
            abandon_stderr(false);
        }
        None => {}
    }
}

/// Says on `console` why a run did not even begin, and returns the exit status. `watch` is that of the
/// run, if there is one already.
pub(super) fn refuse(
    mut console: Console,
    error: &RunError,
    elapsed: Duration,
    watch: &Watch,
) -> u8 {
    console.count_beats(watch.beats());
    let status = conclude(&mut console, &Err(error), |result| RunResult {
        seconds: elapsed.as_secs_f64(),
        ..result
    });
    // Signals were not taken over, or end the process as if they had not been: see
    // `Console::drain`.
    let signals = watch.take_over_signals();
    watch.enter(Stage::Ending);
    match signals {
        Ok(signals) => say_goodbye(&mut console, Some(error), signals.as_fd()),
        Err(_) => console.flush(),
    }
    status
}

/// Shows how a run has ended. `complete` fills in what it has come to.
pub(super) fn conclude<E: Borrow<RunError>>(
    console: &mut Console,
    result: &Result<(), E>,
    complete: impl FnOnce(RunResult) -> RunResult,
) -> u8 {
    let result = complete(result_of(result.as_ref().err().map(Borrow::borrow)));
    if let Some(text) = &result.error {
        console.error(text);
    }
    console.result(&result);
    result.status
}

/// What the watcher tells a program, if the user wants this `format`.
pub(super) fn for_programs(format: OutputFormat) -> Option<LastObject> {
    (format == OutputFormat::Json).then_some(last_object)
}

/// The last object of a run that has said nothing yet and is ended after `elapsed` because of `error`.
fn last_object(error: &RunError, elapsed: Duration) -> String {
    result_object(&RunResult {
        seconds: elapsed.as_secs_f64(),
        ..result_of(Some(error))
    })
}

/// What is known of any run: whether it is good, and if not, why.
fn result_of(error: Option<&RunError>) -> RunResult {
    RunResult {
        outcome: error.map_or(RunEnd::Success, run_end),
        status: error.map_or(0, RunError::exit_code),
        error: error.map(ToString::to_string),
        bytes: 0,
        sectors: 0,
        seconds: 0.0,
        exits: Exits::default(),
        digest: None,
    }
}

fn run_end(error: &RunError) -> RunEnd {
    match error {
        RunError::Guest(_) => RunEnd::GuestError,
        RunError::Refused(_) | RunError::Broken(_) => RunEnd::ImageRefused,
        RunError::TimedOut(_) => RunEnd::TimedOut,
        RunError::Signal(_) => RunEnd::Interrupted,
        _ => RunEnd::HostError,
    }
}
