//! The end of a conversion: whose fault it is that there is none, and what the user is told.

use std::time::Duration;

use super::Conversion;
use super::disks::SECTOR_SIZE;
use super::session::{Complaint, ComplaintKind};
use crate::config::ConvertConfig;
use crate::operations::ending;
use crate::operations::written::{self, Written};
use crate::quote::quote_path;
use crate::runtime::{GuestEnd, Outcome, RunError};

/// How long the output is, if it may be put in place. The output itself still checks that all was
/// written.
pub(super) fn judge(end: GuestEnd<'_>, run: &Conversion) -> Result<u64, RunError> {
    let exited = |status| match run.session.verdict() {
        Ok(length) if status == 0 => Ok(length),
        Ok(_) => Err(failed(
            run,
            None,
            &format!("the guest claimed success and ended with exit status {status}"),
        )),
        Err(complaint) => Err(complain(run, complaint, status)),
    };
    let failed = |text: String| failed(run, None, &text);
    ending::judge(end, run.disks.host_error(), exited, &failed)
}

/// What a complaint of the guest means for the user, who knows files by their paths.
fn complain(run: &Conversion, complaint: Complaint, status: u8) -> RunError {
    let Complaint { kind, source, text } = complaint;
    let subject = || source.and_then(|source| name(run, source));
    let image = || subject().unwrap_or_else(|| "the image".to_owned());
    match kind {
        ComplaintKind::Refused => RunError::Refused(format!("{} is refused: {text}", image())),
        ComplaintKind::Broken => RunError::Broken(format!("{} is broken: {text}", image())),
        ComplaintKind::Room(needed) => no_room(run, needed)
            .unwrap_or_else(|| failed(run, None, &format!("{text}, and there is as much room"))),
        ComplaintKind::Failed => {
            let text = match status {
                0 => text,
                _ => format!("{text} (exit status {status})"),
            };
            failed(run, subject(), &text)
        }
    }
}

/// A warning, if zeros stand for what a file has that the user did not give.
pub(super) fn shortness(run: &Conversion) -> Option<String> {
    let last = run.files.inputs.len().checked_sub(1)?;
    let short = run.session.is_short().then(|| name(run, last))??;
    Some(format!(
        "what {short} leaves to another file is zero in the output, since --allow backing-file was given \
         and that file was not: give it with --backing"
    ))
}

/// A file that is read, as messages name it.
fn name(run: &Conversion, source: usize) -> Option<String> {
    let path = quote_path(run.files.inputs.get(source)?.path());
    Some(match source {
        0 => format!("the image {path}"),
        _ => format!("the backing file {path}"),
    })
}

/// The error of an output that may not have the `needed` bytes that it takes at the least, unless it
/// may have as many.
fn no_room(run: &Conversion, needed: u64) -> Option<RunError> {
    let path = quote_path(run.files.output.path());
    let room = run.files.output.length();
    // The length of a raw output is known, that of an image with tables only if it is complete.
    let (needed, least) = match run.session.length() {
        Some(length) => (length, ""),
        None => (needed, "at least "),
    };
    if needed <= room {
        return None;
    }
    Some(if room < run.limit {
        let text = format!(
            "the output {path} is too small: it has {room} bytes, and {least}{needed} are to be \
             written; give a larger device"
        );
        RunError::Storage(text.into())
    } else {
        RunError::Refused(format!(
            "the output {path} would have {least}{needed} bytes, more than the {room} that \
             --max-output-size allows; allow more with it"
        ))
    })
}

/// The error of a conversion that failed at `subject`, if that is known.
fn failed(run: &Conversion, subject: Option<String>, text: &str) -> RunError {
    let subject = subject.map_or_else(String::new, |subject| format!(" at {subject}"));
    let text = format!("the conversion failed{subject}: {text}");
    ending::guest_failed(text, &run.disks.driver_faults())
}

/// Shows what is left to show, and returns the exit status.
pub(super) fn finish(
    config: &ConvertConfig,
    run: &Conversion,
    outcome: Outcome,
    elapsed: Duration,
) -> u8 {
    let written = Written {
        files: &run.files,
        stats_format: config.stats.then_some(config.format),
        counters: &run.disks.counters(),
        verb: "converted",
        sector_size: SECTOR_SIZE,
        digest: run.session.digest(),
        digest_seconds: None,
    };
    written::finish(written, outcome, elapsed)
}
