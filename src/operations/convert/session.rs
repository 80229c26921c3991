//! Follows what the guest of a conversion says, and keeps it within what it can have to say.
//!
//! The guest is not trusted: it says how large the disk is and how long the output, and the limit
//! holds for that; progress is reported only of a disk within the limit, and only rises, so that the
//! number of messages is bounded by what the user allows; nothing follows the completion. What it says of
//! an image is a reason to refuse it, and never one to take it.

use guest_protocol::{ErrorMessage, FrameDecoder, GuestMessage, Level, NO_STATUS, Payload};

use super::advice::advice;
use crate::operations::frames;
use crate::operations::session::{Account, ProtocolError};
use crate::report::{message_line, quote_detail};

/// Messages beside progress that a session may have: four for each disk of a full machine, and a
/// few.
const MAX_MESSAGES: u32 = 128;
/// Bytes of a sector in messages.
const SECTOR: u64 = 512;

/// Why there is no conversion, as the guest tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// What it is.
    pub kind: ComplaintKind,
    /// The file that it is about, if it is one that is read: 0 is the input, and the backing files
    /// follow. There need not be a file of that number.
    pub source: Option<usize>,
    /// Why, on one line.
    pub text: String,
}

/// What a guest complains of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComplaintKind {
    /// The image is refused.
    Refused,
    /// The image contradicts itself.
    Broken,
    /// The output has no room for what is to be written, which has at least so many bytes.
    Room(u64),
    /// Anything else.
    Failed,
}

impl Complaint {
    fn failed(text: &str) -> Self {
        Self {
            kind: ComplaintKind::Failed,
            source: None,
            text: text.to_owned(),
        }
    }
}

/// One run's conversation.
#[derive(Debug)]
pub struct Session {
    decoder: FrameDecoder,
    account: Account,
    /// How large the disk may be, in bytes.
    largest_disk: u64,
    disk: Option<u64>,
    length: Option<u64>,
    is_short: bool,
    error: Option<Complaint>,
}

impl Session {
    /// A conversation about a disk of at most `largest_disk` bytes, at whose end there is a digest if one is
    /// wanted.
    #[must_use]
    pub fn new(wants_digest: bool, largest_disk: u64) -> Self {
        let mut account = Account::new("a conversion", MAX_MESSAGES);
        account.want_digest(wants_digest);
        Self {
            decoder: FrameDecoder::new(),
            account,
            largest_disk,
            disk: None,
            length: None,
            is_short: false,
            error: None,
        }
    }

    /// How large the disk in the image is, in bytes, once the guest has said so.
    #[must_use]
    pub const fn disk(&self) -> Option<u64> {
        self.disk
    }

    /// How long the output is, in bytes, once the guest has said so.
    #[must_use]
    pub const fn length(&self) -> Option<u64> {
        self.length
    }

    /// Whether the guest has said that zeros stand for what the last image leaves to a file that was
    /// not given.
    #[must_use]
    pub const fn is_short(&self) -> bool {
        self.is_short
    }

    /// How many bytes of the disk are done, as far as the guest has reported it.
    #[must_use]
    pub const fn reported(&self) -> u64 {
        self.account.reported().saturating_mul(SECTOR)
    }

    /// The digest that the guest gave with its completion, as hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> Option<String> {
        self.account.digest()
    }

    /// Takes frames, however they are split, and hands each message to `show`.
    ///
    /// # Errors
    ///
    /// The first breach of the protocol, which ends the conversation.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        mut show: impl FnMut(&GuestMessage),
    ) -> Result<(), ProtocolError> {
        let take = |session: &mut Self, message: GuestMessage| {
            session.check(&message)?;
            show(&message);
            Ok(())
        };
        frames::receive(self, |session| &mut session.decoder, bytes, take)
    }

    fn check(&mut self, message: &GuestMessage) -> Result<(), ProtocolError> {
        self.account.check_open()?;
        let level = match &message.payload {
            Some(Payload::Init(_)) => Level::Info,
            Some(Payload::Capacity(capacity)) => {
                let known = match capacity.device.as_str() {
                    "input" => self.disk.replace(capacity.bytes),
                    "output" => self.length.replace(capacity.bytes),
                    _ => None,
                };
                if known.is_some() {
                    return Err(ProtocolError::Length);
                }
                Level::Info
            }
            Some(Payload::Progress(progress)) => {
                let disk = self.disk.ok_or(ProtocolError::Shape)?;
                // The size alone is no breach: a guest also tells the one that it refuses.
                if disk > self.largest_disk {
                    let most = self.largest_disk;
                    return Err(ProtocolError::TooLarge { size: disk, most });
                }
                self.account.progress(progress, disk.div_ceil(SECTOR))?;
                Level::Progress
            }
            Some(Payload::Finding(finding)) if finding.name == "backing-file" => {
                self.is_short = true;
                Level::Info
            }
            Some(Payload::Error(error)) => {
                let complaint = || complaint(error, message);
                self.error.get_or_insert_with(complaint);
                Level::Error
            }
            Some(Payload::Complete(complete)) => {
                self.account.complete(complete)?;
                Level::Complete
            }
            _ => return Err(ProtocolError::Shape),
        };
        self.account.count(message, level)
    }

    /// How long the output is in bytes, if what was said amounts to a success.
    ///
    /// # Errors
    ///
    /// Why it does not amount to one.
    pub fn verdict(&self) -> Result<u64, Complaint> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        let failed = |text: &str| Err(Complaint::failed(text));
        if self.decoder.is_mid_frame() {
            return failed("the guest ended in the middle of a message");
        }
        let count = match self.account.completion() {
            Some((count, true)) => count,
            Some((count, false)) => {
                return failed(&format!("the guest gave up after {count} sectors"));
            }
            None => return failed("the guest ended without a completion"),
        };
        let (Some(disk), Some(length)) = (self.disk, self.length) else {
            return failed("the guest did not say how large the disk is, and how long the output");
        };
        if count != disk.div_ceil(SECTOR) {
            return failed(&format!(
                "the guest claimed success with {count} of {} sectors",
                disk.div_ceil(SECTOR)
            ));
        }
        if self.account.lacks_digest() {
            return failed("the guest gave no digest of what it converted");
        }
        Ok(length)
    }
}

/// What an error of the guest is. Its text is quoted: it is that of a program that may have been
/// taken over.
fn complaint(error: &ErrorMessage, message: &GuestMessage) -> Complaint {
    let source = match error.device.as_str() {
        "input" => Some(0),
        "backing" => usize::try_from(error.number)
            .ok()
            .map(|number| number.saturating_add(1)),
        _ => None,
    };
    let kind = match error.op.as_str() {
        "refused" if error.status == NO_STATUS => ComplaintKind::Refused,
        "broken" if error.status == NO_STATUS => ComplaintKind::Broken,
        "room" => ComplaintKind::Room(error.sector.saturating_mul(SECTOR)),
        _ => ComplaintKind::Failed,
    };
    let quoted = || quote_detail(error.detail.trim());
    let text = match kind {
        ComplaintKind::Refused => match advice(&error.remedies, source != Some(0)) {
            Some(advice) => format!("{}; {advice}", quoted()),
            None => quoted(),
        },
        ComplaintKind::Broken => quoted(),
        ComplaintKind::Room(_) | ComplaintKind::Failed => message_line(message).unwrap_or_default(),
    };
    Complaint { kind, source, text }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use guest_protocol::{
        capacity_message, complete_message, complete_with_digest, encode_framed, init_message,
        progress_message,
    };

    use super::*;

    fn receive(session: &mut Session, message: &GuestMessage) -> Result<(), ProtocolError> {
        let mut buffer = [0; 1024];
        let len = encode_framed(message, &mut buffer).unwrap();
        session.receive(&buffer[..len], |_| {})
    }

    const LARGEST: u64 = 1 << 20;

    fn new_session() -> Session {
        Session::new(false, LARGEST)
    }

    /// After the disk's size and the output's length.
    fn with_sizes(disk: u64, length: u64) -> Session {
        let mut session = new_session();
        receive(&mut session, &capacity_message("input", 9, disk)).unwrap();
        receive(&mut session, &capacity_message("output", 0, length)).unwrap();
        session
    }

    fn with_length(length: u64) -> Session {
        with_sizes(length, length)
    }

    #[test]
    fn a_success_has_the_declared_length() {
        let mut session = with_length(1000);
        receive(&mut session, &progress_message("convert", 2, 2, 100)).unwrap();
        receive(&mut session, &complete_message("convert", 2, true)).unwrap();
        assert_eq!(session.verdict(), Ok(1000));
        for (count, success) in [(1, true), (3, true), (2, false)] {
            let mut session = with_length(1000);
            receive(&mut session, &complete_message("convert", count, success)).unwrap();
            let complaint = session.verdict().unwrap_err();
            assert_eq!(complaint.kind, ComplaintKind::Failed);
        }
        let mut session = new_session();
        receive(&mut session, &complete_message("convert", 0, true)).unwrap();
        assert!(session.verdict().is_err());
        for device in ["input", "output"] {
            let mut session = new_session();
            receive(&mut session, &capacity_message(device, 0, 0)).unwrap();
            receive(&mut session, &complete_message("convert", 0, true)).unwrap();
            assert!(session.verdict().is_err(), "{device}");
        }
    }

    #[test]
    fn an_output_may_be_shorter_or_longer_than_its_disk() {
        for length in [0, 512, 100_000] {
            let mut session = with_sizes(1000, length);
            receive(&mut session, &progress_message("convert", 1, 2, 50)).unwrap();
            assert_eq!(session.reported(), 512);
            receive(&mut session, &complete_message("convert", 2, true)).unwrap();
            assert_eq!(session.verdict(), Ok(length));
        }
    }

    #[test]
    fn a_length_is_said_once_and_progress_rises_to_it() {
        for device in ["input", "output"] {
            let mut session = with_length(1000);
            let again = receive(&mut session, &capacity_message(device, 0, 5));
            assert_eq!(again, Err(ProtocolError::Length));
        }
        for (current, total) in [(1, 3), (3, 2), (0, 2)] {
            let mut session = with_length(1000);
            let error = receive(
                &mut session,
                &progress_message("convert", current, total, 0),
            );
            assert!(error.is_err(), "{current} of {total}");
        }
    }

    #[test]
    fn progress_is_only_that_of_a_disk_within_the_limit() {
        for (size, allowed) in [(LARGEST, true), (LARGEST + 1, false), (u64::MAX, false)] {
            let mut session = new_session();
            receive(&mut session, &capacity_message("input", 9, size)).unwrap();
            let report = progress_message("convert", 1, size.div_ceil(SECTOR), 0);
            let too_large = ProtocolError::TooLarge {
                size,
                most: LARGEST,
            };
            let expected = if allowed { Ok(()) } else { Err(too_large) };
            assert_eq!(receive(&mut session, &report), expected, "{size}");
        }
    }

    /// What a session makes of this error.
    fn complaint_of(error: ErrorMessage) -> Complaint {
        let mut session = new_session();
        let message = GuestMessage {
            level: Level::Error.into(),
            payload: Some(Payload::Error(error)),
        };
        receive(&mut session, &message).unwrap();
        receive(&mut session, &complete_message("convert", 0, false)).unwrap();
        session.verdict().unwrap_err()
    }

    fn error(op: &str, detail: &str) -> ErrorMessage {
        ErrorMessage {
            op: op.to_owned(),
            device: "input".to_owned(),
            status: NO_STATUS,
            detail: detail.to_owned(),
            ..ErrorMessage::default()
        }
    }

    #[test]
    fn what_is_said_of_an_image_is_quoted_and_sorted() {
        let refused = complaint_of(error("refused", "encrypted: \u{1b}[2J"));
        assert_eq!(refused.kind, ComplaintKind::Refused);
        assert_eq!(refused.text, r#""encrypted: \u{1b}[2J""#);
        let dirty = complaint_of(ErrorMessage {
            remedies: vec!["marked-dirty".to_owned()],
            ..error("refused", "marked-dirty: x")
        });
        let advice = r#""marked-dirty: x"; --allow marked-dirty uses it all the same"#;
        assert_eq!(dirty.text, advice);
        for (op, kind) in [
            ("broken", ComplaintKind::Broken),
            ("read", ComplaintKind::Failed),
            ("room", ComplaintKind::Room(7 * 512)),
        ] {
            let complaint = complaint_of(ErrorMessage {
                sector: 7,
                ..error(op, "overlap")
            });
            assert_eq!(complaint.kind, kind, "{op}");
        }
    }

    #[test]
    fn what_is_said_of_an_image_has_no_status_of_a_request() {
        for op in ["refused", "broken"] {
            let complaint = complaint_of(ErrorMessage {
                status: 1,
                ..error(op, "overlap")
            });
            assert_eq!(complaint.kind, ComplaintKind::Failed, "{op}");
        }
    }

    #[test]
    fn a_backing_file_is_helped_in_another_way_than_the_image() {
        for (device, option) in [("input", "--image-format raw"), ("backing", "--allow")] {
            let complaint = complaint_of(ErrorMessage {
                device: device.to_owned(),
                remedies: vec!["unknown-format".to_owned()],
                ..error("refused", "unknown-format")
            });
            assert!(complaint.text.contains(option), "{complaint:?}");
        }
    }

    #[test]
    fn a_guest_may_say_of_the_last_image_that_it_lacks_something_and_nothing_else() {
        let finding = |name: &str| GuestMessage {
            level: Level::Info.into(),
            payload: Some(Payload::Finding(guest_protocol::FindingMessage {
                name: name.to_owned(),
                ..Default::default()
            })),
        };
        let mut session = with_length(1000);
        assert!(!session.is_short());
        receive(&mut session, &finding("backing-file")).unwrap();
        assert!(session.is_short());
        let other = receive(&mut session, &finding("encrypted"));
        assert_eq!(other, Err(ProtocolError::Shape));
    }

    #[test]
    fn the_file_that_is_meant_is_known_by_its_number() {
        let of = |device: &str, number| {
            let complaint = complaint_of(ErrorMessage {
                device: device.to_owned(),
                number,
                ..error("broken", "x")
            });
            complaint.source
        };
        assert_eq!(of("input", 0), Some(0));
        assert_eq!(of("backing", 0), Some(1));
        assert_eq!(of("backing", 12), Some(13));
        assert_eq!(of("output", 0), None);
    }

    #[test]
    fn nothing_is_cut_off_what_the_guest_finds_in_an_image() {
        for reason in guest_formats::Reason::ALL {
            let finding = guest_formats::Finding {
                reason: *reason,
                at: u64::MAX,
                value: u64::MAX,
            };
            let detail = finding.to_string();
            let complaint = complaint_of(error("broken", &detail));
            assert_eq!(complaint.text, format!("\"{detail}\""));
            let failed = complaint_of(error("read", &detail));
            assert!(
                failed.text.ends_with(&format!("\"{detail}\"")),
                "{failed:?}"
            );
        }
    }

    #[test]
    fn floods_strangers_and_what_follows_the_completion_end_the_session() {
        let mut session = new_session();
        let init = init_message("probe", "input", 0);
        let flood = (0..1000).find_map(|_| receive(&mut session, &init).err());
        assert_eq!(flood, Some(ProtocolError::Flood("a conversion")));
        let mut session = new_session();
        let done = complete_message("convert", 0, true);
        receive(&mut session, &done).unwrap();
        let again = receive(&mut session, &done);
        assert_eq!(again, Err(ProtocolError::AfterCompletion));
        let digest = complete_with_digest("convert", 0, &[1; 32], 0);
        let error = receive(&mut new_session(), &digest);
        assert_eq!(error, Err(ProtocolError::Digest(32)));
    }
}
