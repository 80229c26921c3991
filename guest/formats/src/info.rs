//! What is known of an image from its headers, and what speaks against using it.
//!
//! The memory is bounded: at most [`MOST_REFERENCES`] names of at most [`LONGEST_NAME`] bytes, 192
//! feature bits, and each reason once.

use alloc::vec::Vec;

use crate::error::Error;
use crate::format::{Format, FormatSet};
use crate::probe::{FileSystem, PartitionTable};
use crate::reason::{Class, Finding, Findings, Reason, ReasonSet};

/// The most references to other files that are kept.
pub const MOST_REFERENCES: usize = 16;
/// The most bytes that are kept of one name.
pub const LONGEST_NAME: usize = 1024;

/// What a caller sets before an image is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The format that a user says the image has.
    pub claimed: Option<Format>,
    /// The reasons that do not count.
    pub allowed: ReasonSet,
    /// The largest virtual disk in bytes.
    pub largest_disk: u64,
}

impl Options {
    /// The largest virtual disk if the caller does not say: 64 TiB, the most that VHDX can have.
    pub const LARGEST_DISK: u64 = 64 << 40;
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
    /// All formats that fit.
    pub fitting: FormatSet,
    /// The kind within the format: `fixed`, `dynamic`, `streamOptimized` and so on.
    pub variant: Option<&'static str>,
    /// The version of the format.
    pub version: Option<u32>,
    /// Bytes of the disk.
    pub virtual_size: Option<u64>,
    /// Bytes of a cluster, grain or block.
    pub cluster_size: Option<u64>,
    /// How clusters are compressed, where they are.
    pub compression: Option<&'static str>,
    /// Bits of each refcount (qcow2).
    pub refcount_bits: Option<u32>,
    /// The feature bits that are set.
    pub features: Vec<Feature>,
    /// How the image is encrypted.
    pub encryption: Option<&'static str>,
    /// The other files that it names.
    pub references: Vec<Reference>,
    /// How many snapshots it holds.
    pub snapshots: u32,
    /// Whether its log holds changes that are replayed in memory.
    pub log_replayed: bool,
    /// The partition table of the disk in it, where that can be read without inflating.
    pub partitions: Option<PartitionTable>,
    /// The file system that fills the disk in it, where there are no partitions and that can be
    /// read without inflating.
    pub file_system: Option<FileSystem>,
    /// What speaks against using it.
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
            snapshots: 0,
            log_replayed: false,
            partitions: None,
            file_system: None,
            findings: Findings::default(),
        }
    }

    /// The verdict: safe, or the graver of what was found.
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

    /// Notes the name of another file; what is over the bounds is cut.
    pub(crate) fn refer(&mut self, kind: ReferenceKind, name: &[u8]) {
        if self.references.len() < MOST_REFERENCES {
            let name = name.get(..LONGEST_NAME).unwrap_or(name).to_vec();
            self.references.push(Reference { kind, name });
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

/// What is to be made of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing speaks against it.
    Safe,
    /// It is refused, though it may be whole.
    Refused,
    /// It contradicts itself.
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
    /// What a reader that does not know the bit may do.
    pub kind: FeatureKind,
    /// The number of the bit.
    pub bit: u32,
    /// Its name, if it is known here.
    pub name: Option<&'static str>,
}

/// What a reader that does not know a feature may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureKind {
    /// Nothing.
    Incompatible,
    /// Anything.
    Compatible,
    /// Anything, if it clears the bit when it writes.
    Autoclear,
}

/// The name of another file, as it lies in the image: it may hold any bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// What the other file is to the image.
    pub kind: ReferenceKind,
    /// Its name.
    pub name: Vec<u8>,
}

/// What another file is to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceKind {
    /// It has what the image lacks.
    Backing,
    /// The format of the backing file: a name, but not of a file.
    BackingFormat,
    /// It has the data.
    Data,
    /// It has a part of the disk.
    Extent,
    /// The image is the difference to it.
    Parent,
}

impl ReferenceKind {
    /// A stable name.
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
