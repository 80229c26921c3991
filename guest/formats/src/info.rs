//! What the headers of an image say, and what speaks against using it.
//!
//! The memory for it is bounded: at most [`MOST_REFERENCES`] names of at most [`LONGEST_NAME`]
//! bytes, 192 feature bits, and each reason once.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use thiserror::Error as ThisError;

use crate::error::Error;
use crate::format::{Format, FormatSet};
use crate::probe::{FileSystem, PartitionTable};
use crate::reason::{Class, Finding, Findings, Reason, ReasonSet};
use crate::source::len64;

/// The most references to other files that are kept.
pub const MOST_REFERENCES: usize = 16;
/// The most bytes that are kept of one name.
pub const LONGEST_NAME: usize = 1024;

/// What a caller sets before an image is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The format that a user says the image has.
    pub claimed: Option<Format>,
    /// The reasons for a refusal that the user overrides.
    pub allowed: ReasonSet,
    /// The largest virtual disk that is not refused, in bytes.
    pub largest_disk: u64,
}

impl Options {
    /// The limit on virtual disks if the caller sets none: 64 TiB, the most that a VHDX can have.
    pub const LARGEST_DISK: u64 = 64 << 40;

    /// Options with the format and the reasons of these names, as a user says them. No format is
    /// claimed by an empty name.
    ///
    /// # Errors
    ///
    /// [`UnknownName`] for the first name that means nothing here.
    pub fn named(format: &str, allowed: &[String]) -> Result<Self, UnknownName> {
        let mut options = Self::default();
        if !format.is_empty() {
            let found = Format::from_name(format);
            let unknown = || UnknownName::Format(format.to_string());
            options.claimed = Some(found.ok_or_else(unknown)?);
        }
        for name in allowed {
            let named = |reason: &&Reason| reason.name() == name && reason.may_be_allowed();
            let reason = Reason::ALL.iter().find(named);
            let unknown = || UnknownName::Reason(name.clone());
            options.allowed = options.allowed.with(*reason.ok_or_else(unknown)?);
        }
        Ok(options)
    }
}

/// A name of a user's that means nothing here.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum UnknownName {
    /// No format has this name.
    #[error("format {0} is not known")]
    Format(String),
    /// No reason has this name, or it cannot be overridden.
    #[error("reason {0} is not known or cannot be allowed")]
    Reason(String),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            claimed: None,
            allowed: ReasonSet::EMPTY,
            largest_disk: Self::LARGEST_DISK,
        }
    }
}

/// What an image says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The format that it is taken for.
    pub format: Format,
    /// All formats whose signatures the file has.
    pub fitting: FormatSet,
    /// The variant of the format, such as `fixed`, `dynamic` or `streamOptimized`.
    pub variant: Option<&'static str>,
    /// The version of the format.
    pub version: Option<u32>,
    /// The size of the virtual disk in bytes.
    pub virtual_size: Option<u64>,
    /// The size of a cluster, grain or block in bytes.
    pub cluster_size: Option<u64>,
    /// How compressed clusters are compressed.
    pub compression: Option<&'static str>,
    /// How many bits a refcount has (qcow2).
    pub refcount_bits: Option<u32>,
    /// The feature bits that are set.
    pub features: Vec<Feature>,
    /// How the image is encrypted.
    pub encryption: Option<&'static str>,
    /// The other files that it names.
    pub references: Vec<Reference>,
    /// The format that its backing file is said to have, if there is one and that is understood.
    pub backing_format: Option<Format>,
    /// How many snapshots it holds.
    pub snapshots: u32,
    /// Whether its log holds changes, which are then replayed in memory (VHDX).
    pub log_replayed: bool,
    /// The partition table of the virtual disk, if it can be read without inflating.
    pub partitions: Option<PartitionTable>,
    /// The file system that fills the virtual disk, if there are no partitions and it can be read
    /// without inflating.
    pub file_system: Option<FileSystem>,
    /// What speaks against using the image.
    pub findings: Findings,
}

impl Info {
    pub(crate) fn new(format: Format) -> Self {
        Self {
            format,
            fitting: FormatSet::default().with(format),
            variant: None,
            version: None,
            virtual_size: None,
            cluster_size: None,
            compression: None,
            refcount_bits: None,
            features: Vec::new(),
            encryption: None,
            references: Vec::new(),
            backing_format: None,
            snapshots: 0,
            log_replayed: false,
            partitions: None,
            file_system: None,
            findings: Findings::default(),
        }
    }

    /// The verdict: safe if nothing was found, or else the worst of what was found.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let broken = |finding: &Finding| finding.reason.class() == Class::Broken;
        if self.findings.is_empty() {
            Verdict::Safe
        } else if self.findings.iter().any(broken) {
            Verdict::Broken
        } else {
            Verdict::Refused
        }
    }

    pub(crate) fn find(&mut self, reason: Reason, at: u64, value: u64) {
        self.findings.add(reason, at, value);
    }

    /// Notes the name of another file. A name that is too long is cut, and one too many is left
    /// out.
    pub(crate) fn refer(&mut self, kind: ReferenceKind, name: &[u8]) {
        if self.references.len() < MOST_REFERENCES {
            let name = name.get(..LONGEST_NAME).unwrap_or(name).to_vec();
            self.references.push(Reference { kind, name });
        }
    }

    /// Notes the name of the file that has what the image lacks; `at` is where that is said. QEMU takes
    /// a name that begins with `json:` for the options of a block driver, which may show another part
    /// of a file than all of it, or read it as another format. They are not read here, so that whoever
    /// is given the file could only guess.
    pub(crate) fn refer_to_backing(&mut self, kind: ReferenceKind, name: &[u8], at: u64) {
        self.refer(kind, name);
        if name.starts_with(b"json:") {
            self.find(Reason::BackingOptions, at, len64(name));
        }
    }

    pub(crate) fn set_size(&mut self, size: u64, at: u64, options: &Options) {
        self.virtual_size = Some(size);
        if size > options.largest_disk {
            self.find(Reason::VirtualSize, at, size);
        }
    }

    /// Fails for the first finding that `options` does not allow.
    pub(crate) fn require(&self, options: &Options) -> Result<(), Error> {
        match self.findings.first_except(options.allowed) {
            Some(finding) => Err(Error::Refused(finding)),
            None => Ok(()),
        }
    }
}

/// Whether an image may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing speaks against it.
    Safe,
    /// It may be whole, but using it is not safe or not possible here.
    Refused,
    /// It contradicts itself or its format.
    Broken,
}

impl Verdict {
    /// `safe`, `refused` or `broken`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Safe => "safe",
            Self::Refused => "refused",
            Self::Broken => "broken",
        }
    }
}

/// A feature bit that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// What a program may do that does not know the bit.
    pub kind: FeatureKind,
    /// The number of the bit.
    pub bit: u32,
    /// Its name, if this crate knows it.
    pub name: Option<&'static str>,
}

/// What a program that does not know a feature may do with the image ("Header" in qcow2.txt).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureKind {
    /// It may not open the image.
    Incompatible,
    /// It may use the image as if the bit were not set.
    Compatible,
    /// It may use the image, and has to clear the bit when it writes to it.
    Autoclear,
}

/// A file that an image names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// What the other file is to the image.
    pub kind: ReferenceKind,
    /// Its name as it lies in the image: any bytes.
    pub name: Vec<u8>,
}

/// What another file is to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceKind {
    /// The backing file: it has what the image lacks.
    Backing,
    /// Not a file, but the name of the backing file's format.
    BackingFormat,
    /// The external data file: it has the data of the disk.
    Data,
    /// An extent: it has a part of the disk (VMDK).
    Extent,
    /// The parent: the image holds only what differs from it.
    Parent,
}

impl ReferenceKind {
    /// Its name for programs, which does not change.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Backing => "backing",
            Self::BackingFormat => "backing-format",
            Self::Data => "data",
            Self::Extent => "extent",
            Self::Parent => "parent",
        }
    }
}
