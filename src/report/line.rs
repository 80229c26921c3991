//! Messages as lines: the one place where a guest's message becomes text.
//!
//! A message comes from a guest that is not trusted. Its strings are quoted by the rule of
//! [`super::quote`], so that nothing it says can move a terminal's cursor or look like a field or a
//! line that it is not.

use std::fmt::Write;

use guest_protocol::{GuestMessage, NO_STATUS, Payload};

use super::quote::{quote_detail, quote_word};

/// The line for `message`, without a line break; `None` for a message without content.
#[must_use]
pub fn message_line(message: &GuestMessage) -> Option<String> {
    let mut line = String::new();
    push_message(&mut line, message).then_some(line)
}

/// Adds the line for `message` to `line`, without a line break. Returns whether there is one. There
/// may be hundreds of thousands in a run: those of progress are made without an allocation.
pub(super) fn push_message(line: &mut String, message: &GuestMessage) -> bool {
    let Some(payload) = &message.payload else {
        return false;
    };
    // Writing to a string cannot fail.
    let _ = match payload {
        Payload::Init(init) => write!(
            line,
            "[INFO] init stage={} device={} address={:#x}",
            quote_word(&init.stage),
            quote_word(&init.device),
            init.address
        ),
        Payload::Capacity(capacity) => write!(
            line,
            "[INFO] capacity device={} sectors={} bytes={}",
            quote_word(&capacity.device),
            capacity.sectors,
            capacity.bytes
        ),
        Payload::Progress(progress) => {
            line.push_str("[PROGRESS] progress op=");
            line.push_str(&quote_word(&progress.op));
            line.push(' ');
            push_number(line, progress.current);
            line.push('/');
            push_number(line, progress.total);
            line.push_str(" (");
            push_number(line, progress.percent.into());
            line.push_str("%)");
            Ok(())
        }
        Payload::Error(error) => write!(
            line,
            "[ERROR] error op={} device={} sector={}",
            quote_word(&error.op),
            quote_word(&error.device),
            error.sector
        )
        .and_then(|()| match error.status {
            NO_STATUS => Ok(()),
            status => write!(line, " status={status}"),
        })
        .and_then(|()| match error.detail.as_str() {
            "" => Ok(()),
            detail => write!(line, " detail={}", quote_detail(detail)),
        }),
        Payload::Complete(complete) => write!(
            line,
            "[COMPLETE] complete op={} count={} success={}",
            quote_word(&complete.op),
            complete.count,
            complete.success
        ),
        // What is said of an image is not a line but a part of an answer.
        Payload::Image(_)
        | Payload::Reference(_)
        | Payload::Snapshot(_)
        | Payload::Finding(_)
        | Payload::Problem(_)
        | Payload::Check(_) => return false,
    };
    true
}

/// Adds `number` in decimal, which costs a third of what the formatting machinery does.
fn push_number(line: &mut String, number: u64) {
    line.push_str(itoa::Buffer::new().format(number));
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
    fn numbers_have_the_digits_of_the_standard_library() {
        for number in [0, 7, 10, 99, 100, 12_345_678_901, u64::MAX] {
            let mut line = String::new();
            push_number(&mut line, number);
            assert_eq!(line, number.to_string());
        }
    }

    #[test]
    fn a_guest_cannot_fake_lines_or_drive_the_terminal() {
        let line = message_line(&init_message("a\n[COMPLETE]", "\u{1b}[2J", 0)).unwrap();
        assert!(!line.contains('\n') && !line.contains('\u{1b}'), "{line}");
        let long = message_line(&init_message(&"x".repeat(4000), "d", 0)).unwrap();
        assert!(long.len() < 300);
    }

    #[test]
    fn a_guest_cannot_fake_fields_or_hide_what_it_says() {
        let forged = "read device=output sector=9 status=0 device=input";
        assert_eq!(
            message_line(&error_message(forged, "input", 5, 1, "")).unwrap(),
            format!("[ERROR] error op=\"{forged}\" device=input sector=5 status=1")
        );
        assert_eq!(
            message_line(&error_message("read", "input", 5, 255, "a\" status=0 b=\"")).unwrap(),
            r#"[ERROR] error op=read device=input sector=5 detail="a\" status=0 b=\"""#
        );
        assert_eq!(
            message_line(&complete_message("\u{202e}ypoc", 1, true)).unwrap(),
            r#"[COMPLETE] complete op="\u{202e}ypoc" count=1 success=true"#
        );
    }
}
