//! How text that came from outside is shown: a path, a word of the guest. What would move the
//! cursor, break the line or hide or reorder letters is written as an escape, so that a line stays
//! one line and shows all that is in it. The escapes are those of `$'…'` in shells.

use std::fmt::{self, Display, Formatter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Shows text with every character escaped that a terminal would not show as itself; a backslash
/// is doubled, so that no text looks like the escape of another.
#[must_use]
pub fn escape(text: &str) -> Escaped<'_> {
    escape_bytes(text.as_bytes())
}

/// Escapes as [`escape`] does; bytes that are not UTF-8 become `\x..`.
#[must_use]
pub fn escape_bytes(bytes: &[u8]) -> Escaped<'_> {
    Escaped { bytes, quote: None }
}

/// Shows a path unchanged if a terminal would show each of its characters as itself, otherwise as
/// `$'…'`, which a shell takes back.
#[must_use]
pub fn quote_path(path: &Path) -> QuotedPath<'_> {
    QuotedPath(path.as_os_str().as_bytes())
}

/// What [`escape`] returns.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a> {
    bytes: &'a [u8],
    /// A character that is escaped too, since it would end the quotation.
    quote: Option<char>,
}

/// What [`quote_path`] returns.
#[derive(Clone, Copy, Debug)]
pub struct QuotedPath<'a>(&'a [u8]);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for chunk in self.bytes.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '\n' => f.write_str("\\n")?,
                    '\r' => f.write_str("\\r")?,
                    '\t' => f.write_str("\\t")?,
                    '\\' => f.write_str("\\\\")?,
                    _ if Some(character) == self.quote => write!(f, "\\{character}")?,
                    _ if !is_hidden(character) => f.write_char(character)?,
                    '\0'..='\x7f' => write!(f, "\\x{:02x}", u32::from(character))?,
                    '\u{80}'..='\u{ffff}' => write!(f, "\\u{:04x}", u32::from(character))?,
                    _ => write!(f, "\\U{:08x}", u32::from(character))?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl Display for QuotedPath<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match str::from_utf8(self.0) {
            Ok(text) if !text.chars().any(is_hidden) => f.write_str(text),
            _ => {
                let (bytes, quote) = (self.0, Some('\''));
                write!(f, "$'{}'", Escaped { bytes, quote })
            }
        }
    }
}

/// Whether a terminal would not show the character as a sign of its own: control characters, line
/// and paragraph separators, and those that Unicode calls default ignorable or that change the
/// direction of text. Variation selectors are left: they belong to names with emoji.
#[must_use]
pub fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    fn path(bytes: &[u8]) -> String {
        quote_path(Path::new(OsStr::from_bytes(bytes))).to_string()
    }

    #[test]
    fn a_path_of_plain_letters_is_shown_unchanged() {
        for plain in ["copy.img", "a b/ß\\é 目录 👍️.img", "it's", ""] {
            assert_eq!(path(plain.as_bytes()), plain);
        }
    }

    #[test]
    fn a_path_that_a_terminal_would_obey_or_hide_is_shown_as_a_shell_takes_it() {
        assert_eq!(path(b"a\x1b[2Jb"), "$'a\\x1b[2Jb'");
        assert_eq!(path(b"a\nvmm: b'\\"), "$'a\\nvmm: b\\'\\\\'");
        assert_eq!(path(b"a\rb\tc"), "$'a\\rb\\tc'");
        assert_eq!(path("\u{202e}gmi".as_bytes()), "$'\\u202egmi'");
        assert_eq!(path("a\u{e0041}".as_bytes()), "$'a\\U000e0041'");
        assert_eq!(path(b"caf\xe9"), "$'caf\\xe9'");
    }

    #[test]
    fn every_hidden_character_is_escaped_and_no_text_looks_like_an_escape() {
        for hidden in ('\0'..=char::MAX).filter(|character| is_hidden(*character)) {
            let text = escape(hidden.encode_utf8(&mut [0; 4])).to_string();
            assert!(text.starts_with('\\') && text.is_ascii(), "{text}");
        }
        assert_eq!(escape("\\x1b").to_string(), "\\\\x1b");
        assert_eq!(escape("it's").to_string(), "it's");
    }
}
