//! The end of a look into an image: whose fault it is that there is no answer, and the status.

use std::os::fd::AsFd;
use std::time::Duration;

use super::{Look, Session};
use crate::config::ImageTask;
use crate::files::InputFile;
use crate::operations::disk::{INPUT, driver_faults};
use crate::operations::ending;
use crate::report::RunResult;
use crate::runtime::{GuestEnd, Outcome, RunError, say_goodbye};
use crate::virtio::block::Block;

/// Whether there is a whole answer.
pub(super) fn judge(
    end: GuestEnd<'_>,
    session: &Session,
    disk: &Block<InputFile>,
) -> Result<(), RunError> {
    let failed = |text: String| {
        let text = format!("the look into the image failed: {text}");
        ending::guest_failed(text, &driver_faults(INPUT, disk))
    };
    let exited = |status| match (status, session.verdict()) {
        (0, verdict) => verdict.map_err(&failed),
        (_, Err(said)) => Err(failed(format!("{said} (exit status {status})"))),
        (_, Ok(())) => Err(failed(format!(
            "the guest claimed success (exit status {status})"
        ))),
    };
    ending::judge(end, disk.io_error(), exited, &failed)
}

/// Shows what is left to show, and returns the exit status.
pub(super) fn finish(look: &Look<'_>, outcome: Outcome, elapsed: Duration) -> u8 {
    let Outcome {
        result,
        debug,
        mut console,
        signals,
        ..
    } = outcome;
    let status = match &result {
        Ok(warnings) => {
            warnings.iter().for_each(|line| console.warn(line));
            status(look)
        }
        Err(error) => {
            if matches!(error, RunError::Guest(_)) {
                console.explain(&debug);
            }
            let failed = Err(error);
            ending::conclude(&mut console, &failed, |result| RunResult {
                seconds: elapsed.as_secs_f64(),
                ..result
            })
        }
    };
    say_goodbye(&mut console, result.as_ref().err(), signals.as_fd());
    status
}

fn status(look: &Look<'_>) -> u8 {
    let verdict = look.session.answer().map(|answer| match look.config.task {
        ImageTask::Info => answer.verdict(),
        ImageTask::Check => answer.soundness(),
    });
    verdict.map_or(0, |verdict| verdict.status())
}
