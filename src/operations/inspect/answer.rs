//! What was found out of an image, and what follows from it.

use guest_protocol::{
    CheckMessage, FindingMessage, ImageMessage, ProblemMessage, ReferenceMessage, SnapshotMessage,
};

use super::{json, text};
use crate::config::{ImageConfig, OutputFormat};
use crate::runtime::exit_status;

/// All that the guest has said, within its bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// What the image says of itself.
    pub image: ImageMessage,
    /// The other files that it names.
    pub references: Vec<ReferenceMessage>,
    /// Its first snapshots.
    pub snapshots: Vec<SnapshotMessage>,
    /// What speaks against using it.
    pub findings: Vec<FindingMessage>,
    /// What a check has found.
    pub problems: Vec<ProblemMessage>,
    /// What the check has come to; nothing if none was wanted or possible.
    pub check: Option<CheckMessage>,
}

/// What the host itself knows of an image.
#[derive(Clone, Copy, Debug)]
pub struct FileSize {
    /// How long its file is, in bytes.
    pub length: u64,
    /// How much room that takes on the host, in bytes.
    pub allocated: u64,
}

/// What is to be made of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing speaks against it.
    Safe,
    /// It is not to be used, though it may be whole; or it cannot be checked.
    Refused,
    /// It contradicts itself.
    Broken,
    /// It is whole, and space in it is lost.
    Leaks,
}

impl Verdict {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Safe => "safe",
            Self::Refused => "refused",
            Self::Broken => "broken",
            Self::Leaks => "leaks",
        }
    }

    /// The exit status that says so.
    #[must_use]
    pub const fn status(self) -> u8 {
        match self {
            Self::Safe => 0,
            Self::Refused => exit_status::REFUSED,
            Self::Broken => exit_status::BROKEN,
            Self::Leaks => exit_status::LEAKS,
        }
    }
}

impl Answer {
    pub(super) const fn new(image: ImageMessage) -> Self {
        Self {
            image,
            references: Vec::new(),
            snapshots: Vec::new(),
            findings: Vec::new(),
            problems: Vec::new(),
            check: None,
        }
    }

    /// Whether the image may be used. What the user allows does not count.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let mut counted = self
            .findings
            .iter()
            .filter(|finding| !finding.allowed)
            .peekable();
        if counted.peek().is_none() {
            Verdict::Safe
        } else if counted.any(|finding| finding.broken) {
            Verdict::Broken
        } else {
            Verdict::Refused
        }
    }

    /// Whether the image is sound: what the check found decides, and of the headers only that they
    /// contradict themselves. An image that names another file is none the less sound.
    #[must_use]
    pub fn soundness(&self) -> Verdict {
        let headers = self.verdict();
        match &self.check {
            _ if headers == Verdict::Broken => Verdict::Broken,
            None => Verdict::Refused,
            Some(check) if check.errors > 0 => Verdict::Broken,
            Some(check) if check.leaks > 0 => Verdict::Leaks,
            Some(_) => Verdict::Safe,
        }
    }

    /// Why there is nothing to check, where no finding says it.
    pub(super) fn uncheckable(&self) -> Option<&'static str> {
        let is_raw = self.image.format == "raw";
        (is_raw && self.check.is_none()).then_some("a raw disk has no tables that could be checked")
    }

    /// What is printed of an image's answer: lines for a person or one JSON object, with the line
    /// break at its end.
    #[must_use]
    pub fn shown(&self, config: &ImageConfig, file: FileSize) -> String {
        match config.format {
            OutputFormat::Text => text::lines(self, config, file),
            OutputFormat::Json => json::object(self, config, file) + "\n",
        }
    }

    /// Whether there is a reason of that name.
    pub(super) fn has(&self, reason: &str) -> bool {
        self.findings.iter().any(|finding| finding.name == reason)
    }

    /// The names of the files that are a `kind` to the image.
    pub(super) fn references(&self, kind: &str) -> impl DoubleEndedIterator<Item = &[u8]> {
        let all = self.references.iter();
        all.filter(move |reference| reference.kind == kind)
            .map(|reference| reference.name.as_slice())
    }
}
