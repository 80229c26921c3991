//! How every operation tells the user what has come of it.

use std::borrow::Borrow;
use std::os::fd::AsFd;
use std::time::Duration;

use crate::files::{FileError, OwnStreams};
use crate::report::{Console, Exits, OutputFormat, RunEnd, RunResult};
use crate::runtime::{RunError, Stage, Watch, abandon_stderr, abandon_stdout, say_goodbye};

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
    let error = result.as_ref().err().map(Borrow::borrow);
    let status = error.map_or(0, RunError::exit_code);
    let text = error.map(ToString::to_string);
    if let Some(text) = &text {
        console.error(text);
    }
    console.result(&complete(RunResult {
        outcome: error.map_or(RunEnd::Success, run_end),
        status,
        error: text,
        bytes: 0,
        sectors: 0,
        seconds: 0.0,
        exits: Exits::default(),
        digest: None,
    }));
    status
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
