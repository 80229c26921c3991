//! Numbers and how they are read and written: sizes with units, medians, ratios.

/// Bytes in a KiB, a MiB and a GiB.
pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

/// Reads a number of bytes: a whole number with an optional unit K, M or G (powers of 1024, also
/// written `KiB`, `MiB`, `GiB`). `None` for anything else, for zero, and for what exceeds a `u64`.
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "" => 1,
        "K" | "KiB" => KIB,
        "M" | "MiB" => MIB,
        "G" | "GiB" => GIB,
        _ => return None,
    };
    let number: u64 = digits.parse().ok()?;
    number.checked_mul(unit).filter(|bytes| *bytes > 0)
}

/// The median; of an even number of values the mean of the middle two. `None` if there are none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    if values.len().is_multiple_of(2) {
        Some(f64::midpoint(*values.get(values.len() / 2 - 1)?, upper))
    } else {
        Some(upper)
    }
}

/// What a GiB would take if `bytes` take `value` of something.
pub(crate) fn per_gib(value: f64, bytes: u64) -> f64 {
    value * GIB as f64 / bytes as f64
}

/// A time of `value` seconds in the unit that suits it.
pub(crate) fn seconds(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0} s"),
        value if value >= 10.0 => format!("{value:.1} s"),
        value if value >= 0.1 => format!("{value:.3} s"),
        value if value >= 0.001 => format!("{:.2} ms", value * 1e3),
        value => format!("{:.1} µs", value * 1e6),
    }
}

/// A number of bytes in the largest unit that leaves a whole number of them.
pub(crate) fn bytes(value: u64) -> String {
    for (unit, name) in [(GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")] {
        if value >= unit && value.is_multiple_of(unit) {
            return format!("{} {name}", value / unit);
        }
    }
    format!("{value} B")
}

/// A number of bytes in MiB, with a decimal.
pub(crate) fn mebibytes(value: f64) -> String {
    format!("{:.1} MiB", value / MIB as f64)
}
