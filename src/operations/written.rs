//! What operations that write an output have in common: their files, from what is read to the output's
//! name, and what is told at the end of a run.

use std::iter;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use guest_protocol::DataList;

use super::ending;
use super::stats::Stats;
use crate::config::OutputFormat;
use crate::files::{
    FileError, ImageFile, InputFile, NewFile, OutputFile, OutputOptions, Role, check_distinct,
};
use crate::report::{Console, RunResult};
use crate::runtime::{Outcome, Pulse, RunError, say_goodbye};
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

/// The files of a run. A clone has the same ones, for another owner.
#[derive(Clone)]
pub(super) struct Files {
    /// What is read: the input, and whatever lies behind it in the order in which it was given.
    pub(super) inputs: Vec<Arc<InputFile>>,
    pub(super) output: Arc<OutputFile>,
    /// Where statistics are saved, if they are.
    pub(super) stats: Option<Arc<NewFile>>,
}

impl Files {
    /// Prepares the output at `path` for what the input has, and the file at `stats`. Nothing that is
    /// there already is touched, and neither may be a file of `inputs`, or the `guest`.
    pub(super) fn create(
        inputs: Vec<Arc<InputFile>>,
        guest: Option<&ImageFile>,
        path: &Path,
        stats: Option<&Path>,
        options: OutputOptions,
    ) -> Result<Self, FileError> {
        let output = OutputFile::create(path, &inputs[0], options)?;
        let stats = stats
            .map(|path| NewFile::create(Role::Statistics, path))
            .transpose()?;
        let reads = inputs.iter().map(|input| input.known());
        let reads: Vec<_> = reads.chain(guest.map(ImageFile::known)).collect();
        let mut writes = vec![output.known()];
        writes.extend(stats.as_ref().map(NewFile::known));
        check_distinct(&reads, &writes)?;
        drop((reads, writes));
        Ok(Self {
            inputs,
            output: Arc::new(output),
            stats: stats.map(Arc::new),
        })
    }

    /// What the user named as the input.
    pub(super) fn input(&self) -> &Arc<InputFile> {
        &self.inputs[0]
    }

    /// What the user should know before the run begins.
    pub(super) fn notes(&self) -> Vec<String> {
        let inputs = self.inputs.iter().flat_map(|input| input.notes());
        let stats = self.stats.iter().flat_map(|stats| stats.notes());
        inputs.chain(self.output.notes()).chain(stats).collect()
    }

    /// The folders in which files get their names in the end, and the calls that this takes.
    pub(super) fn placing(&self) -> Vec<(BorrowedFd<'_>, Calls)> {
        let stats = self.stats.as_ref().and_then(|stats| stats.placing());
        let placed = [self.output.placing(), stats];
        placed
            .into_iter()
            .flatten()
            .map(|placing| {
                let (folder, file) = (placing.folder.as_raw_fd(), placing.file.as_raw_fd());
                let replaced = placing.replaced.map(|file| file.as_raw_fd());
                let looking = replaced.map_or_else(Calls::new, calls::see_attributes);
                (
                    placing.folder,
                    calls::place_file(folder, file).and(&looking),
                )
            })
            .collect()
    }

    /// Gives up transfers that a signal interrupts.
    pub(super) fn cancel(&self) {
        self.input().cancel().cancel();
    }

    /// Puts the output in place; returns warnings. `data` is where each input was said to have data, and
    /// `otherwise` what the user can do if that has changed, as the end of a sentence.
    pub(super) fn commit(
        &self,
        data: &[DataList<'_>],
        otherwise: &'static str,
        pulse: &Pulse<'_>,
    ) -> Result<Vec<String>, RunError> {
        for (input, data) in self.inputs.iter().zip(data) {
            input.check_holes(data, otherwise, || pulse.beat())?;
        }
        // Once the output is in place there is as little as possible that could keep the run.
        let inputs = self.inputs.iter();
        let grown: Vec<_> = inputs.filter_map(|input| input.check_unchanged()).collect();
        let mut warnings = self.output.commit()?;
        warnings.extend(grown);
        Ok(warnings)
    }
}

/// What a run that writes an output has come to, whatever that is.
pub(super) struct Written<'a> {
    pub(super) files: &'a Files,
    /// In which format they are shown, if they are.
    pub(super) stats_format: Option<OutputFormat>,
    /// What each disk has counted, with its name.
    pub(super) counters: &'a [(&'static str, BlockCounters)],
    /// What a run that succeeds did: "copied".
    pub(super) verb: &'static str,
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
    let Files {
        inputs,
        output,
        stats: stats_file,
    } = written.files;
    if !succeeded {
        output.discard();
    }
    console.finish_bar(succeeded, elapsed);
    if matches!(result, Err(RunError::Guest(_))) {
        console.explain(&debug);
    }
    let bytes = output.bytes_written();
    // Bytes that the guest read of the last sectors of what is read, behind the end of a file.
    let filled = inputs.iter().map(|input| input.filled()).sum();
    let stats = Stats::new(succeeded, bytes, filled, elapsed, &exits, written.counters)
        .with_verb(written.verb)
        .with_digest_seconds(written.digest_seconds);
    tell_stats(
        &stats,
        &mut console,
        written.stats_format,
        stats_file.as_deref(),
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
    match file.map_or(Ok(Vec::new()), |file| file.save(stats.to_json().as_bytes())) {
        Ok(warnings) => warnings.iter().for_each(|line| console.warn(line)),
        Err(error) => console.warn(&error.to_string()),
    }
}
