//! Messages as lines: the one place where a guest's message becomes text.
//!
//! A message comes from a guest that is not trusted. Control characters in its strings are
//! escaped, so that nothing it says can move a terminal's cursor or fake a line.

use std::borrow::Cow;

use guest_protocol::{GuestMessage, NO_STATUS, Payload};

/// The longest part of a guest's string that is shown, in characters.
const MAX_SHOWN: usize = 128;

/// The line for `message`, without a line break; `None` for a message without content.
#[must_use]
pub fn message_line(message: &GuestMessage) -> Option<String> {
    let line = match message.payload.as_ref()? {
        Payload::Init(init) => format!(
            "[INFO] init stage={} device={} address={:#x}",
            escape(&init.stage),
            escape(&init.device),
            init.address
        ),
        Payload::Capacity(capacity) => format!(
            "[INFO] capacity device={} sectors={} bytes={}",
            escape(&capacity.device),
            capacity.sectors,
            capacity.bytes
        ),
        Payload::Progress(progress) => format!(
            "[PROGRESS] progress op={} {}/{} ({}%)",
            escape(&progress.op),
            progress.current,
            progress.total,
            progress.percent
        ),
        Payload::Error(error) => {
            let mut line = format!(
                "[ERROR] error op={} device={} sector={}",
                escape(&error.op),
                escape(&error.device),
                error.sector
            );
            if error.status != NO_STATUS {
                line += &format!(" status={}", error.status);
            }
            if !error.detail.is_empty() {
                line += &format!(" detail=\"{}\"", escape(&error.detail));
            }
            line
        }
        Payload::Complete(complete) => format!(
            "[COMPLETE] complete op={} count={} success={}",
            escape(&complete.op),
            complete.count,
            complete.success
        ),
    };
    Some(line)
}

/// `text` with control characters escaped, cut to a sensible length.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| !c.is_control();
    if text.len() <= MAX_SHOWN && text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::new();
    for c in text.chars().take(MAX_SHOWN) {
        if is_plain(c) {
            shown.push(c);
        } else {
            shown.extend(c.escape_default());
        }
    }
    if text.chars().count() > MAX_SHOWN {
        shown.push('…');
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use guest_protocol::{
        capacity_message, complete_message, error_message, init_message, progress_message,
    };

    use super::*;

    #[test]
    fn every_message_has_the_form_of_the_reference_output() {
        let cases = [
            (
                init_message("features", "input", 0x1_0000_0020),
                "[INFO] init stage=features device=input address=0x100000020",
            ),
            (
                capacity_message("input", 50, 25600),
                "[INFO] capacity device=input sectors=50 bytes=25600",
            ),
            (
                progress_message("copy", 11, 50, 22),
                "[PROGRESS] progress op=copy 11/50 (22%)",
            ),
            (
                error_message("read", "input", 5, 1, ""),
                "[ERROR] error op=read device=input sector=5 status=1",
            ),
            (
                complete_message("copy", 50, true),
                "[COMPLETE] complete op=copy count=50 success=true",
            ),
        ];
        for (message, line) in cases {
            assert_eq!(message_line(&message).unwrap(), line);
        }
    }

    #[test]
    fn a_guest_cannot_fake_lines_or_drive_the_terminal() {
        let line = message_line(&init_message("a\n[COMPLETE]", "\u{1b}[2J", 0)).unwrap();
        assert!(!line.contains('\n') && !line.contains('\u{1b}'), "{line}");
        let long = message_line(&init_message(&"x".repeat(4000), "d", 0)).unwrap();
        assert!(long.len() < 300);
    }
}
