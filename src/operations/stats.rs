//! Statistics of a run: what it cost, in time, exits, requests and memory.

use std::fmt::{self, Display};
use std::time::Duration;

use serde::Serialize;

use crate::machine::ExitCounts;
use crate::report::Exits;
use crate::virtio::block::BlockCounters;

const MIB: f64 = 1024.0 * 1024.0;

/// What one disk did.
#[derive(Clone, Debug, Serialize)]
struct DiskStatistics {
    name: &'static str,
    kicks: u64,
    requests: u64,
    bytes_read: u64,
    bytes_written: u64,
    /// Bytes made zero without data.
    bytes_zeroed: u64,
    /// Calls of what lies behind the disk.
    calls: u64,
    requests_per_call: f64,
    errors: u64,
    notifications: u64,
}

/// All of it, ready to be shown.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Stats {
    /// What was done with the bytes: "copied".
    #[serde(skip)]
    verb: &'static str,
    success: bool,
    /// Different bytes of the output that were written; of a copy, all.
    bytes: u64,
    /// Bytes that nobody had to read, since they lie in holes of the input, or of the disk in it.
    bytes_skipped: u64,
    wall_seconds: f64,
    throughput_mib_s: f64,
    exits: Exits,
    exits_per_mib: f64,
    /// Bytes that reached a port or a register without an exit of their own.
    coalesced_bytes: u64,
    disks: Vec<DiskStatistics>,
    /// How long the guest computed the digest, if it did.
    digest_seconds: Option<f64>,
    peak_memory_kib: u64,
}

impl Stats {
    /// The statistics of a run that wrote `bytes` different bytes of its output and took `wall`. Of
    /// what its guest read of the inputs, `filled` bytes lie behind the end of one. The output is the last
    /// of the `disks`.
    #[must_use]
    pub(crate) fn new(
        success: bool,
        bytes: u64,
        filled: u64,
        wall: Duration,
        exits: &ExitCounts,
        disks: &[(&'static str, BlockCounters)],
    ) -> Self {
        let seconds = wall.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people to read")]
        let mib = bytes as f64 / MIB;
        #[expect(clippy::cast_precision_loss, reason = "as above")]
        let total = exits.total() as f64;
        // The output comes last. What is compressed is read as fewer bytes, too.
        let (zeroed, inputs) = match disks.split_last() {
            Some(((_, output), inputs)) => (output.bytes_zeroed, inputs),
            None => (0, disks),
        };
        let read: u64 = inputs.iter().map(|(_, input)| input.bytes_read).sum();
        let read = read.saturating_sub(filled);
        Self {
            verb: "copied",
            success,
            bytes,
            bytes_skipped: bytes.saturating_sub(read).min(zeroed),
            wall_seconds: seconds,
            throughput_mib_s: ratio(mib, seconds),
            exits: exits.into(),
            exits_per_mib: ratio(total, mib),
            coalesced_bytes: exits.coalesced,
            disks: disks
                .iter()
                .map(|(name, counters)| disk(name, counters))
                .collect(),
            digest_seconds: None,
            peak_memory_kib: peak_memory_kib(),
        }
    }

    /// The same statistics of a run that did something else than to copy, with what it did: "converted".
    #[must_use]
    pub(crate) fn with_verb(self, verb: &'static str) -> Self {
        Self { verb, ..self }
    }

    /// The same statistics with the time for which the guest computed a digest, in seconds.
    #[must_use]
    pub(crate) fn with_digest_seconds(self, digest_seconds: Option<f64>) -> Self {
        Self {
            digest_seconds,
            ..self
        }
    }

    /// One JSON object on one line.
    #[must_use]
    pub(crate) fn to_json(&self) -> String {
        // Numbers and names cannot fail to be written.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// The same JSON object with a type, as the objects of a run have it, and without a line break.
    #[must_use]
    pub(crate) fn to_object(&self) -> String {
        let object = Object {
            kind: "stats",
            stats: self,
        };
        serde_json::to_string(&object).unwrap_or_default()
    }
}

#[derive(Serialize)]
struct Object<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    stats: &'a Stats,
}

impl From<&ExitCounts> for Exits {
    fn from(exits: &ExitCounts) -> Self {
        Self {
            pio_in: exits.pio_in,
            pio_out: exits.pio_out,
            mmio_read: exits.mmio_read,
            mmio_write: exits.mmio_write,
            idle: exits.idle,
            other: exits.other,
            total: exits.total(),
        }
    }
}

fn disk(name: &'static str, counters: &BlockCounters) -> DiskStatistics {
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people to read")]
    let (requests, calls) = (counters.requests as f64, counters.backend_calls as f64);
    DiskStatistics {
        name,
        kicks: counters.kicks,
        requests: counters.requests,
        bytes_read: counters.bytes_read,
        bytes_written: counters.bytes_written,
        bytes_zeroed: counters.bytes_zeroed,
        calls: counters.backend_calls,
        requests_per_call: ratio(requests, calls),
        errors: counters.errors,
        notifications: counters.notifications,
    }
}

impl Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exits = &self.exits;
        let (done, end) = if self.success {
            (self.verb, "")
        } else {
            ("written", "; the output is not complete")
        };
        writeln!(
            f,
            "{done:<12} {} bytes in {:.3} s, {:.0} MiB/s, {} of them in holes, not read{end}",
            self.bytes, self.wall_seconds, self.throughput_mib_s, self.bytes_skipped
        )?;
        writeln!(
            f,
            "exits        {} ({:.2} a MiB): {} idle, {} mmio read, {} mmio write, {} pio in, \
             {} pio out, {} other",
            exits.total,
            self.exits_per_mib,
            exits.idle,
            exits.mmio_read,
            exits.mmio_write,
            exits.pio_in,
            exits.pio_out,
            exits.other
        )?;
        writeln!(f, "coalesced    {} bytes", self.coalesced_bytes)?;
        for disk in &self.disks {
            writeln!(
                f,
                "{:<12} {} requests, {} bytes read, {} bytes written, {} bytes zeroed, {} calls ({:.1} requests \
                 a call), {} kicks, {} notifications, {} errors",
                disk.name,
                disk.requests,
                disk.bytes_read,
                disk.bytes_written,
                disk.bytes_zeroed,
                disk.calls,
                disk.requests_per_call,
                disk.kicks,
                disk.notifications,
                disk.errors
            )?;
        }
        if let Some(seconds) = self.digest_seconds {
            writeln!(f, "digest       {seconds:.3} s of the guest's time")?;
        }
        writeln!(f, "peak memory  {} KiB", self.peak_memory_kib)
    }
}

fn ratio(amount: f64, of: f64) -> f64 {
    if of > 0.0 { amount / of } else { 0.0 }
}

/// The most memory that was resident at once, guest memory included (getrusage(2)).
fn peak_memory_kib() -> u64 {
    // SAFETY: the structure is plain data, for which all zeros are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is valid for writing.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    u64::try_from(usage.ru_maxrss).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn stats() -> Stats {
        let exits = ExitCounts {
            idle: 3,
            mmio_read: 1,
            ..ExitCounts::default()
        };
        let counters = BlockCounters {
            requests: 8,
            backend_calls: 2,
            ..BlockCounters::default()
        };
        let disks = [("input", counters), ("output", counters)];
        Stats::new(true, 2 << 20, 0, Duration::from_millis(500), &exits, &disks)
    }

    #[test]
    fn only_what_was_made_zero_without_being_read_is_skipped() {
        let skipped = |bytes_read, filled, bytes_zeroed| {
            let input = BlockCounters {
                bytes_read,
                ..BlockCounters::default()
            };
            let output = BlockCounters {
                bytes_zeroed,
                ..BlockCounters::default()
            };
            // A backing file of which nothing was read changes nothing.
            let backing = BlockCounters::default();
            let disks = [("input", input), ("backing", backing), ("output", output)];
            let exits = ExitCounts::default();
            let stats = Stats::new(true, 1000, filled, Duration::from_secs(1), &exits, &disks);
            stats.bytes_skipped
        };
        assert_eq!(skipped(400, 0, 600), 600, "a hole");
        assert_eq!(skipped(512, 112, 600), 600, "the last sector was read");
        assert_eq!(skipped(1000, 0, 600), 0, "zeros that were found");
        assert_eq!(skipped(10, 0, 0), 0, "what was compressed");
        assert_eq!(skipped(1200, 0, 600), 0);
        let read = BlockCounters {
            bytes_read: 300,
            ..BlockCounters::default()
        };
        let zeroed = BlockCounters {
            bytes_zeroed: 500,
            ..BlockCounters::default()
        };
        let disks = [("input", read), ("backing", read), ("output", zeroed)];
        let (wall, exits) = (Duration::from_secs(1), ExitCounts::default());
        let stats = Stats::new(true, 1000, 0, wall, &exits, &disks);
        assert_eq!(stats.bytes_skipped, 400, "what was read of either file");
    }

    #[test]
    fn ratios_follow_from_the_counts() {
        let json: serde_json::Value = serde_json::from_str(&stats().to_json()).unwrap();
        assert_eq!(json["throughput_mib_s"], 4.0);
        assert_eq!(json["exits"]["total"], 4);
        assert_eq!(json["exits_per_mib"], 2.0);
        assert_eq!(json["disks"][1]["requests_per_call"], 4.0);
        assert!(json["peak_memory_kib"].as_u64().unwrap() > 0);
    }

    #[test]
    fn the_object_of_a_run_is_the_same_with_a_type() {
        let [mut object, plain] = [stats().to_object(), stats().to_json()]
            .map(|text| serde_json::from_str::<serde_json::Value>(&text).unwrap());
        let kind = object.as_object_mut().unwrap().remove("type");
        assert_eq!(kind, Some("stats".into()));
        assert_eq!(object["exits"], plain["exits"]);
        assert_eq!(object["disks"], plain["disks"]);
    }

    #[test]
    fn a_failed_run_does_not_say_that_it_copied() {
        assert!(
            stats()
                .to_string()
                .starts_with("copied       2097152 bytes")
        );
        let converted = stats().with_verb("converted").to_string();
        assert!(converted.starts_with("converted    2097152 bytes"));
        let mut failed = stats();
        failed.success = false;
        let text = failed.to_string();
        assert!(text.starts_with("written      2097152 bytes"), "{text}");
        assert!(text.contains("the output is not complete") && !text.contains("copied"));
    }

    #[test]
    fn an_empty_copy_divides_by_nothing() {
        let stats = Stats::new(
            true,
            0,
            0,
            Duration::ZERO,
            &ExitCounts::default(),
            &[
                ("input", BlockCounters::default()),
                ("output", BlockCounters::default()),
            ],
        );
        assert!(stats.to_json().contains("\"exits_per_mib\":0.0"));
    }
}
