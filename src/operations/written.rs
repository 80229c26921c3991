//! What operations that write an output have in common: how it is made beside the statistics, where
//! files get their names in the end, and what is told at the end of a run.

use std::iter;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use super::ending;
use super::stats::Stats;
use crate::config::OutputFormat;
use crate::files::{
    FileError, InputFile, Known, NewFile, OutputFile, OutputOptions, Role, check_distinct,
};
use crate::report::{Console, RunResult};
use crate::runtime::{Outcome, RunError, say_goodbye};
use crate::sandbox::{Calls, calls};
use crate::virtio::block::BlockCounters;

/// The roles and paths of what is written.
pub(super) fn paths<'a>(
    output: &'a Path,
    stats: Option<&'a Path>,
) -> impl Iterator<Item = (Role, &'a Path)> {
    let stats = stats.map(|path| (Role::Statistics, path));
    iter::once((Role::Output, output)).chain(stats)
}

/// Prepares the output at `path` for what `input` has, and the file at `stats`. Nothing that is there
/// already is touched, and neither may be a file of `reads`.
pub(super) fn create(
    path: &Path,
    stats: Option<&Path>,
    input: &InputFile,
    reads: &[Known<'_>],
    options: OutputOptions,
) -> Result<(OutputFile, Option<NewFile>), FileError> {
    let output = OutputFile::create(path, input, options)?;
    let stats = stats
        .map(|path| NewFile::create(Role::Statistics, path))
        .transpose()?;
    let mut writes = vec![output.known()];
    writes.extend(stats.as_ref().map(NewFile::known));
    check_distinct(reads, &writes)?;
    drop(writes);
    Ok((output, stats))
}

/// The folders in which files get their names in the end, and the calls that this takes.
pub(super) fn placing<'a>(
    output: &'a OutputFile,
    stats: Option<&'a NewFile>,
) -> Vec<(BorrowedFd<'a>, Calls)> {
    let output = output.folder().map(|folder| (folder, output.as_fd()));
    let stats = stats.and_then(|stats| Some((stats.folder()?, stats.as_fd())));
    let placed = output.into_iter().chain(stats);
    placed
        .map(|(folder, file)| {
            let calls = calls::place_file(folder.as_raw_fd(), file.as_raw_fd());
            (folder, calls)
        })
        .collect()
}

/// What a run that writes an output has come to, whatever that is.
pub(super) struct Written<'a> {
    pub(super) output: &'a OutputFile,
    /// Where statistics are saved, if they are.
    pub(super) stats_file: Option<&'a NewFile>,
    /// In which format they are shown, if they are.
    pub(super) stats_format: Option<OutputFormat>,
    /// What each disk has counted, with its name.
    pub(super) counters: &'a [(&'static str, BlockCounters)],
    /// What a run that succeeds did: "copied".
    pub(super) verb: &'static str,
    /// Bytes that the guest read of the last sectors of what is read, behind the end of a file.
    pub(super) filled: u64,
    /// Bytes of a sector in which the result counts.
    pub(super) sector_size: u32,
    /// The digest, as hexadecimal digits, if a success has one to tell.
    pub(super) digest: Option<String>,
    /// How long it took to compute.
    pub(super) digest_seconds: Option<f64>,
}

/// Shows what is left to show of a run, and returns the exit status.
pub(super) fn finish(written: Written<'_>, outcome: Outcome, elapsed: Duration) -> u8 {
    let Outcome {
        result,
        exits,
        debug,
        mut console,
        signals,
    } = outcome;
    let succeeded = result.is_ok();
    if !succeeded {
        written.output.discard();
    }
    console.finish_bar(succeeded, elapsed);
    if matches!(result, Err(RunError::Guest(_))) {
        console.explain(&debug);
    }
    let bytes = written.output.bytes_written();
    let (filled, counters) = (written.filled, written.counters);
    let stats = Stats::new(succeeded, bytes, filled, elapsed, &exits, counters)
        .with_verb(written.verb)
        .with_digest_seconds(written.digest_seconds);
    tell_stats(
        &stats,
        &mut console,
        written.stats_format,
        written.stats_file,
    );
    let result = result.map(|warnings| warnings.iter().for_each(|line| console.warn(line)));
    let status = ending::conclude(&mut console, &result, |result| RunResult {
        bytes,
        sectors: bytes.div_ceil(written.sector_size.into()),
        seconds: elapsed.as_secs_f64(),
        exits: (&exits).into(),
        digest: written
            .digest
            .filter(|_| succeeded)
            .map(|digits| format!("sha256:{digits}")),
        ..result
    });
    say_goodbye(&mut console, result.as_ref().err(), signals.as_fd());
    status
}

/// Shows the statistics in `format`, if there is one, and saves them in `file`, if there is one.
fn tell_stats(
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
    match file.map_or(Ok(None), |file| file.save(stats.to_json().as_bytes())) {
        Ok(warning) => warning.iter().for_each(|line| console.warn(line)),
        Err(error) => console.warn(&error.to_string()),
    }
}
