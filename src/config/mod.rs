//! What a run is asked to do, checked: a value of one of these types is valid.

mod convert;
mod image;
mod size;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use guest_abi::limits::{MAX_QUEUE_DEPTH, MAX_REQUEST_SIZE, MIN_SECTOR_SIZE};

pub use crate::report::OutputFormat;
pub use convert::{ConvertConfig, DiskFormat};
pub use image::{ImageConfig, ImageFormat, ImageReason, ImageTask};
pub use values::{Digest, ProgressPercent, Protocol, SectorSize, Sparse, Transport};
pub(crate) use values::{parse_bytes, parse_depth, parse_request_size, parse_timeout};

/// How many bytes a request covers unless the user says otherwise.
pub const DEFAULT_REQUEST_SIZE: u32 = 131_072;

/// The size and number of the requests that the guest is to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestShape {
    /// Bytes a request covers.
    pub size: u32,
    /// Requests under way at once.
    pub depth: u32,
}

impl RequestShape {
    /// Checks what the user wants (`None`: the default) against the sector sizes. The size is in
    /// bytes.
    ///
    /// # Errors
    ///
    /// What would be valid.
    pub fn new(
        size: Option<u64>,
        depth: Option<u32>,
        sectors: [SectorSize; 2],
    ) -> Result<Self, String> {
        let unit = sectors
            .map(SectorSize::bytes)
            .into_iter()
            .max()
            .unwrap_or(MIN_SECTOR_SIZE);
        let wanted = size.unwrap_or(DEFAULT_REQUEST_SIZE.max(unit).into());
        let size = u32::try_from(wanted)
            .ok()
            .filter(|size| *size > 0 && size.is_multiple_of(unit) && *size <= MAX_REQUEST_SIZE)
            .ok_or_else(|| {
                format!(
                    "--request-size {wanted} does not suit the sector sizes: give a multiple of \
                     {unit} up to {MAX_REQUEST_SIZE}, in bytes"
                )
            })?;
        let depth = depth.unwrap_or(MAX_QUEUE_DEPTH);
        if depth == 0 || depth > MAX_QUEUE_DEPTH {
            return Err(format!(
                "--queue-depth {depth} is not possible: give 1 to {MAX_QUEUE_DEPTH}"
            ));
        }
        Ok(Self { size, depth })
    }
}

/// A whole run.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file or block device to copy.
    pub input: PathBuf,
    /// Where the copy goes.
    pub output: PathBuf,
    /// Sector size of the input disk.
    pub input_sector_size: SectorSize,
    /// Sector size of the output disk.
    pub output_sector_size: SectorSize,
    /// How often the guest reports.
    pub progress: Option<ProgressPercent>,
    /// How the guest reports.
    pub protocol: Protocol,
    /// Which device carries the reports.
    pub transport: Transport,
    /// The guest's requests.
    pub requests: RequestShape,
    /// The guest to run in place of the one that is built in.
    pub guest: Option<PathBuf>,
    /// Whether that was given behind the disks, without its option, as any argument too many would be.
    pub guest_by_place: bool,
    /// Pass standard input to the guest's second serial port (COM2).
    pub serial_input: bool,
    /// Show the guest's debug lines.
    pub debug: bool,
    /// Show message lines on a terminal too.
    pub verbose: bool,
    /// Show no messages and no bar.
    pub quiet: bool,
    /// Open the files with `O_DIRECT`.
    pub direct: bool,
    /// Make the copy durable before success is reported.
    pub fsync: bool,
    /// Which zeros become holes.
    pub sparse: Sparse,
    /// The digest of the input that is printed.
    pub digest: Option<Digest>,
    /// Read the output back and compare it.
    pub verify: bool,
    /// The longest output that is made, in bytes.
    pub max_output_size: Option<u64>,
    /// Write to a block device even if it is in use.
    pub force: bool,
    /// How long the run may take.
    pub timeout: Option<Duration>,
    /// Confine the process once everything is open.
    pub sandbox: bool,
    /// Print statistics at the end.
    pub stats: bool,
    /// Write statistics to this file as JSON.
    pub stats_file: Option<PathBuf>,
    /// How messages and statistics are printed.
    pub format: OutputFormat,
}

/// A look at what this host offers, in place of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostCheck {
    /// The folder in which an output would be made, if it is of interest.
    pub folder: Option<PathBuf>,
    /// How the findings are printed.
    pub format: OutputFormat,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn requests_are_multiples_of_both_sector_sizes() {
        let size = |text: &str| text.parse::<SectorSize>().unwrap();
        let sectors = [size("512"), size("4096")];
        assert!(RequestShape::new(Some(4096), Some(1), sectors).is_ok());
        assert!(RequestShape::new(Some(12288), None, sectors).is_ok());
        for wrong in [0, 512, 4097, 2 << 20, 1 << 32, (1 << 32) + 4096] {
            assert!(RequestShape::new(Some(wrong), None, sectors).is_err());
        }
        for wrong in [0, MAX_QUEUE_DEPTH + 1] {
            assert!(RequestShape::new(None, Some(wrong), sectors).is_err());
        }
    }
}
