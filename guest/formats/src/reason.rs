//! The reasons for which an image is refused.
//!
//! Each has a name for programs, which never changes, and a message for people. [`Findings`] holds
//! each reason once, so that no image can make the list longer than the table below.

use alloc::vec::Vec;
use core::fmt;

/// How grave a reason is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The image may be whole, but using it is not safe or not possible here.
    Refused,
    /// The image contradicts itself or its format.
    Broken,
}

macro_rules! reasons {
    ($($variant:ident $name:literal $class:ident $allowed:ident $message:literal;)*) => {
        /// Why an image is refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Reason {
            $(#[doc = $message] $variant,)*
        }

        impl Reason {
            /// All reasons.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name for programs, in small letters and hyphens.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What is wrong, as one sentence for a person.
            #[must_use]
            pub const fn message(self) -> &'static str {
                match self { $(Self::$variant => $message,)* }
            }

            /// Whether such an image is refused or broken.
            #[must_use]
            pub const fn class(self) -> Class {
                match self { $(Self::$variant => Class::$class,)* }
            }

            /// Whether a user may override it. Where not, the image cannot be read any further.
            #[must_use]
            pub const fn may_be_allowed(self) -> bool {
                match self { $(Self::$variant => reasons!(@$allowed),)* }
            }
        }
    };
    (@yes) => { true };
    (@no) => { false };
}

reasons! {
    BackingFile "backing-file" Refused yes
        "The image takes what it lacks from another file, which it names.";
    DataFile "data-file" Refused no
        "The image keeps its data in another file, which it names; make one file of both first.";
    ExternalExtent "external-extent" Refused no
        "The image has parts in other files, which it names; make one file of them first.";
    Differencing "differencing" Refused no
        "The image holds only the differences to a parent; merge it with that first.";
    SeveralFormats "several-formats" Refused yes
        "More than one format fits, so that two programs may see two different disks.";
    OtherFormat "other-format" Refused yes
        "The image has another format than was claimed.";
    UnknownFormat "unknown-format" Refused yes
        "No known format fits; a raw disk without partitions has to be called raw.";
    NotADisk "not-a-disk-image" Refused no
        "The file is an archive or is compressed as a whole; unpack it first.";
    FormatNotRead "format-not-read" Refused no
        "The format is recognised, but not read; convert the image to one that is read first.";
    Encrypted "encrypted" Refused no
        "The image is encrypted; decrypt it first.";
    UnknownFeature "unknown-feature" Refused no
        "The image needs a feature that is not known.";
    UnsupportedVersion "unsupported-version" Refused no
        "The image has a version of its format that is not known.";
    UnsupportedCompression "unsupported-compression" Refused no
        "The image is compressed by a method that is not known.";
    CorruptBit "marked-corrupt" Refused yes
        "The image is marked as corrupt.";
    DirtyBit "marked-dirty" Refused yes
        "The image was not closed by its last writer.";
    VirtualSize "virtual-size-too-large" Refused yes
        "The virtual disk is larger than the limit.";
    TooMuchWork "too-much-work" Refused no
        "Reading the image takes more steps than the limit.";
    LogTooLong "log-too-long" Refused no
        "The log holds more than is replayed in memory.";
    LogTouchesData "log-touches-data" Refused no
        "The log changes a data block, and only changes of tables are replayed.";
    Truncated "truncated" Broken no
        "The file ends before its header does.";
    BadHeader "bad-header" Broken no
        "A field of the header has a value that has no meaning.";
    ClusterSize "bad-cluster-size" Broken no
        "The size of clusters, grains or blocks is not one that the format allows.";
    TableSize "bad-table-size" Broken no
        "A table has not the size that the virtual disk needs.";
    Unaligned "unaligned" Broken no
        "A table or a cluster does not begin where one may begin.";
    BeyondEnd "beyond-end" Broken no
        "A table or a cluster lies behind the end of the file, or is cut off there.";
    Overlap "overlap" Broken no
        "Two things that must be apart lie at one place.";
    ReservedBits "reserved-bits" Broken no
        "Bits are set that the format wants to be zero.";
    BadEntry "bad-entry" Broken no
        "An entry of a table has a value that has no meaning.";
    BadChecksum "bad-checksum" Broken no
        "A checksum does not fit what it is of.";
    CopiesDiffer "copies-differ" Broken no
        "Two copies of a header differ.";
    NoFooter "no-footer" Broken yes
        "The footer at the end of the file is missing.";
    BadReference "bad-reference" Broken no
        "The name of another file is too long, or lies outside the header.";
    BadSnapshot "bad-snapshot" Broken no
        "The table of snapshots contradicts itself, or is too long.";
    NoSuchSnapshot "no-such-snapshot" Refused no
        "The image has no snapshot of that name.";
    BadMarker "bad-marker" Broken no
        "A marker is not that of the place where it lies.";
    BadCompressedData "bad-compressed-data" Broken no
        "Compressed data do not inflate to exactly a cluster.";
    BadDescriptor "bad-descriptor" Broken no
        "The text that describes the image is not understood.";
    BadLog "bad-log" Broken no
        "The log does not hold the changes that it has to hold.";
    StaleSectors "stale-sectors" Refused no
        "Sectors that count as never written hold data, so that two programs may see two different disks.";
    BackingFormat "backing-format" Refused yes
        "The image calls the format of its backing file by no name that is known, or by several.";
    BackingOptions "backing-options" Refused yes
        "The image does not only name its backing file, but says how to read it.";
}

/// A reason for a refusal, and the place in the image that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The reason.
    pub reason: Reason,
    /// The offset in the image file, in bytes, of the field or the structure that is wrong.
    pub at: u64,
    /// What was found there: a field's value, an offset or a length.
    pub value: u64,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = self.reason.message().trim_end_matches('.');
        let (name, at, value) = (self.reason.name(), self.at, self.value);
        write!(f, "{name}: {message} (byte {at} of the file, {value:#x})")
    }
}

/// A set of reasons, such as those that a user overrides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReasonSet(u64);

const _: () = assert!(Reason::ALL.len() <= 64);

impl ReasonSet {
    /// The set without any reason.
    pub const EMPTY: Self = Self(0);

    /// The same set with `reason` added.
    #[must_use]
    pub const fn with(self, reason: Reason) -> Self {
        Self(self.0 | 1 << reason as u32)
    }

    /// Whether `reason` is in the set.
    #[must_use]
    pub const fn contains(self, reason: Reason) -> bool {
        self.0 & 1 << reason as u32 != 0
    }
}

/// What was found in one image: each reason once, with the first place that gave it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    list: Vec<Finding>,
    /// The reason for which the headers could not be read to their end.
    stopped: Option<Reason>,
}

impl Findings {
    /// Adds a finding, unless there is one with the same reason.
    pub(crate) fn add(&mut self, reason: Reason, at: u64, value: u64) {
        if !self.has(reason) {
            self.list.push(Finding { reason, at, value });
        }
    }

    /// Adds the finding for which the headers cannot be read any further. Nobody can override it,
    /// whatever its reason is: what lies behind it was not looked at.
    pub(crate) fn stop(&mut self, finding: Finding) {
        self.list.retain(|other| other.reason != finding.reason);
        self.list.push(finding);
        self.stopped = Some(finding.reason);
    }

    /// Whether a user who allows `allowed` overrides `finding`, so that it does not count.
    #[must_use]
    pub fn overrides(&self, finding: &Finding, allowed: ReasonSet) -> bool {
        let reason = finding.reason;
        allowed.contains(reason) && reason.may_be_allowed() && self.stopped != Some(reason)
    }

    /// Whether there is a finding with this reason.
    #[must_use]
    pub fn has(&self, reason: Reason) -> bool {
        self.iter().any(|finding| finding.reason == reason)
    }

    /// Whether nothing was found, so that the image is safe.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All findings, in the order in which they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.list.iter()
    }

    /// The first finding whose reason is not overridden, if there is one.
    #[must_use]
    pub fn first_except(&self, allowed: ReasonSet) -> Option<Finding> {
        let counts = |finding: &&Finding| !self.overrides(finding, allowed);
        self.iter().find(counts).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_of_small_letters_and_hyphens() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            let name = reason.name();
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'));
            assert!(
                Reason::ALL[..index]
                    .iter()
                    .all(|other| other.name() != name)
            );
            assert!(reason.message().ends_with('.'));
        }
    }

    #[test]
    fn what_may_not_be_allowed_stays_refused() {
        let mut findings = Findings::default();
        findings.add(Reason::DirtyBit, 72, 1);
        findings.add(Reason::DataFile, 72, 4);
        let allowed = ReasonSet::EMPTY
            .with(Reason::DirtyBit)
            .with(Reason::DataFile);
        let first = findings.first_except(allowed).map(|finding| finding.reason);
        assert_eq!(first, Some(Reason::DataFile));
    }

    #[test]
    fn what_ended_the_reading_counts_whatever_is_allowed() {
        let all = Reason::ALL.iter();
        let allowed = all.fold(ReasonSet::EMPTY, |set, reason| set.with(*reason));
        let mut findings = Findings::default();
        findings.add(Reason::DirtyBit, 72, 1);
        assert_eq!(findings.first_except(allowed), None);
        let last = Finding {
            reason: Reason::DirtyBit,
            at: 80,
            value: 2,
        };
        findings.stop(last);
        assert_eq!(findings.first_except(allowed), Some(last));
        assert!(!findings.overrides(&last, allowed));
        assert_eq!(findings.iter().count(), 1);
    }
}
