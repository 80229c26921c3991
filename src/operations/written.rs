//! What operations that write an output have in common: where files get their names in the end, and
//! what becomes of the statistics.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::config::OutputFormat;
use crate::files::{NewFile, OutputFile};
use crate::report::Console;
use crate::sandbox::{Calls, calls};
use crate::stats::Stats;

/// The folders in which files get their names in the end, and the calls that this takes.
pub(super) fn placing<'a>(
    output: &'a OutputFile,
    stats: Option<&'a NewFile>,
) -> Vec<(BorrowedFd<'a>, Calls)> {
    let stats = stats.and_then(NewFile::folder);
    let folders = output.folder().into_iter().chain(stats);
    folders
        .map(|folder| (folder, calls::place_file(folder.as_raw_fd())))
        .collect()
}

/// Shows the statistics in `format`, if there is one, and saves them in `file`, if there is one.
pub(super) fn tell_stats(
    stats: &Stats,
    console: &mut Console,
    format: Option<OutputFormat>,
    file: Option<&NewFile>,
) {
    match format {
        Some(OutputFormat::Text) => console.notice(&stats.to_string()),
        Some(OutputFormat::Json) => console.line(&stats.to_object()),
        None => {}
    }
    let saved = file.map_or(Ok(()), |file| file.save(stats.to_json().as_bytes()));
    if let Err(error) = saved {
        console.warn(&error.to_string());
    }
}
