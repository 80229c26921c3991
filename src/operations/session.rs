//! What a guest may not say, whatever the work is; and what a copy's and a conversion's session hold it
//! to: messages are bounded in number, progress only rises and ends at the true total, and behind the
//! completion, which brings a digest if one is wanted, nothing follows.

use guest_protocol::{CompleteMessage, FrameError, GuestMessage, Level, ProgressMessage};

use crate::report::hex;

/// Length of a digest (SHA-256) in bytes.
const DIGEST_LEN: usize = 32;

/// The guest said what it may not say. Each text is a sentence without its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The bytes are not frames.
    #[error("the guest sent what is not a message: {0}")]
    Frame(#[from] FrameError),
    /// A message without content, one that this work has no use for, or one with the level of
    /// another kind.
    #[error(
        "the guest sent a message without content, of a kind that has no place here, or with the wrong level"
    )]
    Shape,
    /// Progress that does not rise.
    #[error("the guest reported progress that does not rise: {current} sectors after {reported}")]
    Falling {
        /// What it said, in sectors.
        current: u64,
        /// What it had said before.
        reported: u64,
    },
    /// Progress beyond the end.
    #[error("the guest reported that {current} sectors are done, but the disk has {sectors}")]
    BeyondEnd {
        /// What it said, in sectors.
        current: u64,
        /// How many sectors there are.
        sectors: u64,
    },
    /// Progress with another total than the true one.
    #[error("the guest reported that there are {total} sectors, but the disk has {sectors}")]
    Total {
        /// What it said, in sectors.
        total: u64,
        /// How many sectors there are.
        sectors: u64,
    },
    /// Progress of a disk that is larger than the user allows.
    #[error(
        "the guest reported progress of a disk of {size} bytes, but it may have {most} at most"
    )]
    TooLarge {
        /// How large it says the disk is, in bytes.
        size: u64,
        /// How large it may be, in bytes.
        most: u64,
    },
    /// Of an image: a word that is too long, or not a word, or not one that exists.
    #[error("the guest sent a word that means nothing for {0}")]
    Word(&'static str),
    /// A second length, of a conversion's disk or output.
    #[error("the guest said twice how long the output is, or how large the disk")]
    Length,
    /// More messages, or more text, than the work can take.
    #[error("the guest sent more messages than {0} has to send")]
    Flood(&'static str),
    /// A digest that nobody asked for, or of another length than it has.
    #[error("the guest sent a digest of {0} bytes, which was not asked for or has another length")]
    Digest(usize),
    /// Something behind the completion.
    #[error("the guest sent a message after its completion")]
    AfterCompletion,
}

/// What is kept of the messages of one run.
#[derive(Debug)]
pub(super) struct Account {
    /// The work, as a part of a sentence.
    work: &'static str,
    /// Messages beside progress that may still come.
    left: u32,
    /// The sectors that are done, as far as the guest has reported it.
    reported: u64,
    wants_digest: bool,
    completion: Option<(u64, bool)>,
    digest: Option<Vec<u8>>,
    digest_ticks: u64,
}

impl Account {
    /// For `work`, a part of a sentence, which takes at most `most` messages beside progress.
    pub(super) const fn new(work: &'static str, most: u32) -> Self {
        Self {
            work,
            left: most,
            reported: 0,
            wants_digest: false,
            completion: None,
            digest: None,
            digest_ticks: 0,
        }
    }

    /// Says whether the completion must bring a digest.
    pub(super) const fn want_digest(&mut self, wants_digest: bool) {
        self.wants_digest = wants_digest;
    }

    /// How many sectors are done, as far as the guest has reported it.
    pub(super) const fn reported(&self) -> u64 {
        self.reported
    }

    /// The count of sectors and whether it was a success, once the guest has said that it is done.
    pub(super) const fn completion(&self) -> Option<(u64, bool)> {
        self.completion
    }

    /// The digest that came with the completion, as hexadecimal digits.
    pub(super) fn digest(&self) -> Option<String> {
        self.digest.as_deref().map(hex)
    }

    /// How long the guest says it has computed the digest, if there is one, in ticks of the
    /// processor.
    pub(super) fn digest_ticks(&self) -> Option<u64> {
        self.digest.as_ref().map(|_| self.digest_ticks)
    }

    /// Whether a digest is wanted and has not come.
    pub(super) const fn lacks_digest(&self) -> bool {
        self.wants_digest && self.digest.is_none()
    }

    /// Fails if the work was complete before the message that has just come.
    pub(super) const fn check_open(&self) -> Result<(), ProtocolError> {
        match self.completion {
            Some(_) => Err(ProtocolError::AfterCompletion),
            None => Ok(()),
        }
    }

    /// Takes a report of progress, of which `sectors` is the true total.
    pub(super) fn progress(
        &mut self,
        progress: &ProgressMessage,
        sectors: u64,
    ) -> Result<(), ProtocolError> {
        let (current, total) = (progress.current, progress.total);
        let reported = self.reported;
        if total != sectors {
            return Err(ProtocolError::Total { total, sectors });
        }
        if current > sectors {
            return Err(ProtocolError::BeyondEnd { current, sectors });
        }
        if current <= reported {
            return Err(ProtocolError::Falling { current, reported });
        }
        self.reported = current;
        Ok(())
    }

    /// Takes the completion.
    pub(super) fn complete(&mut self, complete: &CompleteMessage) -> Result<(), ProtocolError> {
        self.completion = Some((complete.count, complete.success));
        let given = !complete.digest.is_empty();
        if given && (!self.wants_digest || complete.digest.len() != DIGEST_LEN) {
            return Err(ProtocolError::Digest(complete.digest.len()));
        }
        self.digest_ticks = complete.digest_ticks;
        self.digest = given.then(|| complete.digest.clone());
        Ok(())
    }

    /// Counts `message`, whose content has a place among those of `level`.
    pub(super) fn count(
        &mut self,
        message: &GuestMessage,
        level: Level,
    ) -> Result<(), ProtocolError> {
        if level != Level::Progress {
            let left = self.left.checked_sub(1);
            self.left = left.ok_or(ProtocolError::Flood(self.work))?;
        }
        match message.level == i32::from(level) {
            true => Ok(()),
            false => Err(ProtocolError::Shape),
        }
    }

    /// The error of who has sent too much.
    pub(super) const fn flood(&self) -> ProtocolError {
        ProtocolError::Flood(self.work)
    }
}
