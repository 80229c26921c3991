//! What a conversion of an image is asked to do.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::{Digest, ImageFormat, ImageReason, OutputFormat, ProgressPercent};

/// A conversion.
#[derive(Clone, Debug)]
pub struct ConvertConfig {
    /// The image: a file or a block device.
    pub input: PathBuf,
    /// Where the disk in it goes.
    pub output: PathBuf,
    /// The backing files: the first has what the image lacks, each further one what the one before
    /// it lacks.
    pub backings: Vec<PathBuf>,
    /// The format that the user says the image has.
    pub claimed: Option<ImageFormat>,
    /// The format of the output.
    pub output_format: DiskFormat,
    /// The reasons that do not count.
    pub allowed: Vec<ImageReason>,
    /// The internal snapshot to read, by its id or its name, which may be any bytes.
    pub snapshot: Option<OsString>,
    /// Read the holes of the files, too, whatever the file system says of them.
    pub read_holes: bool,
    /// The largest disk, and the longest output, in bytes.
    pub max_output_size: u64,
    /// How often the guest reports.
    pub progress: ProgressPercent,
    /// The digest of the disk that is printed.
    pub digest: Option<Digest>,
    /// Open the files with `O_DIRECT`.
    pub direct: bool,
    /// Make the output durable before success is reported.
    pub fsync: bool,
    /// Write to a block device even if it is in use.
    pub force: bool,
    /// How messages and statistics are printed.
    pub format: OutputFormat,
    /// Show message lines on a terminal too.
    pub verbose: bool,
    /// Show no messages and no bar.
    pub quiet: bool,
    /// Show the guest's debug lines.
    pub debug: bool,
    /// Print statistics at the end.
    pub stats: bool,
    /// Write statistics to this file as JSON.
    pub stats_file: Option<PathBuf>,
    /// How long the run may take.
    pub timeout: Option<Duration>,
    /// Confine the process once everything is open.
    pub sandbox: bool,
}

impl ConvertConfig {
    /// The longest output unless the user says otherwise, in bytes: the longest file that ext4 has
    /// room for. What an image says of its disk is no reason to fill anybody's.
    pub const MAX_OUTPUT_SIZE: u64 = 16 << 40;
    /// Most backing files: the slots of a machine, without those of the other devices.
    pub const MOST_BACKINGS: usize = guest_abi::layout::MOST_BACKINGS;

    /// How large the disk may be in an image that is written, in bytes: as large as the output, or of
    /// any size if the user allows that.
    #[must_use]
    pub fn largest_disk(&self) -> u64 {
        let is_allowed = |reason: &ImageReason| reason.name() == "virtual-size-too-large";
        match self.allowed.iter().any(is_allowed) {
            true => u64::MAX,
            false => self.max_output_size,
        }
    }
}

/// The format of a disk that is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskFormat {
    /// The bytes of the disk as they are.
    #[default]
    Raw,
    /// QEMU's format, version 3.
    Qcow2,
}

impl DiskFormat {
    /// Its names on the command line.
    pub const NAMES: &[&str] = &["raw", "qcow2"];
}

impl FromStr for DiskFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "raw" => Ok(Self::Raw),
            "qcow2" => Ok(Self::Qcow2),
            _ => Err("give raw or qcow2".to_owned()),
        }
    }
}
