//! Follows what the guest says on COM1 or the console, and keeps it within what a copy can have to
//! say.
//!
//! The guest is not trusted: the number of messages is bounded by the number of sectors, progress
//! only rises, nothing follows the completion, and in the end what the guest claims is one
//! condition of success among others.

use guest_protocol::{FrameDecoder, GuestMessage, Level, Payload};

use crate::config::Protocol;
use crate::operations::frames;
use crate::operations::session::{Account, ProtocolError};
use crate::report::message_line;
use crate::runtime::{ReportSource, RunError};

/// Messages beside progress that a session may have: initialisation of two disks takes nine.
const MAX_MESSAGES: u32 = 64;
/// What a text session may send beside its progress lines, in bytes, and for each sector.
const TEXT_BASE: u64 = 64 * 1024;
const TEXT_PER_SECTOR: u64 = 64;

/// What is said of a guest that stopped too early, as a part of a sentence.
const NO_COMPLETION: &str = "the guest ended without a completion";

/// What a breach of the protocol means for a copy.
pub(super) fn breach(error: ProtocolError) -> RunError {
    let advice = match error {
        ProtocolError::Frame(_) => "; if it speaks plain text, that takes --protocol text",
        _ => "",
    };
    RunError::Guest(format!("the copy failed: {error}{advice}"))
}

/// One run's conversation.
#[derive(Debug)]
pub struct Session {
    protocol: Protocol,
    /// One for each way on which the guest may speak: COM1 and the console.
    decoders: [FrameDecoder; 2],
    /// True number of input sectors.
    sectors: u64,
    account: Account,
    text_budget: u64,
    error_line: Option<String>,
}

impl Session {
    /// A conversation about `sectors` input sectors.
    #[must_use]
    pub fn new(protocol: Protocol, sectors: u64) -> Self {
        Self {
            protocol,
            decoders: [FrameDecoder::new(), FrameDecoder::new()],
            sectors,
            account: Account::new("a copy", MAX_MESSAGES),
            text_budget: TEXT_BASE.saturating_add(sectors.saturating_mul(TEXT_PER_SECTOR)),
            error_line: None,
        }
    }

    /// The same conversation, whose completion must have a digest if `wants_digest` says so.
    #[must_use]
    pub fn wanting_digest(mut self, wants_digest: bool) -> Self {
        self.account.want_digest(wants_digest);
        self
    }

    /// How long the guest says it has computed the digest, if there is one, in ticks of the
    /// processor.
    #[must_use]
    pub fn digest_ticks(&self) -> Option<u64> {
        self.account.digest_ticks()
    }

    /// The digest that the guest gave with its completion, as hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> Option<String> {
        self.account.digest()
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
            .ok_or_else(|| self.account.flood())?;
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
        let take = |session: &mut Self, message: GuestMessage| {
            session.check(&message)?;
            show(&message);
            Ok(())
        };
        frames::receive(self, |session| &mut session.decoders[index], bytes, take)
    }

    fn check(&mut self, message: &GuestMessage) -> Result<(), ProtocolError> {
        self.account.check_open()?;
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
                self.account.progress(progress, self.sectors)?;
                Level::Progress
            }
            Some(Payload::Error(_)) => {
                self.error_line = self.error_line.take().or_else(|| message_line(message));
                Level::Error
            }
            Some(Payload::Complete(complete)) => {
                self.account.complete(complete)?;
                Level::Complete
            }
        };
        self.account.count(message, level)
    }

    /// Whether what was said amounts to a success. Of a guest that speaks text only the exit status
    /// counts, which the caller checks.
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
        match (self.account.completion(), &self.error_line) {
            (Some((_, true)), Some(line)) => Err(format!(
                "the guest reported an error and claimed success all the same: {line}"
            )),
            (Some((count, true)), None) if count == self.sectors => {
                match self.account.lacks_digest() {
                    true => Err("the guest gave no digest of what it copied".to_owned()),
                    false => Ok(()),
                }
            }
            (Some((count, true)), None) => Err(format!(
                "the guest claimed success with {count} of {} sectors",
                self.sectors
            )),
            (Some((count, false)), line) => {
                let suffix = line
                    .as_ref()
                    .map_or_else(String::new, |line| format!(": {line}"));
                Err(format!(
                    "the guest gave up after {count} of {} sectors{suffix}",
                    self.sectors
                ))
            }
            (None, Some(line)) => Err(format!("{NO_COMPLETION}: {line}")),
            (None, None) => Err(format!(
                "{NO_COMPLETION}, which has to be its last message (docs/guest.md); if it speaks \
                 plain text, that takes --protocol text"
            )),
        }
    }

    /// What the guest said of a failure, for one that ended with another exit status than 0.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        match (self.protocol, self.account.completion()) {
            (Protocol::Text, _) => None,
            (_, Some((_, true))) if self.error_line.is_none() => {
                Some("the guest claimed success".to_owned())
            }
            (_, None) if self.error_line.is_none() && !self.is_mid_frame() => {
                Some(NO_COMPLETION.to_owned())
            }
            _ => self.verdict().err(),
        }
    }

    fn is_mid_frame(&self) -> bool {
        self.decoders.iter().any(FrameDecoder::is_mid_frame)
    }
}

#[cfg(test)]
mod tests;
