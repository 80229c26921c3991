//! How a driver has asked for things lately, and so whether a thread that helps should do them.
//!
//! Two habits make it worth while. A driver that waits for each request before it makes the next
//! one would only ever wake a thread that then wakes it. And large reads leave the driver's
//! processor with nothing to do while another device writes what it has read before. Everything
//! else is left to the device's own thread: many small requests cost the processor more than a
//! wake-up does, and large writes are what everyone waits for in the end.

/// Requests are large that have so many bytes on average.
const LARGE_REQUEST: u64 = 16 << 10;
/// After so many turns with a single request each, the next one will be alone too.
const ALONE: u8 = 8;

/// What the turns at one queue have shown.
#[derive(Debug, Default)]
pub(super) struct Habit {
    /// Turns with a single request since the last one with more, up to [`ALONE`].
    alone: u8,
    reads_much: bool,
}

impl Habit {
    /// Takes note of a turn with `requests`, of which there were some; they moved so many `bytes`,
    /// and `written` bytes were put into the driver's memory.
    pub(super) fn note(&mut self, requests: usize, bytes: u64, written: u64) {
        let large = bytes >= requests as u64 * LARGE_REQUEST;
        self.reads_much = large && written >= bytes;
        self.alone = if requests == 1 {
            ALONE.min(self.alone + 1)
        } else {
            0
        };
    }

    /// Whether a thread that has nothing else to do should help.
    pub(super) fn wants_help(&self) -> bool {
        self.reads_much || self.alone == ALONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_come_one_by_one_are_helped_until_they_do_not() {
        let mut habit = Habit::default();
        for _ in 0..ALONE {
            assert!(!habit.wants_help());
            habit.note(1, 512, 1);
        }
        assert!(habit.wants_help());
        habit.note(1, 1 << 20, 1);
        assert!(habit.wants_help());
        habit.note(2, 1024, 2);
        assert!(!habit.wants_help());
    }

    #[test]
    fn large_reads_are_helped_at_once_and_large_writes_or_small_reads_are_not() {
        for (requests, bytes, written, helped) in [
            (4, 4 << 17, (4 << 17) + 4, true),
            (4, 4 << 17, 4, false),
            (300, 300 * 512, 300 * 513, false),
            // A chain of another device need not have data.
            (4, 0, 0, false),
        ] {
            let mut habit = Habit::default();
            habit.note(requests, bytes, written);
            assert_eq!(habit.wants_help(), helped, "{requests} {bytes} {written}");
        }
    }
}
