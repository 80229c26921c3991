//! The files of a copy: what is read is opened first, then what is written, and none of it may be
//! any of the rest.

use std::sync::Arc;

use crate::config::{Config, SectorSize};
use crate::files::{ImageFile, InputFile, OutputOptions, Role, check_streams_of, open_image};
use crate::machine::read_image;
use crate::operations::disk::{INPUT, OUTPUT};
use crate::operations::written::{self, Files};
use crate::runtime::RunError;

/// What a copy reads, open.
pub(super) struct OpenedInputs {
    input: Arc<InputFile>,
    guest: Option<ImageFile>,
    image: Option<Vec<u8>>,
}

impl OpenedInputs {
    /// Opens the input, and reads the guest if it is not the built-in one.
    pub(super) fn open(config: &Config) -> Result<Self, RunError> {
        let guest = config.guest.as_deref().map(|path| (Role::Guest, path));
        let reads = [(Role::Input, config.input.as_path())];
        let writes = written::paths(&config.output, config.stats_file.as_deref());
        check_streams_of(reads.into_iter().chain(guest), writes)?;
        let input = InputFile::open(&config.input, config.direct)?;
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
        let (path, stats) = (&config.output, config.stats_file.as_deref());
        let files = Files::create(vec![self.input], self.guest.as_ref(), path, stats, options)?;
        Ok((files, self.image))
    }
}

/// What the user should know of the sector sizes before the copy begins: which would suit a device better,
/// whose blocks are larger.
pub(super) fn sector_notes(files: &Files, config: &Config) -> Vec<String> {
    let input = files.input().block_size();
    let disks = [
        (INPUT, input, config.input_sector_size),
        (OUTPUT, files.output.block_size(), config.output_sector_size),
    ];
    let note = |(name, block, sector): (&str, Option<u32>, SectorSize)| {
        let block = block.filter(|block| config.direct && *block > sector.bytes())?;
        Some(format!(
            "the {name} device has blocks of {block} bytes: what is not whole blocks goes through the \
             page cache; give --{name}-sector-size {block}"
        ))
    };
    disks.into_iter().filter_map(note).collect()
}
