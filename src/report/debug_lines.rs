//! The guest's debug text from COM2, collected to lines.
//!
//! Everything about it is bounded, and allocated when it is made: the length of a line, how many
//! lines are kept for a run that fails, and how much is printed at all.

use super::quote::push_line;

/// A longer line is broken here, in bytes as they came.
const MAX_LINE: usize = 120;
/// The most that a line can take once it is escaped, in bytes: `\u{1b}` for each byte.
const MAX_ESCAPED: usize = MAX_LINE * 6;
/// How many lines are kept to explain a failure.
const KEPT: usize = 8;
/// What stands before each line where people read it.
pub const DEBUG_PREFIX: &str = "[DEBUG] ";
/// What a run may print of its debug text, in bytes as they are shown to people: with
/// [`DEBUG_PREFIX`] and a line break for each line.
pub const MAX_DEBUG: usize = 64 * 1024;
/// What is said in place of all that follows.
const REST: &str = "(64 KiB of debug lines were shown; the rest is not)";

/// Collects bytes to lines.
#[derive(Debug)]
pub struct DebugLines {
    partial: Vec<u8>,
    /// A ring of the last lines; `next` is the place of the next.
    last: [String; KEPT],
    next: usize,
    kept: usize,
    /// How many bytes may still be printed.
    left: usize,
    /// Whether the user was told that the rest is not shown.
    told: bool,
}

impl Default for DebugLines {
    fn default() -> Self {
        Self {
            partial: Vec::with_capacity(MAX_LINE),
            last: std::array::from_fn(|_| String::with_capacity(MAX_ESCAPED)),
            next: 0,
            kept: 0,
            left: MAX_DEBUG,
            told: false,
        }
    }
}

impl DebugLines {
    /// Takes `bytes` and hands each line that they complete to `print`, without a line break,
    /// until [`MAX_DEBUG`] bytes have been printed: the rest is only kept.
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
        let (newer, older) = self.last.split_at(self.next);
        older
            .iter()
            .chain(newer)
            .skip(KEPT - self.kept)
            .map(String::as_str)
    }

    fn end_line(&mut self, print: &mut impl FnMut(&str)) {
        let text = self.partial.strip_suffix(b"\r").unwrap_or(&self.partial);
        let line = &mut self.last[self.next];
        line.clear();
        push_line(line, text);
        self.partial.clear();
        self.next = (self.next + 1) % KEPT;
        self.kept = KEPT.min(self.kept + 1);
        match self.left.checked_sub(DEBUG_PREFIX.len() + line.len() + 1) {
            Some(left) if !self.told => {
                self.left = left;
                print(line);
            }
            _ if !self.told => {
                self.told = true;
                print(REST);
            }
            _ => {}
        }
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
        assert_eq!(lines(&[b"\x1b[31m \xff\n"]), ["\\u{1b}[31m \\xff"]);
    }

    #[test]
    fn a_flood_is_bounded_in_bytes_whatever_it_is_made_of_and_said_once() {
        let floods: [&[u8]; 4] = [b"x\n", b"\n", &[b'y'; 1000], &[0x1b; 1000]];
        for flood in floods {
            let mut debug = DebugLines::default();
            let (mut printed, mut told) = (0, 0);
            for _ in 0..200_000_usize.div_ceil(flood.len()) {
                debug.push(flood, |line| {
                    told += usize::from(line == REST);
                    printed += DEBUG_PREFIX.len() + line.len() + 1;
                });
            }
            assert!(
                printed <= MAX_DEBUG + DEBUG_PREFIX.len() + REST.len() + 1,
                "{printed}"
            );
            assert!(printed > MAX_DEBUG - MAX_ESCAPED, "{printed}");
            assert_eq!(told, 1);
            assert_eq!(debug.last().count(), KEPT);
        }
    }

    #[test]
    fn the_last_lines_are_kept_in_order_and_take_no_new_memory() {
        let mut debug = DebugLines::default();
        assert_eq!(debug.last().count(), 0);
        debug.push(b"0\n1\n", |_| {});
        assert_eq!(debug.last().collect::<Vec<_>>(), ["0", "1"]);
        for n in 2..20 {
            debug.push(format!("{n}\n").as_bytes(), |_| {});
        }
        let expected: Vec<_> = (12..20).map(|n| n.to_string()).collect();
        assert_eq!(debug.last().collect::<Vec<_>>(), expected);
        debug.push(&[0x1b; 10_000], |_| {});
        assert!(debug.last.iter().all(|line| line.capacity() == MAX_ESCAPED));
    }
}
