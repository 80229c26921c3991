//! How a guest's text is shown: the one rule for lines, error texts, debug lines and JSON.
//!
//! A guest is not trusted. What it says must not move a terminal's cursor, look like another
//! field or another line, or hide a part of itself.
//!
//! - A *word* is shown as it is if it is plain: not empty, and of visible characters without
//!   spaces, quotes, `=` and `\`. Anything else is shown in double quotes.
//! - In quotes, `"` and `\` have a `\` before them.
//! - A character that is not visible is shown as `\n`, `\r`, `\t` or `\u{202e}` wherever it
//!   stands, and a byte that is not UTF-8 as `\xff`.
//! - A long string is cut, with `…` behind the closing quote. What says why something failed may be
//!   longer than other text, so that nothing that a built-in guest says is cut.

use std::borrow::Cow;
use std::fmt::Write;

/// The longest part of a guest's string that is shown, in characters.
pub const MAX_SHOWN: usize = 128;
/// The same of a text that says why something failed.
pub const MAX_DETAIL: usize = 512;

/// Characters that count as letters or symbols and have nothing to be seen: fillers of Hangul and
/// the empty Braille pattern.
const BLANK: [char; 5] = ['\u{115f}', '\u{1160}', '\u{2800}', '\u{3164}', '\u{ffa0}'];

/// `text` as a field of a line: as it is if it is a plain word, and else in quotes.
#[must_use]
pub fn quote_word(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| is_visible(c) && !matches!(c, ' ' | '"' | '\'' | '`' | '=' | '\\');
    if !text.is_empty() && text.len() <= MAX_SHOWN && text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(quote_text(text))
}

/// `text` in double quotes, whatever is in it.
#[must_use]
pub fn quote_text(text: &str) -> String {
    quote_within(text, MAX_SHOWN)
}

/// The same for a text that says why something failed.
#[must_use]
pub fn quote_detail(text: &str) -> String {
    quote_within(text, MAX_DETAIL)
}

/// `text` in double quotes, but not more than `most` characters of it.
fn quote_within(text: &str, most: usize) -> String {
    let mut shown = String::from('"');
    let mut rest = text.chars();
    for c in rest.by_ref().take(most) {
        if c == '"' {
            shown.push('\\');
            shown.push('"');
        } else {
            push_escaped(&mut shown, c);
        }
    }
    shown.push('"');
    if rest.next().is_some() {
        shown.push('…');
    }
    shown
}

/// Adds `bytes`, the rest of a line to its end, to `shown`: spaces and quotes stay as they are.
pub fn push_line(shown: &mut String, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            push_escaped(shown, c);
        }
        for byte in chunk.invalid() {
            push_byte(shown, *byte);
        }
    }
}

/// Adds `c`, escaped unless it is visible.
pub(super) fn push_escaped(shown: &mut String, c: char) {
    match c {
        '\\' => shown.push_str("\\\\"),
        '\n' => shown.push_str("\\n"),
        '\r' => shown.push_str("\\r"),
        '\t' => shown.push_str("\\t"),
        _ if is_visible(c) => shown.push(c),
        _ => shown.extend(c.escape_unicode()),
    }
}

/// Adds a byte that is not a part of any character.
pub(super) fn push_byte(shown: &mut String, byte: u8) {
    // Writing to a string cannot fail.
    let _ = write!(shown, "\\x{byte:02x}");
}

/// Whether `c` can be seen where it stands: a space, or a letter, digit, mark or symbol that does
/// not change what is shown beside it.
#[must_use]
pub fn is_visible(c: char) -> bool {
    if c.is_ascii() {
        return c == ' ' || c.is_ascii_graphic();
    }
    // The standard library escapes control and format characters, separators, marks that melt
    // into the character before them, and what has no meaning in Unicode.
    let is_printable = c.escape_debug().len() == 1;
    is_printable && !BLANK.contains(&c) && !runs_right_to_left(c)
}

/// The blocks whose characters run from right to left (Unicode, `DerivedBidiClass.txt`): a
/// terminal may then move numbers and punctuation beside them.
const fn runs_right_to_left(c: char) -> bool {
    matches!(
        c,
        '\u{590}'..='\u{8ff}'
            | '\u{fb1d}'..='\u{fdff}'
            | '\u{fe70}'..='\u{feff}'
            | '\u{10800}'..='\u{10fff}'
            | '\u{1e800}'..='\u{1efff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_words_are_shown_as_they_are() {
        for word in [
            "copy",
            "input",
            "0x3f8",
            "virtio-blk",
            "a/b:c.d",
            "größe",
            "データ",
        ] {
            assert_eq!(quote_word(word), word);
        }
    }

    #[test]
    fn a_word_that_could_be_taken_for_something_else_is_quoted() {
        let cases = [
            ("", r#""""#),
            ("two words", r#""two words""#),
            ("a=b", r#""a=b""#),
            ("read device=output", r#""read device=output""#),
            (r#"a"b"#, r#""a\"b""#),
            ("it's", r#""it's""#),
            (r"\u{1b}", r#""\\u{1b}""#),
            ("a\nb\r\t", r#""a\nb\r\t""#),
            ("\u{1b}[2J", r#""\u{1b}[2J""#),
        ];
        for (text, shown) in cases {
            assert_eq!(quote_word(text), shown);
        }
    }

    #[test]
    fn what_hides_or_reorders_text_is_escaped() {
        let hidden = [
            '\u{202e}',
            '\u{202a}',
            '\u{2066}',
            '\u{2069}',
            '\u{200b}',
            '\u{200d}',
            '\u{200e}',
            '\u{ad}',
            '\u{61c}',
            '\u{feff}',
            '\u{2028}',
            '\u{2029}',
            '\u{a0}',
            '\u{3000}',
            '\u{fe0f}',
            '\u{301}',
            '\u{e0041}',
            '\u{85}',
            '\u{9b}',
            '\u{7f}',
            '\u{180e}',
            '\u{3164}',
            '\u{2800}',
            '\u{5d0}',
            '\u{627}',
            '\u{fff9}',
            '\u{e000}',
            '\u{10ffff}',
        ];
        for c in hidden {
            let shown = quote_word(&format!("a{c}b")).into_owned();
            assert_eq!(shown, format!("\"a{}b\"", c.escape_unicode()));
        }
    }

    #[test]
    fn a_long_string_is_cut_behind_its_quotes() {
        let shown = quote_word(&"x".repeat(4000)).into_owned();
        assert_eq!(shown, format!("\"{}\"…", "x".repeat(MAX_SHOWN)));
        assert_eq!(quote_word(&"x".repeat(MAX_SHOWN)), "x".repeat(MAX_SHOWN));
        let whole = "x".repeat(MAX_DETAIL);
        assert_eq!(quote_detail(&whole), format!("\"{whole}\""));
        let shown = quote_detail(&"x".repeat(4000));
        assert_eq!(shown, format!("\"{whole}\"…"));
    }

    #[test]
    fn a_line_keeps_its_spaces_and_quotes_and_shows_foreign_bytes() {
        let mut shown = String::new();
        push_line(&mut shown, b"a \"b\" = c\\ \x1b[0m \xff\xfe");
        assert_eq!(shown, r#"a "b" = c\\ \u{1b}[0m \xff\xfe"#);
    }
}
