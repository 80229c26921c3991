//! The end of a run, in three steps: the operation judges; what is to be shown is shown, as far as
//! anyone reads it; the operation commits. Before the last step a signal ends the run and nothing
//! has changed. After it nothing can fail any more, and the status is 0.

use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::crew::Crew;
use super::driver_faults::blame_drivers;
use super::main_loop::{Ended, READER_PATIENCE};
use super::member::PATIENCE;
use super::{Deadline, GuestEnd, Operation, Pulse, RunError, Signals, Stage, Watch};
use super::{catch, describe_panics};
use crate::machine::ExitCounts;
use crate::reason::reason;
use crate::report::{ANSWER_PIECE, Console, DebugLines, Drained, last_words};

/// How long the last words of a run may take.
const GOODBYE: Duration = Duration::from_secs(10);
/// How long a reader is waited for that takes none of them: usually, and where somebody has ended
/// the run and does not want to wait.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(1);
const HASTY_PATIENCE: Duration = Duration::from_millis(200);
/// How long a thread at least has to end when it is asked to.
const SHORTEST_PATIENCE: Duration = Duration::from_millis(200);

/// What a run has come to.
pub struct Outcome {
    /// The warnings of a good run, or why the run is not good.
    pub result: Result<Vec<String>, RunError>,
    /// The exits it took.
    pub exits: ExitCounts,
    /// The last debug lines of the guest, for a run that failed by its fault.
    pub debug: DebugLines,
    /// The console, on which the operation still tells the user how the run went.
    pub console: Console,
    /// The signals, so that one that comes in the meantime is not missed.
    pub signals: Signals,
}

/// Waits for the threads, and goes the three steps.
pub(super) fn finish(
    ended: Ended,
    crew: &mut Crew,
    operation: &mut dyn Operation,
    deadline: Option<Deadline>,
) -> Outcome {
    let Ended {
        ended_from_outside,
        report,
        debug,
        mut console,
        signals,
        watch,
        dropped,
        patience_ends,
    } = ended;
    watch.enter(Stage::Ending);
    let now = Instant::now();
    let until = patience_ends.unwrap_or(now + PATIENCE);
    let (died, stuck) = crew.dismiss(until.max(now + SHORTEST_PATIENCE));
    for name in stuck {
        console.warn(&format!(
            "the thread {name} waits for the system, which may keep the process until it answers"
        ));
    }
    watch.beat();
    let exits = report.as_ref().map(|report| report.exits);
    let judged = match (died, ended_from_outside, &report) {
        (Some(died), ..) => Err(died),
        (None, Some(why), _) => Err(why),
        (None, None, None) => Err(RunError::Died(
            "the vCPU's thread ended and gave no reason".to_owned(),
        )),
        (None, None, Some(report)) => {
            let judged = GuestEnd::of(&report.end).and_then(|end| operation.judge(end));
            judged.map_err(|error| blame_drivers(error, &report.driver_faults))
        }
    };
    let mut rest = Rest {
        console: &mut console,
        signals: &signals,
        watch: &watch,
        deadline,
    };
    let result = judged
        .and_then(|()| rest.show_answer(&operation.answer()))
        .and_then(|()| rest.show())
        .and_then(|also| {
            watch.enter(Stage::Committing);
            let mut warnings = operation.commit(&Pulse::new(&watch, &signals))?;
            watch.has_committed();
            warnings.extend(operation.make_durable());
            warnings.extend(dropped_lines(dropped + also));
            Ok(warnings)
        });
    if result.is_err() {
        watch.enter(Stage::Ending);
    }
    Outcome {
        result,
        exits: exits.unwrap_or_default(),
        debug,
        console,
        signals,
    }
}

fn dropped_lines(bytes: usize) -> Option<String> {
    (bytes > 0).then(|| format!("nobody read the run's lines in time: {bytes} bytes were dropped"))
}

/// What is still to be shown before the result is final, and what may end that.
struct Rest<'a> {
    console: &'a mut Console,
    signals: &'a Signals,
    watch: &'a Watch,
    deadline: Option<Deadline>,
}

impl Rest<'_> {
    /// Shows an answer, which is all that the run is for: without it there is no result.
    fn show_answer(&mut self, answer: &str) -> Result<(), RunError> {
        let lost = |reason: &str| {
            let text = format!("cannot write the answer to standard output: {reason}");
            RunError::Storage(text.into())
        };
        for part in answer.as_bytes().chunks(ANSWER_PIECE) {
            // What was said before is written first, so that there is room.
            let dropped = self.show()?;
            self.console.answer(part);
            if dropped + self.show()? > 0 {
                return Err(match self.deadline.filter(|deadline| deadline.is_over()) {
                    Some(deadline) => RunError::TimedOut(deadline.limit()),
                    None => lost("nobody reads it"),
                });
            }
            if let Some(failure) = self.console.failure() {
                return Err(lost(&reason(failure)));
            }
        }
        Ok(())
    }

    /// Shows what waits to be shown, and returns how many bytes had to be dropped. A reader that takes
    /// nothing any more, or not within the time limit, costs the lines and not the result; a signal
    /// costs the result.
    fn show(&mut self) -> Result<usize, RunError> {
        loop {
            let longest = || Instant::now() + READER_PATIENCE * 360;
            let end = self.deadline.map_or_else(longest, Deadline::end);
            let interrupt = self.signals.as_fd();
            match self.console.drain(end, READER_PATIENCE, interrupt) {
                Drained::Done => return Ok(0),
                Drained::GaveUp { bytes } => return Ok(bytes),
                Drained::Interrupted => {
                    if let Some(signal) = self.watch.take(self.signals) {
                        return Err(RunError::Signal(signal));
                    }
                }
            }
        }
    }
}

impl Outcome {
    /// Shows the warnings, and `message` if the run was good. For a program that has nothing else
    /// to do.
    ///
    /// # Errors
    ///
    /// Why the run was not good; [`main`] shows it.
    pub fn end(mut self, message: &str) -> Result<(), RunError> {
        let result = self.result.map(|warnings| {
            warnings.iter().for_each(|line| self.console.warn(line));
            self.console.line(message);
        });
        say_goodbye(
            &mut self.console,
            result.as_ref().err(),
            self.signals.as_fd(),
        );
        result
    }
}

/// Lets readers take what they still want to read, for a short time or until `interrupt` becomes
/// readable: nothing that happens now changes what has come of the run. Whoever has ended it
/// (`error`) is not kept waiting.
pub fn say_goodbye(console: &mut Console, error: Option<&RunError>, interrupt: BorrowedFd<'_>) {
    let patience = match error {
        Some(RunError::Signal(_) | RunError::TimedOut(_)) => HASTY_PATIENCE,
        _ => GOODBYE_PATIENCE,
    };
    console.drain(Instant::now() + GOODBYE, patience, interrupt);
}

/// The main function of a program that runs a machine: shows the error of `run`, if there is one,
/// and makes an exit status of it.
pub fn main(run: impl FnOnce() -> Result<(), RunError>) -> ExitCode {
    describe_panics();
    match catch(run).and_then(|result| result) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            last_words(&error.to_string(), None, GOODBYE_PATIENCE);
            ExitCode::from(error.exit_code())
        }
    }
}
