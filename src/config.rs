//! What a run is asked to do, checked: a value of one of these types is valid.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use guest_abi::limits::{
    MAX_QUEUE_DEPTH, MAX_REQUEST_SIZE, MAX_SECTOR_SIZE, MIN_SECTOR_SIZE, is_sector_size,
};

/// How many bytes a request covers unless the user says otherwise.
pub const DEFAULT_REQUEST_SIZE: u32 = 131_072;

/// The sector size of a disk in bytes: a power of two from 512 to 65536.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SectorSize(u32);

impl SectorSize {
    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        self.0
    }
}

impl Default for SectorSize {
    fn default() -> Self {
        Self(MIN_SECTOR_SIZE)
    }
}

impl FromStr for SectorSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse()
            .ok()
            .filter(|size: &u32| is_sector_size(*size))
            .map(Self)
            .ok_or_else(|| {
                format!(
                    "'{text}' is not a sector size: give a power of two from {MIN_SECTOR_SIZE} to \
                     {MAX_SECTOR_SIZE}, in bytes"
                )
            })
    }
}

impl fmt::Display for SectorSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How often the guest reports its progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgressPercent(u8);

impl ProgressPercent {
    /// No reports at all.
    pub const NEVER: Self = Self(100);

    /// 0: at sectors 1, 11, 21 and so on; 1 to 99: each time that many percent more are done;
    /// 100: never.
    #[must_use]
    pub const fn percent(self) -> u8 {
        self.0
    }
}

impl FromStr for ProgressPercent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse()
            .ok()
            .filter(|percent| *percent <= 100)
            .map(Self)
            .ok_or_else(|| {
                format!("'{text}' is not a progress interval: give 0 to 100, in percent")
            })
    }
}

/// How the guest reports on COM1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Framed Protocol Buffers messages.
    #[default]
    Protobuf,
    /// Plain lines.
    Text,
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "protobuf" => Ok(Self::Protobuf),
            "text" => Ok(Self::Text),
            _ => Err(format!("'{text}' is not a protocol: give protobuf or text")),
        }
    }
}

/// How statistics are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StatsFormat {
    /// Lines for a person.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

impl FromStr for StatsFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("'{text}' is not a format: give text or json")),
        }
    }
}

/// A whole number of requests or bytes, at least 1.
pub(crate) fn parse_positive(text: &str, what: &str) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| format!("'{text}' is not {what}: give a whole number from 1 up"))
}

/// A time limit in seconds; fractions are allowed.
pub(crate) fn parse_timeout(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .filter(|seconds: &f64| *seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("'{text}' is not a time limit: give a number of seconds above 0"))
}

/// The size and number of the requests that the guest is to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestShape {
    /// Bytes a request covers.
    pub size: u32,
    /// Requests under way at once.
    pub depth: u32,
}

impl RequestShape {
    /// Checks what the user wants (`None`: the default) against the sector sizes.
    ///
    /// # Errors
    ///
    /// What would be valid.
    pub fn new(
        size: Option<u32>,
        depth: Option<u32>,
        sectors: [SectorSize; 2],
    ) -> Result<Self, String> {
        let unit = sectors
            .map(SectorSize::bytes)
            .into_iter()
            .max()
            .unwrap_or(MIN_SECTOR_SIZE);
        let size = size.unwrap_or(DEFAULT_REQUEST_SIZE.max(unit));
        if size == 0 || !size.is_multiple_of(unit) || size > MAX_REQUEST_SIZE {
            return Err(format!(
                "--request-size {size} does not suit the sector sizes: give a multiple of {unit} \
                 up to {MAX_REQUEST_SIZE}, in bytes"
            ));
        }
        let depth = depth.unwrap_or(MAX_QUEUE_DEPTH);
        if depth > MAX_QUEUE_DEPTH {
            return Err(format!(
                "--queue-depth {depth} is too deep: give 1 to {MAX_QUEUE_DEPTH}"
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
    pub progress: ProgressPercent,
    /// How the guest reports.
    pub protocol: Protocol,
    /// The guest's requests.
    pub requests: RequestShape,
    /// The guest to run in place of the one that is built in.
    pub guest: Option<PathBuf>,
    /// Show the guest's debug lines.
    pub debug: bool,
    /// Show message lines on a terminal too.
    pub verbose: bool,
    /// Show errors only.
    pub quiet: bool,
    /// Open the files with `O_DIRECT`.
    pub direct: bool,
    /// Make the copy durable before success is reported.
    pub fsync: bool,
    /// How long the run may take.
    pub timeout: Option<Duration>,
    /// Confine the process once everything is open.
    pub sandbox: bool,
    /// Print statistics at the end.
    pub stats: bool,
    /// Write statistics to this file as JSON.
    pub stats_file: Option<PathBuf>,
    /// How printed statistics look.
    pub format: StatsFormat,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn sector_sizes_are_powers_of_two_from_512_to_65536() {
        let mut valid = Vec::new();
        for size in 0..=140_000_u32 {
            if let Ok(sector) = size.to_string().parse::<SectorSize>() {
                valid.push(sector.bytes());
            }
        }
        assert_eq!(valid, [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]);
        for text in ["-1", "4k", "", "0x200", "512 ", "4294967808"] {
            let error = text.parse::<SectorSize>().unwrap_err();
            assert!(error.contains("power of two from 512 to 65536"), "{error}");
        }
    }

    #[test]
    fn progress_is_a_percentage() {
        assert_eq!("100".parse(), Ok(ProgressPercent::NEVER));
        for text in ["101", "-1", "256", "ten"] {
            assert!(text.parse::<ProgressPercent>().is_err());
        }
    }

    #[test]
    fn requests_are_multiples_of_both_sector_sizes() {
        let size = |text: &str| text.parse::<SectorSize>().unwrap();
        let sectors = [size("512"), size("4096")];
        assert!(RequestShape::new(Some(4096), Some(1), sectors).is_ok());
        assert!(RequestShape::new(Some(12288), None, sectors).is_ok());
        for wrong in [512, 4097, 2 << 20] {
            assert!(RequestShape::new(Some(wrong), None, sectors).is_err());
        }
        assert!(RequestShape::new(None, Some(MAX_QUEUE_DEPTH + 1), sectors).is_err());
    }
}
