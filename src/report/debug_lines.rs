//! The guest's debug text from COM2, collected to lines.
//!
//! Everything about it is bounded: the length of a line, how many are kept for a run that fails,
//! and how many are printed at all.

use std::collections::VecDeque;

use super::escape;

/// A longer line is broken here, in bytes.
const MAX_LINE: usize = 120;
/// How many lines are kept to explain a failure.
const KEPT: usize = 8;
/// How many lines a run may print.
const MAX_PRINTED: usize = 10_000;

/// Collects bytes to lines.
#[derive(Debug, Default)]
pub struct DebugLines {
    partial: Vec<u8>,
    last: VecDeque<String>,
    count: usize,
}

impl DebugLines {
    /// Takes `bytes` and hands each line that they complete to `print`, without a line break,
    /// until so many have been printed that the rest is only kept.
    pub fn push(&mut self, bytes: &[u8], mut print: impl FnMut(&str)) {
        for &byte in bytes {
            if byte != b'\n' {
                self.partial.push(byte);
            }
            if byte == b'\n' || self.partial.len() == MAX_LINE {
                self.end_line(&mut print);
            }
        }
    }

    /// Ends a line that has begun.
    pub fn finish(&mut self, mut print: impl FnMut(&str)) {
        if !self.partial.is_empty() {
            self.end_line(&mut print);
        }
    }

    /// The last lines, oldest first.
    pub fn last(&self) -> impl Iterator<Item = &str> {
        self.last.iter().map(String::as_str)
    }

    fn end_line(&mut self, print: &mut impl FnMut(&str)) {
        let text = String::from_utf8_lossy(&self.partial);
        let line = escape(text.trim_end_matches('\r')).into_owned();
        self.partial.clear();
        self.count = self.count.saturating_add(1);
        match self.count {
            ..=MAX_PRINTED => print(&line),
            n if n == MAX_PRINTED + 1 => print("(further debug lines are not shown)"),
            _ => {}
        }
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(parts: &[&[u8]]) -> Vec<String> {
        let mut debug = DebugLines::default();
        let mut lines = Vec::new();
        for part in parts {
            debug.push(part, |line| lines.push(line.to_owned()));
        }
        debug.finish(|line| lines.push(line.to_owned()));
        lines
    }

    #[test]
    fn bytes_become_lines_however_they_arrive() {
        assert_eq!(
            lines(&[b"one\ntw", b"o\r\n\nthree"]),
            ["one", "two", "", "three"]
        );
    }

    #[test]
    fn long_lines_are_broken_and_control_characters_escaped() {
        let long = lines(&[&[b'x'; 300]]);
        assert_eq!(
            long.iter().map(String::len).collect::<Vec<_>>(),
            [120, 120, 60]
        );
        assert_eq!(lines(&[b"\x1b[31m\n"]), ["\\u{1b}[31m"]);
    }

    #[test]
    fn a_flood_is_bounded() {
        let mut debug = DebugLines::default();
        let mut printed = 0;
        for _ in 0..3 {
            debug.push(&b"x\n".repeat(MAX_PRINTED), |_| printed += 1);
        }
        assert_eq!(printed, MAX_PRINTED + 1);
        assert_eq!(debug.last().count(), KEPT);
    }
}
