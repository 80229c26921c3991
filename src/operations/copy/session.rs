//! Follows what the guest says on COM1, and keeps it within what a copy can have to say.
//!
//! The guest is not trusted: the number of messages is bounded by the number of sectors, progress
//! only rises, nothing follows the completion, and in the end what the guest claims is one
//! condition of success among others.

use guest_protocol::{FrameDecoder, FrameError, GuestMessage, Level, Payload};

use crate::config::Protocol;
use crate::operations::frames;
use crate::report::{hex, message_line};
use crate::runtime::{ReportSource, RunError};

/// Messages beside progress that a session may have: initialisation of two disks takes nine.
const MAX_MESSAGES: u32 = 64;
/// Length of a digest (SHA-256) in bytes.
const DIGEST_LEN: usize = 32;
/// What a text session may send beside its progress lines, in bytes, and for each sector.
const TEXT_BASE: u64 = 64 * 1024;
const TEXT_PER_SECTOR: u64 = 64;

/// What a guest did that stopped too early, as a part of a sentence.
const NO_COMPLETION: &str = "the guest ended without a completion";

/// The guest said what it may not say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The bytes are not frames.
    #[error(
        "the guest sent what is not a message: {0}; if it speaks plain text, that takes \
         --protocol text"
    )]
    Frame(#[from] FrameError),
    /// A message without content, or with the level of another kind.
    #[error("the guest sent a message without content or with the wrong level")]
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
    #[error("the guest reported that {current} sectors are done, but the input has {sectors}")]
    BeyondEnd {
        /// What it said, in sectors.
        current: u64,
        /// What is true of the input.
        sectors: u64,
    },
    /// Progress with another total than the true one.
    #[error("the guest reported that there are {total} sectors, but the input has {sectors}")]
    Total {
        /// What it said, in sectors.
        total: u64,
        /// What is true of the input.
        sectors: u64,
    },
    /// More than a copy has to say.
    #[error("the guest sent more messages than a copy has to send")]
    Flood,
    /// A digest that nobody asked for, or of another length than it has.
    #[error("the guest sent a digest of {0} bytes, which was not asked for or has another length")]
    Digest(usize),
    /// Something behind the completion.
    #[error("the guest sent a message after its completion")]
    AfterCompletion,
}

impl From<ProtocolError> for RunError {
    fn from(error: ProtocolError) -> Self {
        Self::Guest(format!("the copy failed: {error}"))
    }
}

/// One run's conversation.
#[derive(Debug)]
pub struct Session {
    protocol: Protocol,
    /// One for each way on which the guest may speak: COM1 and the console.
    decoders: [FrameDecoder; 2],
    /// True number of input sectors.
    sectors: u64,
    reported: u64,
    messages: u32,
    text_budget: u64,
    error_line: Option<String>,
    completion: Option<(u64, bool)>,
    wants_digest: bool,
    digest: Option<Vec<u8>>,
    digest_ticks: u64,
}

impl Session {
    /// A conversation about `sectors` input sectors.
    #[must_use]
    pub fn new(protocol: Protocol, sectors: u64) -> Self {
        Self {
            protocol,
            decoders: [FrameDecoder::new(), FrameDecoder::new()],
            sectors,
            reported: 0,
            messages: 0,
            text_budget: TEXT_BASE.saturating_add(sectors.saturating_mul(TEXT_PER_SECTOR)),
            error_line: None,
            completion: None,
            wants_digest: false,
            digest: None,
            digest_ticks: 0,
        }
    }

    /// The same conversation, whose completion must have a digest if `wants_digest` says so.
    #[must_use]
    pub fn wanting_digest(self, wants_digest: bool) -> Self {
        Self {
            wants_digest,
            ..self
        }
    }

    /// How long the guest says it has computed the digest, if there is one, in ticks of the
    /// processor.
    #[must_use]
    pub fn digest_ticks(&self) -> Option<u64> {
        self.digest.as_ref().map(|_| self.digest_ticks)
    }

    /// The digest that the guest gave with its completion, as hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> Option<String> {
        self.digest.as_deref().map(hex)
    }

    /// How the guest speaks.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Takes note that so many bytes of plain text have arrived.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::Flood`], which ends the conversation.
    pub fn take_text(&mut self, len: usize) -> Result<(), ProtocolError> {
        self.text_budget = self
            .text_budget
            .checked_sub(len as u64)
            .ok_or(ProtocolError::Flood)?;
        Ok(())
    }

    /// Takes frames, however they are split, and hands each message to `show`.
    ///
    /// # Errors
    ///
    /// The first breach of the protocol, which ends the conversation.
    pub fn receive(
        &mut self,
        source: ReportSource,
        bytes: &[u8],
        mut show: impl FnMut(&GuestMessage),
    ) -> Result<(), ProtocolError> {
        let index = match source {
            ReportSource::Serial => 0,
            ReportSource::Console => 1,
        };
        let mut decoder = std::mem::take(&mut self.decoders[index]);
        let result = frames::receive(&mut decoder, bytes, |message| {
            self.check(&message)?;
            show(&message);
            Ok(())
        });
        self.decoders[index] = decoder;
        result
    }

    fn check(&mut self, message: &GuestMessage) -> Result<(), ProtocolError> {
        if self.completion.is_some() {
            return Err(ProtocolError::AfterCompletion);
        }
        let level = match &message.payload {
            // A copy has nothing to say of images.
            None
            | Some(
                Payload::Image(_)
                | Payload::Reference(_)
                | Payload::Snapshot(_)
                | Payload::Finding(_)
                | Payload::Problem(_)
                | Payload::Check(_),
            ) => return Err(ProtocolError::Shape),
            Some(Payload::Init(_) | Payload::Capacity(_)) => Level::Info,
            Some(Payload::Progress(progress)) => {
                let current = progress.current;
                self.check_progress(current, progress.total)?;
                self.reported = current;
                Level::Progress
            }
            Some(Payload::Error(_)) => {
                self.error_line = self.error_line.take().or_else(|| message_line(message));
                Level::Error
            }
            Some(Payload::Complete(complete)) => {
                self.completion = Some((complete.count, complete.success));
                let given = !complete.digest.is_empty();
                if given && (!self.wants_digest || complete.digest.len() != DIGEST_LEN) {
                    return Err(ProtocolError::Digest(complete.digest.len()));
                }
                self.digest_ticks = complete.digest_ticks;
                self.digest = given.then(|| complete.digest.clone());
                Level::Complete
            }
        };
        if level != Level::Progress {
            self.messages += 1;
            if self.messages > MAX_MESSAGES {
                return Err(ProtocolError::Flood);
            }
        }
        if message.level != i32::from(level) {
            return Err(ProtocolError::Shape);
        }
        Ok(())
    }

    fn check_progress(&self, current: u64, total: u64) -> Result<(), ProtocolError> {
        let (sectors, reported) = (self.sectors, self.reported);
        if total != sectors {
            return Err(ProtocolError::Total { total, sectors });
        }
        if current > sectors {
            return Err(ProtocolError::BeyondEnd { current, sectors });
        }
        if current <= reported {
            return Err(ProtocolError::Falling { current, reported });
        }
        Ok(())
    }

    /// Whether what was said amounts to a success. Over text only the exit status counts, which
    /// is somebody else's to check.
    ///
    /// # Errors
    ///
    /// What is missing, as a part of a sentence.
    pub fn verdict(&self) -> Result<(), String> {
        if self.protocol == Protocol::Text {
            return Ok(());
        }
        if self.is_mid_frame() {
            return Err("the guest ended in the middle of a message".to_owned());
        }
        match self.completion {
            Some((count, true)) if count == self.sectors => {
                match self.wants_digest && self.digest.is_none() {
                    true => Err("the guest gave no digest of what it copied".to_owned()),
                    false => Ok(()),
                }
            }
            Some((count, true)) => Err(format!(
                "the guest claimed success with {count} of {} sectors",
                self.sectors
            )),
            Some((count, false)) => Err(format!(
                "the guest gave up after {count} of {} sectors{}",
                self.sectors,
                self.error_suffix()
            )),
            None => Err(match &self.error_line {
                Some(line) => format!("{NO_COMPLETION}: {line}"),
                None => format!(
                    "{NO_COMPLETION}, which has to be its last message (docs/guest.md); if it speaks \
                     plain text, that takes --protocol text"
                ),
            }),
        }
    }

    /// What the guest said of a failure, for one that ended with another exit status than 0.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        match (self.protocol, self.completion) {
            (Protocol::Text, _) => None,
            (_, Some((_, true))) => Some("the guest claimed success".to_owned()),
            (_, None) if self.error_line.is_none() && !self.is_mid_frame() => {
                Some(NO_COMPLETION.to_owned())
            }
            _ => self.verdict().err(),
        }
    }

    fn is_mid_frame(&self) -> bool {
        self.decoders.iter().any(FrameDecoder::is_mid_frame)
    }

    fn error_suffix(&self) -> String {
        self.error_line
            .as_ref()
            .map_or_else(String::new, |line| format!(": {line}"))
    }
}

#[cfg(test)]
mod tests;
