//! Follows what the guest says, and keeps it within what can be said of an image.
//!
//! The guest is not trusted: each kind of message comes at most so often, words are short and
//! plain, names of formats, reasons and kinds of references are those that exist, and nothing follows
//! the completion, which counts what came before it.

use guest_protocol::{FrameDecoder, GuestMessage, ImageMessage, Level, Payload};

use super::answer::Answer;
use crate::config::{ImageFormat, ImageReason, ImageTask};
use crate::operations::frames;
use crate::operations::session::ProtocolError;
use crate::report::message_line;

/// What another file can be to an image. In the answer these are keys, as the verdict is one.
const REFERENCE_KINDS: [&str; 5] = ["backing", "backing-format", "data", "extent", "parent"];
/// How often each kind of message may come: what the parsers keep at most.
const MOST_REFERENCES: usize = 16;
const MOST_SNAPSHOTS: usize = 256;
const MOST_FINDINGS: usize = 64;
const MOST_PROBLEMS: usize = 64;
/// The longest word and the longest sentence, in bytes.
const LONGEST_WORD: usize = 40;
const LONGEST_TEXT: usize = 200;
/// The longest name of a file or a snapshot, in bytes.
const LONGEST_NAME: usize = 1024;

/// One run's conversation.
#[derive(Debug)]
pub struct Session {
    task: ImageTask,
    decoder: FrameDecoder,
    answer: Option<Answer>,
    messages: u64,
    error_line: Option<String>,
    completion: Option<(u64, bool)>,
}

impl Session {
    /// A conversation for `task`.
    #[must_use]
    pub const fn new(task: ImageTask) -> Self {
        Self {
            task,
            decoder: FrameDecoder::new(),
            answer: None,
            messages: 0,
            error_line: None,
            completion: None,
        }
    }

    /// Takes frames, however they are split.
    ///
    /// # Errors
    ///
    /// The first breach of the protocol, which ends the conversation.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        frames::receive(self, |session| &mut session.decoder, bytes, Self::take)
    }

    /// What was said of the image.
    #[must_use]
    pub const fn answer(&self) -> Option<&Answer> {
        self.answer.as_ref()
    }

    /// Whether what was said is a whole answer.
    ///
    /// # Errors
    ///
    /// What is missing, as a part of a sentence.
    pub fn verdict(&self) -> Result<(), String> {
        if self.decoder.is_mid_frame() {
            return Err("the guest ended in the middle of a message".to_owned());
        }
        let error = self.error_line.as_ref();
        let suffix = error.map_or_else(String::new, |line| format!(": {line}"));
        match self.completion {
            Some((_, true)) if error.is_some() => Err(format!("the guest failed{suffix}")),
            Some((count, true)) if count == self.messages && self.answer.is_some() => Ok(()),
            Some((count, true)) => Err(format!(
                "the guest claimed to have sent {count} messages, and {} came",
                self.messages
            )),
            Some((_, false)) => Err(format!("the guest gave up{suffix}")),
            None => Err(format!("the guest ended without a completion{suffix}")),
        }
    }

    fn take(&mut self, message: GuestMessage) -> Result<(), ProtocolError> {
        if self.completion.is_some() {
            return Err(ProtocolError::AfterCompletion);
        }
        if self.error_line.is_none() && matches!(message.payload, Some(Payload::Error(_))) {
            self.error_line = message_line(&message);
            return level(&message, Level::Error);
        }
        if let Some(Payload::Complete(complete)) = &message.payload {
            self.completion = Some((complete.count, complete.success));
            return level(&message, Level::Complete);
        }
        level(&message, Level::Info)?;
        self.messages += 1;
        match message.payload {
            Some(Payload::Image(image)) if self.answer.is_none() => {
                check_image(&image)?;
                self.answer = Some(Answer::new(image));
                Ok(())
            }
            Some(payload) => {
                let answer = self.answer.as_mut().ok_or(ProtocolError::Shape)?;
                add(answer, payload, self.task)
            }
            None => Err(ProtocolError::Shape),
        }
    }
}

fn level(message: &GuestMessage, expected: Level) -> Result<(), ProtocolError> {
    match message.level == i32::from(expected) {
        true => Ok(()),
        false => Err(ProtocolError::Shape),
    }
}

/// Adds one message to what was said before.
fn add(answer: &mut Answer, payload: Payload, task: ImageTask) -> Result<(), ProtocolError> {
    let checks = task == ImageTask::Check;
    match payload {
        Payload::Reference(reference) => {
            if !REFERENCE_KINDS.contains(&reference.kind.as_str()) {
                return Err(ProtocolError::Word("what a file is to the image"));
            }
            name(&reference.name, "the name of a file")?;
            push(&mut answer.references, reference, MOST_REFERENCES)
        }
        Payload::Snapshot(snapshot) => {
            name(&snapshot.id, "a snapshot's id")?;
            name(&snapshot.name, "a snapshot's name")?;
            push(&mut answer.snapshots, snapshot, MOST_SNAPSHOTS)
        }
        Payload::Finding(finding) => {
            let known = ImageReason::from_name(&finding.name);
            let known = known.ok_or(ProtocolError::Word("a reason"))?;
            if finding.text.len() > LONGEST_TEXT || (finding.allowed && !known.is_overridable()) {
                return Err(ProtocolError::Word("a reason"));
            }
            push(&mut answer.findings, finding, MOST_FINDINGS)
        }
        Payload::Problem(problem) if checks => {
            word(&problem.name, "a problem")?;
            push(&mut answer.problems, problem, MOST_PROBLEMS)
        }
        Payload::Check(check) if checks && answer.check.is_none() => {
            answer.check = Some(check);
            Ok(())
        }
        _ => Err(ProtocolError::Shape),
    }
}

fn check_image(image: &ImageMessage) -> Result<(), ProtocolError> {
    let formats = [&image.format].into_iter().chain(&image.fitting);
    for format in formats {
        if !ImageFormat::NAMES.contains(&format.as_str()) {
            return Err(ProtocolError::Word("a format"));
        }
    }
    if !matches!(image.partitions.as_str(), "" | "mbr" | "gpt") {
        return Err(ProtocolError::Word("a partition table"));
    }
    for text in [
        &image.variant,
        &image.compression,
        &image.encryption,
        &image.file_system,
    ] {
        if !text.is_empty() {
            word(text, "a property of the image")?;
        }
    }
    for feature in image
        .features
        .iter()
        .filter(|feature| !feature.name.is_empty())
    {
        word(&feature.name, "a feature")?;
    }
    Ok(())
}

/// Fails unless `text` is a word of letters, digits, `-`, `_` and `.`, and not too long.
fn word(text: &str, what: &'static str) -> Result<(), ProtocolError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match !text.is_empty() && text.len() <= LONGEST_WORD && text.bytes().all(is_plain) {
        true => Ok(()),
        false => Err(ProtocolError::Word(what)),
    }
}

/// Fails if a name is too long. It may have any bytes.
fn name(bytes: &[u8], what: &'static str) -> Result<(), ProtocolError> {
    match bytes.len() <= LONGEST_NAME {
        true => Ok(()),
        false => Err(ProtocolError::Word(what)),
    }
}

fn push<T>(list: &mut Vec<T>, item: T, most: usize) -> Result<(), ProtocolError> {
    if list.len() == most {
        return Err(ProtocolError::Flood("a look into an image"));
    }
    list.push(item);
    Ok(())
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
