//! The files of a conversion: the image and its backing files are opened first, as the user named
//! them, then what is written, and none of it may be any of the rest. No name out of an image is
//! ever opened.

use std::iter;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use guest_protocol::DataList;

use crate::config::{ConvertConfig, DiskFormat};
use crate::files::{InputFile, NewFile, OutputFile, OutputOptions, Role, check_streams_of};
use crate::operations::written;
use crate::runtime::RunError;
use crate::sandbox::Calls;
use crate::storage::Cancel;

/// The files of a run.
pub(super) struct Files {
    /// The image, and its backing files in the order in which they were given.
    pub(super) inputs: Vec<Arc<InputFile>>,
    pub(super) output: Arc<OutputFile>,
    pub(super) stats: Option<Arc<NewFile>>,
    cancel: Cancel,
}

impl Files {
    /// Opens what is read.
    pub(super) fn sources(
        config: &ConvertConfig,
    ) -> Result<(Vec<Arc<InputFile>>, Cancel), RunError> {
        let backings = config.backings.iter();
        let backings = backings.map(|path| (Role::Backing, path.as_path()));
        let reads = iter::once((Role::Input, config.input.as_path())).chain(backings);
        let writes = written::paths(&config.output, config.stats_file.as_deref());
        check_streams_of(reads, writes)?;
        let cancel = Cancel::new();
        let input = InputFile::open_for(&config.input, config.direct, cancel.clone())?;
        let mut inputs = vec![Arc::new(input)];
        for path in &config.backings {
            let backing = InputFile::open_backing(path, config.direct, cancel.clone())?;
            inputs.push(Arc::new(backing));
        }
        Ok((inputs, cancel))
    }

    /// Prepares what is written. Nothing that is there already is touched.
    pub(super) fn new(
        config: &ConvertConfig,
        inputs: Vec<Arc<InputFile>>,
        cancel: Cancel,
    ) -> Result<Self, RunError> {
        let options = OutputOptions {
            direct: config.direct,
            fsync: config.fsync,
            force: config.force,
            // The header is looked at before the image gets its name.
            read_back: match config.output_format {
                DiskFormat::Raw => None,
                DiskFormat::Qcow2 => Some("--output-format qcow2"),
            },
            max_length: Some(config.max_output_size),
            open_ended: true,
        };
        let reads: Vec<_> = inputs.iter().map(|input| input.known()).collect();
        let (path, stats) = (&config.output, config.stats_file.as_deref());
        let (output, stats) = written::create(path, stats, &inputs[0], &reads, options)?;
        drop(reads);
        Ok(Self {
            inputs,
            output: Arc::new(output),
            stats: stats.map(Arc::new),
            cancel,
        })
    }

    /// What the user should know before the run begins.
    pub(super) fn notes(&self) -> Vec<String> {
        let inputs = self.inputs.iter().flat_map(|input| input.notes());
        let stats = self.stats.iter().flat_map(|stats| stats.notes());
        inputs.chain(self.output.notes()).chain(stats).collect()
    }

    /// The folders in which files get their names in the end, and the calls that this takes.
    pub(super) fn placing(&self) -> Vec<(BorrowedFd<'_>, Calls)> {
        written::placing(&self.output, self.stats.as_deref())
    }

    /// The same files for another owner.
    pub(super) fn share(&self) -> Self {
        Self {
            inputs: self.inputs.clone(),
            output: self.output.clone(),
            stats: self.stats.clone(),
            cancel: self.cancel.clone(),
        }
    }

    /// Gives up transfers that a signal interrupts.
    pub(super) fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Puts the output in place; returns warnings. `data` is where what was read was said to have data.
    pub(super) fn commit(&self, data: &[DataList<'_>]) -> Result<Vec<String>, RunError> {
        for (input, data) in self.inputs.iter().zip(data) {
            input.check_holes(data, ", or with --read-holes")?;
        }
        // Once the output is in place there is as little as possible that could keep the run.
        let inputs = self.inputs.iter();
        let grown: Vec<_> = inputs.filter_map(|input| input.check_unchanged()).collect();
        let mut warnings = self.output.commit()?;
        warnings.extend(grown);
        Ok(warnings)
    }
}
