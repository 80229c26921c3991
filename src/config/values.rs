//! The values of single options. A value of one of these types is valid, and an error says what
//! would be: the caller says which option it was and what was given.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use guest_abi::limits::{MAX_QUEUE_DEPTH, MAX_SECTOR_SIZE, MIN_SECTOR_SIZE, is_sector_size};

use super::size;
use crate::report::OutputFormat;

/// Reads one of several words as a value of `$type`. The error has them in the order of the list.
macro_rules! words {
    ($type:ident: $($name:literal $variant:ident),*) => {
        impl $type {
            /// The words for its values, in the order in which a user is told of them.
            pub const NAMES: &[&'static str] = &[$($name),*];
        }

        impl std::str::FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($name => Ok(Self::$variant),)*
                    _ => Err($crate::config::values::give_one_of(Self::NAMES)),
                }
            }
        }
    };
}
pub(super) use words;

/// What would have been right, for an error.
pub(super) fn give_one_of(names: &[&str]) -> String {
    match names {
        [others @ .., last] if !others.is_empty() => {
            format!("give {} or {last}", others.join(", "))
        }
        _ => format!("give {}", names.concat()),
    }
}

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
        size::parse(text)
            .and_then(|size| u32::try_from(size).ok())
            .filter(|size| is_sector_size(*size))
            .map(Self)
            .ok_or_else(|| {
                format!(
                    "give a power of two from {MIN_SECTOR_SIZE} to {MAX_SECTOR_SIZE} (64K), {}",
                    size::UNITS
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
    /// Each time that one percent more is done.
    pub const EACH: Self = Self(1);
    /// Each time that a tenth more is done.
    pub const TENTHS: Self = Self(10);

    /// A number that says when: 0 is at sectors 1, 11, 21 and so on, 1 to 99 each time that many
    /// percent more are done, and 100 never.
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
            .ok_or_else(|| "give a whole number of percent from 0 to 100".to_owned())
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

words!(Protocol: "protobuf" Protobuf, "text" Text);

/// Which device carries the guest's reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// The console when a run has many reports to make, else the serial port.
    #[default]
    Auto,
    /// The serial port COM1.
    Serial,
    /// A virtio console (virtio 1.2, section 5.3).
    Console,
}

words!(Transport: "serial" Serial, "console" Console, "auto" Auto);

/// Which zeros of the input become holes of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sparse {
    /// The zeros of the input's holes.
    #[default]
    Auto,
    /// All zeros that the guest finds.
    Always,
    /// No zeros: everything is written.
    Never,
}

words!(Sparse: "auto" Auto, "always" Always, "never" Never);

/// What is computed of the input's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digest {
    /// SHA-256 (FIPS 180-4).
    Sha256,
}

words!(Digest: "sha256" Sha256);

words!(OutputFormat: "text" Text, "json" Json);

/// Reads a number of requests, at least 1.
pub(crate) fn parse_depth(text: &str) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| format!("give a whole number from 1 to {MAX_QUEUE_DEPTH}"))
}

/// Reads a number of bytes, at least 1.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    size_or(text, "give a whole number from 1 to 2^64 - 1")
}

/// Reads the number of bytes that a request covers. Whether it suits the sectors is seen later.
pub(crate) fn parse_request_size(text: &str) -> Result<u64, String> {
    size_or(
        text,
        "give a multiple of both sector sizes up to 1048576 (1M)",
    )
}

fn size_or(text: &str, right: &str) -> Result<u64, String> {
    size::parse(text)
        .filter(|size| *size > 0)
        .ok_or_else(|| format!("{right}, {}", size::UNITS))
}

/// Reads a time limit in seconds; fractions are allowed.
pub(crate) fn parse_timeout(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|limit| !limit.is_zero())
        .ok_or_else(|| {
            "give a number of seconds above 0 and up to 10^19, such as 90 or 0.5".to_owned()
        })
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
        for text in ["-1", "3k", "128K", "", "0x200", "512 ", "4294967808", "4T"] {
            let error = text.parse::<SectorSize>().unwrap_err();
            assert!(error.contains("power of two from 512 to 65536"), "{error}");
        }
    }

    #[test]
    fn sector_sizes_take_units() {
        for (text, bytes) in [("1k", 1024), ("4K", 4096), ("64KiB", 65536)] {
            assert_eq!(text.parse::<SectorSize>().unwrap().bytes(), bytes);
        }
    }

    #[test]
    fn a_number_of_bytes_that_is_too_large_is_told_the_most() {
        for text in ["0", "18446744073709551616", "99999999T"] {
            let error = parse_bytes(text).unwrap_err();
            assert!(error.contains("from 1 to 2^64 - 1, in bytes"), "{error}");
            let error = parse_request_size(text).unwrap_err();
            assert!(error.contains("up to 1048576 (1M), in bytes"), "{error}");
        }
    }

    #[test]
    fn a_time_limit_is_above_0_and_a_number() {
        assert_eq!(parse_timeout("1e-9"), Ok(Duration::from_nanos(1)));
        for text in ["0", "-0", "-1", "-1e-20", "1e-20", "1e20", "inf", "nan", ""] {
            let error = parse_timeout(text).unwrap_err();
            assert!(error.contains("above 0"), "{text}: {error}");
        }
    }

    #[test]
    fn progress_is_a_percentage() {
        assert_eq!("100".parse(), Ok(ProgressPercent::NEVER));
        for text in ["101", "-1", "256", "ten"] {
            assert!(text.parse::<ProgressPercent>().is_err());
        }
    }
}
