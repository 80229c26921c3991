//! The files of a copy: what is read is opened first, then what is written, and none of it may be
//! any of the rest.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use guest_protocol::DataList;

use crate::config::{Config, SectorSize};
use crate::files::{
    FileError, ImageFile, InputFile, NewFile, OutputFile, OutputOptions, Role, check_streams_of,
    open_image,
};
use crate::machine::read_image;
use crate::operations::written;
use crate::runtime::RunError;
use crate::sandbox::Calls;
use crate::storage::Cancel;

/// What a copy reads, open.
pub(super) struct OpenedInputs {
    input: Arc<InputFile>,
    guest: Option<ImageFile>,
    image: Option<Vec<u8>>,
    cancel: Cancel,
}

/// The files of a run.
pub(super) struct Files {
    pub(super) input: Arc<InputFile>,
    pub(super) output: Arc<OutputFile>,
    pub(super) stats: Option<Arc<NewFile>>,
    cancel: Cancel,
}

impl OpenedInputs {
    /// Opens the input, and reads the guest if it is not the built-in one.
    pub(super) fn open(config: &Config) -> Result<Self, RunError> {
        let guest = config.guest.as_deref().map(|path| (Role::Guest, path));
        let reads = [(Role::Input, config.input.as_path())];
        let writes = written::paths(&config.output, config.stats_file.as_deref());
        check_streams_of(reads.into_iter().chain(guest), writes)?;
        let cancel = Cancel::new();
        let input = InputFile::open_for(&config.input, config.direct, cancel.clone())?;
        let guest = config.guest.as_deref().map(open_image).transpose()?;
        let image = guest
            .as_ref()
            .map(|guest| {
                read_image(guest.file()).map_err(|source| RunError::Load {
                    path: guest.path().to_owned(),
                    source,
                })
            })
            .transpose()?;
        Ok(Self {
            input: Arc::new(input),
            guest,
            image,
            cancel,
        })
    }

    /// Prepares what is written. Nothing that is there already is touched.
    pub(super) fn with_outputs(
        self,
        config: &Config,
    ) -> Result<(Files, Option<Vec<u8>>), RunError> {
        let options = OutputOptions {
            direct: config.direct,
            fsync: config.fsync,
            force: config.force,
            read_back: config.verify.then_some("--verify"),
            max_length: config.max_output_size,
            open_ended: false,
        };
        let mut reads = vec![self.input.known()];
        reads.extend(self.guest.as_ref().map(ImageFile::known));
        let (path, stats) = (&config.output, config.stats_file.as_deref());
        let (output, stats) = written::create(path, stats, &self.input, &reads, options)?;
        drop(reads);
        let files = Files {
            input: self.input,
            output: Arc::new(output),
            stats: stats.map(Arc::new),
            cancel: self.cancel,
        };
        Ok((files, self.image))
    }
}

impl Files {
    /// What the user should know of the sector sizes before the copy begins: which would suit a
    /// device better, whose blocks are larger.
    pub(super) fn sector_notes(&self, config: &Config) -> Vec<String> {
        let disks = [
            ("input", self.input.block_size(), config.input_sector_size),
            (
                "output",
                self.output.block_size(),
                config.output_sector_size,
            ),
        ];
        let note = |(name, block, sector): (&str, Option<u32>, SectorSize)| {
            let block = block.filter(|block| config.direct && *block > sector.bytes())?;
            Some(format!(
                "the {name} device has blocks of {block} bytes: what is not whole blocks goes \
                 through the page cache; give --{name}-sector-size {block}"
            ))
        };
        disks.into_iter().filter_map(note).collect()
    }

    /// What the user should know before the copy begins.
    pub(super) fn notes(&self) -> Vec<String> {
        let stats = self.stats.as_ref().map(|stats| stats.notes());
        [
            self.input.notes(),
            self.output.notes(),
            stats.unwrap_or_default(),
        ]
        .concat()
    }

    /// The folders in which files get their names in the end, and the calls that this takes.
    pub(super) fn placing(&self) -> Vec<(BorrowedFd<'_>, Calls)> {
        written::placing(&self.output, self.stats.as_deref())
    }

    /// The same files for another owner.
    pub(super) fn share(&self) -> Self {
        Self {
            input: self.input.clone(),
            output: self.output.clone(),
            stats: self.stats.clone(),
            cancel: self.cancel.clone(),
        }
    }

    /// Gives up transfers that a signal interrupts.
    pub(super) fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Puts the output in place; returns warnings. `data` is where the input was said to have data.
    pub(super) fn commit(&self, data: &DataList<'_>) -> Result<Vec<String>, FileError> {
        self.input.check_holes(data, ", or with --sparse never")?;
        // Once the output is in place there is as little as possible that could keep the run.
        let grown = self.input.check_unchanged();
        let mut warnings = self.output.commit()?;
        warnings.extend(grown);
        Ok(warnings)
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
