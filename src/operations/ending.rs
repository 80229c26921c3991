//! How every operation tells the user what has come of it.

use std::borrow::Borrow;
use std::os::fd::AsFd;
use std::time::Duration;

use crate::report::{Console, Exits, RunEnd, RunResult};
use crate::runtime::{RunError, Stage, Watch, say_goodbye};

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
