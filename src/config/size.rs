//! Numbers of bytes as people write them: `512`, `4k`, `128K`, `1MiB`.

/// What [`parse`] understands, for messages and for the help text.
pub(crate) const UNITS: &str = "in bytes, or with K, M, G or T";

/// Reads a number of bytes. A unit is a power of 1024, in either case, with or without `iB`
/// behind it. `KB` and the like are not taken, since some programs mean 1000 bytes by them.
///
/// `None`: this is no such number, or it has more than 64 bits.
#[must_use]
pub(crate) fn parse(text: &str) -> Option<u64> {
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_powers_of_1024_in_either_case() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512b", 512),
            ("4k", 4096),
            ("4K", 4096),
            ("4KiB", 4096),
            ("128kib", 128 << 10),
            ("1M", 1 << 20),
            ("1MiB", 1 << 20),
            ("3G", 3 << 30),
            ("8T", 8 << 40),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_whole_number_with_a_known_unit_is_no_size() {
        for text in [
            "",
            "K",
            "-1",
            "+1",
            "1.5K",
            "0x200",
            "512 ",
            " 512",
            "1KB",
            "1kk",
            "1P",
            "18446744073709551616",
            "16777216T",
            "\u{664}K",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
