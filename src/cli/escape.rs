//! Arguments that are not UTF-8, carried through code that knows only `&str`.
//!
//! A path on Linux is any bytes, but argh takes strings. Each byte that is not part of valid UTF-8
//! becomes one character of a private range, and becomes that byte again when the value is read
//! as a path. Characters of that range which a user really gave are carried in the same way, byte
//! by byte, so that nothing is ever changed.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Byte 0 would have this character. It lies in Unicode's private use plane 16.
const FIRST: u32 = 0x10_f700;

/// The argument as a string, which [`decode`] turns back.
pub(super) fn encode(argument: &OsStr) -> String {
    let mut text = String::new();
    for chunk in argument.as_bytes().utf8_chunks() {
        for character in chunk.valid().chars() {
            if byte(character).is_some() {
                let mut bytes = [0; 4];
                let bytes = character.encode_utf8(&mut bytes);
                text.extend(bytes.bytes().filter_map(stand_in));
            } else {
                text.push(character);
            }
        }
        text.extend(chunk.invalid().iter().copied().filter_map(stand_in));
    }
    text
}

/// What [`encode`] was given.
pub(super) fn decode(text: &str) -> OsString {
    let mut bytes = Vec::with_capacity(text.len());
    for character in text.chars() {
        match byte(character) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend(character.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    OsString::from_vec(bytes)
}

/// The string as it may be shown on a terminal and on one line: what is not printable, and what
/// was not UTF-8, as an escape.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::new();
    for character in text.chars() {
        match (character, byte(character)) {
            (_, Some(byte)) => shown.push_str(&format!("\\x{byte:02x}")),
            // These are printable: `escape_debug` is made for Rust's literals.
            ('\'' | '"' | '\\', _) => shown.push(character),
            _ => shown.extend(character.escape_debug()),
        }
    }
    shown
}

fn stand_in(byte: u8) -> Option<char> {
    char::from_u32(FIRST + u32::from(byte))
}

fn byte(character: char) -> Option<u8> {
    u32::from(character)
        .checked_sub(FIRST)
        .and_then(|byte| u8::try_from(byte).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_utf_8_stays_as_it_is() {
        for text in ["", "disk.img", "Bücher/😀 \n"] {
            assert_eq!(encode(OsStr::new(text)), text);
        }
    }

    #[test]
    fn what_a_terminal_would_obey_is_shown_as_an_escape() {
        for (bytes, shown) in [
            (&b"it's \"a\\b\" \xc3\xbc"[..], "it's \"a\\b\" \u{fc}"),
            (b"\x1b[2Ja\nb", "\\u{1b}[2Ja\\nb"),
            (b"a\xff\xfeb", "a\\xff\\xfeb"),
            ("a\u{202e}b".as_bytes(), "a\\u{202e}b"),
        ] {
            assert_eq!(printable(&encode(OsStr::from_bytes(bytes))), shown);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_survive(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let argument = OsString::from_vec(bytes);
            prop_assert_eq!(decode(&encode(&argument)), argument);
        }

        #[test]
        fn any_characters_survive(text in "[\u{10f6f0}-\u{10f810}a-c]{0,8}") {
            let argument = OsString::from(text);
            prop_assert_eq!(decode(&encode(&argument)), argument);
        }
    }
}
