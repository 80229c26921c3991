//! Which bytes of the output have been written or declared zero, so that a guest cannot claim a
//! complete copy that it did not make. A sorted list of disjoint ranges: a write that follows the
//! one before it costs a constant time, and the list is bounded, whatever order a guest writes in.

/// Most ranges that are remembered, which takes 1 MiB at the most. A copy that runs in order,
/// forwards or backwards, needs one, a pipelined one no more than it has requests in flight, and
/// one at random at most half as many as it makes requests: 131,072 of them, 16 GiB in requests of
/// 128 KiB, succeed in any order.
const MAX_RANGES: usize = 65_536;

/// A range of bytes, `start` included and `end` not, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: u64,
    end: u64,
}

/// The set of bytes that have been written.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    /// In ascending order; no two touch or overlap.
    ranges: Vec<Range>,
    /// The range that grew last: where the next write is expected.
    recent: usize,
    covered: u64,
    forgotten: bool,
}

impl Coverage {
    /// A set in which no byte is written.
    pub(super) fn new() -> Self {
        Self {
            // All at once, so that nothing is allocated later; what is not used takes no memory.
            ranges: Vec::with_capacity(MAX_RANGES),
            ..Self::default()
        }
    }

    /// Adds the bytes from `start` up to, not including, `end`.
    ///
    /// If that would make more than [`MAX_RANGES`] separate ranges, the new one is not remembered:
    /// its bytes count as not written, and [`forgotten`](Self::forgotten) says so.
    pub(super) fn add(&mut self, start: u64, end: u64) {
        if start >= end || self.append(start, end) {
            return;
        }
        // The ranges that touch or overlap the new one: from `first` up to, not including, `last`.
        let first = self.ranges.partition_point(|range| range.end < start);
        let last = self.ranges.partition_point(|range| range.start <= end);
        if first == last {
            self.insert(first, Range { start, end });
        } else {
            self.merge(first, last, Range { start, end });
        }
    }

    /// Grows the most recent range at its end, if the new bytes belong there and nowhere else.
    fn append(&mut self, start: u64, end: u64) -> bool {
        let next = self.ranges.get(self.recent + 1).map(|next| next.start);
        match self.ranges.get_mut(self.recent) {
            Some(recent) if recent.end == start && next.is_none_or(|next| end < next) => {
                recent.end = end;
                self.covered += end - start;
                true
            }
            _ => false,
        }
    }

    fn insert(&mut self, index: usize, range: Range) {
        if self.ranges.len() >= MAX_RANGES {
            self.forgotten = true;
            return;
        }
        self.ranges.insert(index, range);
        self.recent = index;
        self.covered += range.end - range.start;
    }

    /// Replaces the ranges `first..last`, of which there is at least one, by their union with
    /// `new`.
    fn merge(&mut self, first: usize, last: usize, new: Range) {
        let replaced = &self.ranges[first..last];
        let before: u64 = replaced.iter().map(|range| range.end - range.start).sum();
        let union = replaced.iter().fold(new, |union, range| Range {
            start: union.start.min(range.start),
            end: union.end.max(range.end),
        });
        self.ranges[first] = union;
        self.ranges.drain(first + 1..last);
        self.recent = first;
        self.covered += (union.end - union.start) - before;
    }

    /// Whether any byte from `start` up to, not including, `end` is in the set.
    pub(super) fn overlaps(&self, start: u64, end: u64) -> bool {
        let after = self.ranges.partition_point(|range| range.end <= start);
        self.ranges
            .get(after)
            .is_some_and(|range| range.start < end)
            || self.forgotten
    }

    /// How many bytes are in the set. It never falls.
    pub(super) fn covered(&self) -> u64 {
        self.covered
    }

    /// The first byte below `length` that is not in the set.
    pub(super) fn first_missing(&self, length: u64) -> Option<u64> {
        let from_zero = match self.ranges.first() {
            Some(range) if range.start == 0 => range.end,
            _ => 0,
        };
        (from_zero < length).then_some(from_zero)
    }

    /// Whether bytes that were added are missing, because they lay in too many separate ranges.
    pub(super) fn forgotten(&self) -> bool {
        self.forgotten
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    /// The same set as one boolean a byte.
    fn model(writes: &[(u64, u64)], length: usize) -> Vec<bool> {
        let mut bytes = vec![false; length];
        for (start, end) in writes {
            for (offset, byte) in bytes.iter_mut().enumerate() {
                *byte |= (*start..*end).contains(&(offset as u64));
            }
        }
        bytes
    }

    proptest! {
        #[test]
        fn any_writes_leave_the_same_set_as_a_bitmap(
            writes in prop::collection::vec((0u64..200, 0u64..40), 0..60)
        ) {
            let writes: Vec<_> = writes.iter().map(|(start, size)| (*start, start + size)).collect();
            let mut coverage = Coverage::new();
            for (start, end) in &writes {
                coverage.add(*start, *end);
            }
            let bytes = model(&writes, 240);
            for start in (0..240).step_by(7) {
                for end in (start + 1..240).step_by(5) {
                    let any = bytes[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()]
                        .contains(&true);
                    prop_assert_eq!(coverage.overlaps(start, end), any);
                }
            }
            let missing = bytes.iter().position(|written| !written).map(|offset| offset as u64);
            prop_assert_eq!(coverage.covered(), bytes.iter().filter(|written| **written).count() as u64);
            prop_assert_eq!(coverage.first_missing(240), missing);
            prop_assert!(!coverage.forgotten());
            prop_assert!(coverage.ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
            prop_assert!(coverage.ranges.iter().all(|range| range.start < range.end));
        }

        #[test]
        fn any_order_of_the_pieces_of_a_copy_covers_it(
            order in Just((0u64..64).collect::<Vec<_>>()).prop_shuffle()
        ) {
            let mut coverage = Coverage::new();
            for (done, piece) in order.iter().enumerate() {
                prop_assert_eq!(coverage.covered(), done as u64 * 512);
                coverage.add(piece * 512, (piece + 1) * 512);
            }
            prop_assert_eq!(coverage.first_missing(64 * 512), None);
            prop_assert_eq!(coverage.ranges.len(), 1);
        }
    }

    #[test]
    fn writing_the_same_bytes_twice_counts_them_once() {
        let mut coverage = Coverage::new();
        coverage.add(0, 512);
        coverage.add(0, 512);
        coverage.add(256, 768);
        assert_eq!(coverage.covered(), 768);
    }

    #[test]
    fn scattered_writes_beyond_the_bound_are_forgotten_not_remembered_wrongly() {
        let mut coverage = Coverage::new();
        for piece in 0..100_000 {
            coverage.add(piece * 1024, piece * 1024 + 512);
        }
        assert_eq!(coverage.ranges.len(), MAX_RANGES);
        assert_eq!(coverage.covered(), MAX_RANGES as u64 * 512);
        assert!(coverage.forgotten());
        coverage.add(0, 100_000 * 1024);
        assert_eq!(coverage.first_missing(100_000 * 1024), None);
    }

    #[test]
    fn a_legal_order_of_131072_requests_covers_the_copy_and_allocates_nothing() {
        // A stride that is odd visits every piece once; backwards and inside out as well.
        const PIECES: u64 = 131_072;
        let orders: [fn(u64) -> u64; 4] = [
            |step| PIECES - 1 - step,
            |step| step * 2 % PIECES + step * 2 / PIECES,
            |step| step * 40_503 % PIECES,
            |step| {
                if step % 2 == 0 {
                    step / 2
                } else {
                    PIECES - 1 - step / 2
                }
            },
        ];
        for order in orders {
            let mut coverage = Coverage::new();
            let capacity = coverage.ranges.capacity();
            for step in 0..PIECES {
                let start = order(step) * 512;
                coverage.add(start, start + 512);
            }
            assert_eq!(coverage.first_missing(PIECES * 512), None);
            assert!(!coverage.forgotten());
            assert_eq!(coverage.ranges.capacity(), capacity);
        }
    }

    #[test]
    fn an_empty_set_covers_an_empty_file_and_no_other() {
        let coverage = Coverage::new();
        assert_eq!(coverage.first_missing(0), None);
        assert_eq!(coverage.first_missing(1), Some(0));
    }

    #[test]
    fn offsets_at_the_end_of_the_range_of_u64_do_not_overflow() {
        let mut coverage = Coverage::new();
        coverage.add(u64::MAX - 1, u64::MAX);
        coverage.add(0, u64::MAX - 1);
        assert_eq!(coverage.covered(), u64::MAX);
    }
}
