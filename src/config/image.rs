//! The words that the guests which look into images have for formats and for reasons.
//!
//! The VMM has no parser, and does not link the crate that has them all: these are names, for the
//! command line and for what a guest may say. A test compares them with that crate.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::OutputFormat;

/// What is to be done with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageTask {
    /// Say what its headers say.
    Info,
    /// Look through its tables, too.
    Check,
}

/// A look into an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageConfig {
    /// What to do.
    pub task: ImageTask,
    /// The image: a file or a block device.
    pub image: PathBuf,
    /// The format that the user says it has.
    pub claimed: Option<ImageFormat>,
    /// The reasons that do not count.
    pub allowed: Vec<ImageReason>,
    /// The largest virtual disk that is not refused, in bytes.
    pub largest_disk: Option<u64>,
    /// How the answer is printed.
    pub format: OutputFormat,
    /// Show the guest's debug lines.
    pub debug: bool,
    /// How long the run may take.
    pub timeout: Option<Duration>,
    /// Confine the process once everything is open.
    pub sandbox: bool,
}

/// The format of an image, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageFormat(&'static str);

impl ImageFormat {
    /// All names.
    pub const NAMES: &[&'static str] = &[
        "raw",
        "qcow2",
        "qcow",
        "qed",
        "vmdk",
        "vhd",
        "vhdx",
        "vdi",
        "luks",
        "parallels",
        "dmg",
        "iso",
        "bochs",
        "cloop",
        "ewf",
        "gzip",
        "xz",
        "zstd",
        "bzip2",
        "tar",
        "zip",
        "7z",
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.0
    }
}

impl FromStr for ImageFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let own = match text {
            // As qemu-img calls it.
            "vpc" => "vhd",
            text => text,
        };
        let known = Self::NAMES.iter().find(|name| **name == own);
        known
            .map(|name| Self(name))
            .ok_or_else(|| format!("give one of {}", Self::NAMES.join(", ")))
    }
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Why an image is not used, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageReason(&'static str);

impl ImageReason {
    /// The image names a backing file.
    pub const BACKING_FILE: Self = Self("backing-file");
    /// No known format fits.
    pub const UNKNOWN_FORMAT: Self = Self("unknown-format");
    /// The disk in the image is larger than the limit.
    pub const VIRTUAL_SIZE: Self = Self("virtual-size-too-large");

    /// Those that a user may override.
    pub const OVERRIDABLE: &[&'static str] = &[
        Self::BACKING_FILE.0,
        "backing-format",
        "backing-options",
        "several-formats",
        "other-format",
        Self::UNKNOWN_FORMAT.0,
        "marked-corrupt",
        "marked-dirty",
        Self::VIRTUAL_SIZE.0,
        "no-footer",
    ];

    /// Those without which there is no way to read on, or no safe one.
    pub const FINAL: &[&'static str] = &[
        "data-file",
        "external-extent",
        "differencing",
        "not-a-disk-image",
        "format-not-read",
        "encrypted",
        "unknown-feature",
        "unsupported-version",
        "unsupported-compression",
        "too-much-work",
        "log-too-long",
        "log-touches-data",
        "truncated",
        "bad-header",
        "bad-cluster-size",
        "bad-table-size",
        "unaligned",
        "beyond-end",
        "overlap",
        "reserved-bits",
        "bad-entry",
        "bad-checksum",
        "copies-differ",
        "bad-reference",
        "bad-snapshot",
        "no-such-snapshot",
        "bad-marker",
        "bad-compressed-data",
        "bad-descriptor",
        "bad-log",
        "stale-sectors",
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.0
    }

    /// The reason of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let mut all = Self::OVERRIDABLE.iter().chain(Self::FINAL);
        all.find(|known| **known == name).map(|name| Self(name))
    }

    /// Whether a user may override it.
    #[must_use]
    pub fn is_overridable(self) -> bool {
        Self::OVERRIDABLE.contains(&self.0)
    }
}

/// Reads a reason that is to be overridden.
impl FromStr for ImageReason {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = Self::OVERRIDABLE.join(", ");
        match Self::from_name(text) {
            Some(reason) if reason.is_overridable() => Ok(reason),
            Some(_) => Err(format!(
                "it cannot be overridden; those that can be are {names}"
            )),
            None => Err(format!("give one of {names}")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use guest_formats::{Format, Reason};

    use super::*;

    #[test]
    fn the_formats_are_those_that_the_guest_knows() {
        let known: Vec<_> = Format::ALL.iter().map(|format| format.name()).collect();
        assert_eq!(ImageFormat::NAMES, known);
        for format in Format::ALL {
            let name: ImageFormat = format.name().parse().unwrap();
            assert_eq!(Format::from_name(name.name()), Some(*format));
        }
        assert_eq!("vpc".parse::<ImageFormat>().unwrap().name(), "vhd");
        assert!("QCOW2".parse::<ImageFormat>().is_err());
    }

    #[test]
    fn the_reasons_are_those_that_the_guest_knows() {
        for reason in Reason::ALL {
            let known = ImageReason::from_name(reason.name()).unwrap();
            assert_eq!(known.is_overridable(), reason.may_be_allowed());
            assert_eq!(
                known.name().parse::<ImageReason>().is_ok(),
                reason.may_be_allowed()
            );
        }
        let known = ImageReason::OVERRIDABLE.len() + ImageReason::FINAL.len();
        assert_eq!(known, Reason::ALL.len());
        assert!("".parse::<ImageReason>().is_err());
    }
}
