//! The files of a conversion: the image and its backing files are opened first, as the user named
//! them, then what is written, and none of it may be any of the rest. No name out of an image is
//! ever opened.

use std::iter;
use std::sync::Arc;

use crate::config::{ConvertConfig, DiskFormat};
use crate::files::{FileError, InputFile, OutputOptions, Role, check_streams_of};
use crate::operations::written::{self, Files};
use crate::runtime::RunError;

/// Opens what is read.
pub(super) fn sources(config: &ConvertConfig) -> Result<Vec<Arc<InputFile>>, RunError> {
    let backings = config.backings.iter();
    let backings = backings.map(|path| (Role::Backing, path.as_path()));
    let reads = iter::once((Role::Input, config.input.as_path())).chain(backings);
    let writes = written::paths(&config.output, config.stats_file.as_deref());
    check_streams_of(reads, writes)?;
    let input = InputFile::open(&config.input, config.direct)?;
    let mut inputs = vec![Arc::new(input)];
    for path in &config.backings {
        let backing = inputs[0].open_backing(path, config.direct)?;
        inputs.push(Arc::new(backing));
    }
    Ok(inputs)
}

/// Prepares what is written. Nothing that is there already is touched.
pub(super) fn with_output(
    config: &ConvertConfig,
    inputs: Vec<Arc<InputFile>>,
) -> Result<Files, FileError> {
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
    let (path, stats) = (&config.output, config.stats_file.as_deref());
    Files::create(inputs, None, path, stats, options)
}
