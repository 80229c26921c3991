//! The answer as lines for a person: a key, a colon and a value, and what belongs to it indented
//! below.
//!
//! Names come out of the image and are quoted; nothing in them can become a line or a key.

use guest_protocol::{FeatureKind, FindingMessage, ProblemMessage, SnapshotMessage};

use super::answer::{Answer, FileSize, Verdict};
use crate::config::{ImageConfig, ImageTask};
use crate::quote::quote_path;
use crate::report::push_line;

/// Names and prefixes of the units of 1024.
const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// All lines, each with its line break.
pub(super) fn lines(answer: &Answer, config: &ImageConfig, file: FileSize) -> String {
    let mut lines = vec![format!("image: {}", quote_path(&config.image))];
    properties(answer, file, &mut lines);
    for reference in &answer.references {
        let kind = reference.kind.replace('-', " ");
        lines.push(format!("{kind}: {}", quoted(&reference.name)));
    }
    snapshots(answer, &mut lines);
    match config.task {
        ImageTask::Info => lines.push(format!("verdict: {}", answer.verdict().name())),
        ImageTask::Check => checked(answer, &mut lines),
    }
    lines.extend(answer.findings.iter().map(finding));
    lines.join("\n") + "\n"
}

fn properties(answer: &Answer, file: FileSize, lines: &mut Vec<String>) {
    let image = &answer.image;
    let mut line = |key: &str, value: String| lines.push(format!("{key}: {value}"));
    let mut format = image.format.clone();
    if let Some(version) = image.version {
        format += &format!(" version {version}");
    }
    if !image.variant.is_empty() {
        format += &format!(" ({})", image.variant);
    }
    line("format", format);
    if image.fitting.len() > 1 {
        line("formats that fit", image.fitting.join(", "));
    }
    if let Some(size) = image.virtual_size {
        line("virtual size", size_and_bytes(size));
    }
    line("file size", size_and_bytes(file.length));
    line("disk size", size(file.allocated));
    if let Some(cluster) = image.cluster_size {
        line("cluster size", size_and_bytes(cluster));
    }
    if !image.compression.is_empty() {
        line("compression", image.compression.clone());
    }
    if let Some(bits) = image.refcount_bits {
        line("refcount bits", bits.to_string());
    }
    for (kind, key) in [
        (FeatureKind::Incompatible, "incompatible features"),
        (FeatureKind::Compatible, "compatible features"),
        (FeatureKind::Autoclear, "autoclear features"),
    ] {
        let ours = image
            .features
            .iter()
            .filter(|feature| feature.kind() == kind);
        let names: Vec<_> = ours
            .map(|feature| match feature.name.as_str() {
                "" => format!("bit {}", feature.bit),
                name => name.to_owned(),
            })
            .collect();
        if !names.is_empty() {
            line(key, names.join(", "));
        }
    }
    if !image.encryption.is_empty() {
        line("encryption", image.encryption.clone());
    }
    if image.log_replayed {
        line("log", "replayed in memory".to_owned());
    }
    if !image.partitions.is_empty() {
        line("partition table", image.partitions.clone());
    }
    if !image.file_system.is_empty() {
        line("file system", image.file_system.clone());
    }
}

fn snapshots(answer: &Answer, lines: &mut Vec<String>) {
    if answer.image.snapshots == 0 {
        return;
    }
    lines.push(format!("snapshots: {}", answer.image.snapshots));
    lines.extend(answer.snapshots.iter().map(snapshot));
    let told = u32::try_from(answer.snapshots.len()).unwrap_or(u32::MAX);
    if let Some(more @ 1..) = answer.image.snapshots.checked_sub(told) {
        lines.push(format!("  and {more} more"));
    }
}

fn snapshot(snapshot: &SnapshotMessage) -> String {
    let mut line = format!(
        "  {} {} {}",
        quoted(&snapshot.id),
        quoted(&snapshot.name),
        date(snapshot.seconds)
    );
    if let Some(bytes) = snapshot.disk_size {
        line += &format!(", disk of {}", size(bytes));
    }
    if snapshot.vm_state_size > 0 {
        line += &format!(", VM state of {}", size(snapshot.vm_state_size));
    }
    line
}

fn checked(answer: &Answer, lines: &mut Vec<String>) {
    if let Some(check) = &answer.check {
        lines.push(format!("errors: {}", check.errors));
        lines.push(format!("leaked clusters: {}", check.leaks));
        for (key, bytes) in [
            ("data", check.data),
            ("compressed data", check.compressed),
            ("left to another file", check.backing),
            ("lost", check.lost),
            ("end of the last cluster", check.image_end),
        ] {
            if bytes > 0 {
                lines.push(format!("{key}: {}", size_and_bytes(bytes)));
            }
        }
        lines.extend(answer.problems.iter().map(problem));
        let told = answer.problems.len() as u64;
        let all = check.errors.saturating_add(check.leaks);
        if let Some(more @ 1..) = all.checked_sub(told) {
            lines.push(format!("  and {more} more"));
        }
    }
    lines.push(format!("verdict: {}", soundness(answer)));
    lines.extend(answer.uncheckable().map(|why| format!("  {why}")));
}

/// A word for what a check has come to.
pub(super) fn soundness(answer: &Answer) -> &'static str {
    match answer.soundness() {
        Verdict::Safe => "sound",
        Verdict::Refused => "not checked",
        other => other.name(),
    }
}

fn problem(problem: &ProblemMessage) -> String {
    let ProblemMessage {
        name,
        at,
        found,
        expected,
    } = problem;
    match expected {
        Some(expected) => format!("  {name} at byte {at}: found {found}, expected {expected}"),
        None => format!("  {name} at byte {at}: found {found:#x}"),
    }
}

fn finding(finding: &FindingMessage) -> String {
    let mut line = format!("  {}: ", finding.name);
    push_line(&mut line, finding.text.as_bytes());
    line += &format!(" (byte {}, {:#x})", finding.at, finding.value);
    if finding.allowed {
        line += " - allowed";
    }
    line
}

/// A name from the image, in quotes, with its bytes escaped that could not be seen.
fn quoted(name: &[u8]) -> String {
    let mut shown = String::new();
    push_line(&mut shown, name);
    format!("\"{}\"", shown.replace('"', "\\\""))
}

fn size_and_bytes(bytes: u64) -> String {
    format!("{} ({bytes} bytes)", size(bytes))
}

/// A number of bytes with three significant digits, rounded half to even, as qemu-img has it.
fn size(bytes: u64) -> String {
    // The unit is changed where there would be a fourth digit.
    let fits = |unit: &u32| u128::from(bytes) < 1000 << (10 * unit);
    let unit = (0..6).find(fits).unwrap_or(6);
    let divisor = 1_u128 << (10 * unit);
    let bytes = u128::from(bytes);
    let digits = [100, 10, 1]
        .iter()
        .position(|limit| bytes >= limit * divisor);
    let digits = digits.unwrap_or(3);
    let scale = [1, 10, 100, 1000].get(digits).copied().unwrap_or(1);
    let (scaled, rest) = (bytes * scale / divisor, bytes * scale % divisor);
    let up = rest * 2 > divisor || (rest * 2 == divisor && scaled % 2 == 1);
    let scaled = scaled + u128::from(up);
    let mut text = (scaled / scale).to_string();
    if digits > 0 {
        text += &format!(".{:0digits$}", scaled % scale);
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    let name = UNITS.get(unit as usize).copied().unwrap_or_default();
    format!("{text} {name}")
}

/// A time in seconds since 1970 as a date, in UTC (the proleptic Gregorian calendar; each era of
/// 400 years has 146,097 days).
fn date(seconds: u32) -> String {
    let (days, second) = (seconds / 86400, seconds % 86400);
    // Days since 1 March of the year 0, so that a leap day is the last of its year.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (month_day, month) = (day - (153 * month + 2) / 5 + 1, (month + 2) % 12 + 1);
    let year = year + era * 400 + u32::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{month_day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits_rounded_half_to_even() {
        for (bytes, text) in [
            (0, "0 B"),
            (1, "1 B"),
            (999, "999 B"),
            (1000, "0.977 KiB"),
            (1023, "0.999 KiB"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (197_120, "192 KiB"),
            (197_632, "193 KiB"),
            (198_144, "194 KiB"),
            (1152, "1.12 KiB"),
            (1408, "1.38 KiB"),
            (65536, "64 KiB"),
            (1 << 30, "1 GiB"),
            ((1 << 30) - 1, "1 GiB"),
            (1000 << 20, "0.977 GiB"),
            (1023 * 1000, "999 KiB"),
            (10_485_760 + 51_200, "10 MiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (1_735_689_599, "2024-12-31 23:59:59 UTC"),
            (u32::MAX, "2106-02-07 06:28:15 UTC"),
        ] {
            assert_eq!(date(seconds), text);
        }
    }

    #[test]
    fn a_name_from_an_image_is_one_quoted_line() {
        assert_eq!(quoted(b"base.img"), "\"base.img\"");
        assert_eq!(
            quoted(b"a\"\nverdict: safe\x1b[2J\xff\\"),
            "\"a\\\"\\nverdict: safe\\u{1b}[2J\\xff\\\\\""
        );
    }
}
