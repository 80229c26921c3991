//! The text of a guest that speaks no messages, passed on as it comes.
//!
//! A file, a pipe or a socket gets it byte by byte. A terminal would obey what is in it, and the
//! guest is not trusted: there, everything but lines of visible characters is escaped. For a
//! program that reads JSON it becomes lines.

use super::quote::{push_byte, push_escaped};

/// A longer line is broken for JSON, in bytes.
pub(super) const MAX_LINE: usize = 1024;

/// Makes text safe for a terminal, however it is cut into pieces.
#[derive(Debug, Default)]
pub(super) struct TerminalText {
    /// The beginning of a character whose end has not come yet.
    partial: Vec<u8>,
}

impl TerminalText {
    /// Adds `bytes` to `shown`. Line feeds and tabs are kept. Carriage returns are dropped: with
    /// them the guest could write over what it has said.
    pub(super) fn push(&mut self, bytes: &[u8], shown: &mut String) {
        let joined;
        let bytes = if self.partial.is_empty() {
            bytes
        } else {
            joined = [&self.partial[..], bytes].concat();
            &joined
        };
        self.partial = Vec::new();
        let mut end = 0;
        for chunk in bytes.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\r' => {}
                    // Text is not quoted, so that a backslash needs no escape.
                    '\n' | '\t' | '\\' => shown.push(c),
                    _ => push_escaped(shown, c),
                }
            }
            end += chunk.valid().len() + chunk.invalid().len();
            let is_cut = end == bytes.len() && may_go_on(chunk.invalid());
            if is_cut {
                self.partial = chunk.invalid().to_vec();
            } else {
                for byte in chunk.invalid() {
                    push_byte(shown, *byte);
                }
            }
        }
    }

    /// Shows the beginning of a character that has no end.
    pub(super) fn finish(&mut self, shown: &mut String) {
        for byte in self.partial.drain(..) {
            push_byte(shown, byte);
        }
    }
}

/// Whether `bytes` can be the beginning of a character.
fn may_go_on(bytes: &[u8]) -> bool {
    let is_cut = |error: std::str::Utf8Error| error.error_len().is_none();
    std::str::from_utf8(bytes).is_err_and(is_cut)
}

/// Collects text to lines of at most [`MAX_LINE`] bytes.
#[derive(Debug)]
pub(super) struct TextLines {
    partial: Vec<u8>,
}

impl TextLines {
    pub(super) fn new() -> Self {
        Self {
            partial: Vec::with_capacity(MAX_LINE),
        }
    }

    /// Takes `bytes` and hands each line that they complete to `line`, without its end. What is not
    /// UTF-8 is replaced.
    pub(super) fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&str)) {
        for &byte in bytes {
            if byte != b'\n' {
                self.partial.push(byte);
            }
            if byte == b'\n' || self.partial.len() == MAX_LINE {
                self.end_line(&mut line);
            }
        }
    }

    /// Ends a line that has begun.
    pub(super) fn finish(&mut self, mut line: impl FnMut(&str)) {
        if !self.partial.is_empty() {
            self.end_line(&mut line);
        }
    }

    fn end_line(&mut self, line: &mut impl FnMut(&str)) {
        let text = self.partial.strip_suffix(b"\r").unwrap_or(&self.partial);
        line(&String::from_utf8_lossy(text));
        self.partial.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_a_terminal(parts: &[&[u8]]) -> String {
        let mut text = TerminalText::default();
        let mut shown = String::new();
        for part in parts {
            text.push(part, &mut shown);
        }
        text.finish(&mut shown);
        shown
    }

    #[test]
    fn a_terminal_gets_lines_and_nothing_that_drives_it() {
        let shown = on_a_terminal(&[b"Progress: 1/50\r\n\ta\\b \x1b]0;title\x07\xff\n"]);
        assert_eq!(shown, "Progress: 1/50\n\ta\\b \\u{1b}]0;title\\u{7}\\xff\n");
        assert_eq!(
            on_a_terminal(&["\u{202e}x\u{9b}".as_bytes()]),
            "\\u{202e}x\\u{9b}"
        );
    }

    #[test]
    fn a_character_may_come_in_pieces() {
        let text = "größe データ 🦀";
        for cut in 0..text.len() {
            let (one, other) = text.as_bytes().split_at(cut);
            assert_eq!(on_a_terminal(&[one, other]), text);
        }
        let bytes: Vec<_> = text.as_bytes().chunks(1).collect();
        assert_eq!(on_a_terminal(&bytes), text);
        assert_eq!(
            on_a_terminal(&[b"\xf0\x9f", b"x", b"\xe2"]),
            "\\xf0\\x9fx\\xe2"
        );
    }

    #[test]
    fn what_no_character_begins_with_is_shown_at_once() {
        let (mut text, mut shown) = (TerminalText::default(), String::new());
        text.push(b"a\xff", &mut shown);
        assert_eq!(shown, "a\\xff");
        text.push(b"b\xe2\x82", &mut shown);
        assert_eq!(shown, "a\\xffb", "this may be the beginning of one");
    }

    #[test]
    fn lines_are_collected_however_they_arrive_and_bounded() {
        let mut text = TextLines::new();
        let mut lines = Vec::new();
        for part in [&b"one\r\nt"[..], b"wo\n\n", &[b'x'; MAX_LINE + 1]] {
            text.push(part, |line| lines.push(line.to_owned()));
        }
        text.finish(|line| lines.push(line.to_owned()));
        assert_eq!(lines[..3], ["one", "two", ""]);
        assert_eq!(
            lines[3..].iter().map(String::len).collect::<Vec<_>>(),
            [MAX_LINE, 1]
        );
    }
}
