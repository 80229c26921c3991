//! Which bytes of the output have been written or declared zero, and not discarded since, so that a guest
//! cannot claim a complete copy that it did not make. A sorted list of disjoint ranges with a gap where it was
//! changed last: a change near the one before it costs a constant time, and the list is bounded,
//! whatever order a guest writes in.

/// Most ranges that are remembered, which takes 1 MiB at the most. A copy that runs in order,
/// forwards or backwards, needs one, a pipelined one no more than it has requests in flight, one
/// with holes one for each hole, and one at random at most half as many as it makes requests:
/// 131,072 of them, 16 GiB in requests of 128 KiB, succeed in any order.
const MAX_RANGES: usize = 65_536;

/// A range of bytes, `start` included and `end` not, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: u64,
    end: u64,
}

/// The set of bytes that have been written.
#[derive(Debug)]
pub(super) struct Coverage {
    /// Start and end of each range, in ascending order; no two ranges touch or overlap. The first
    /// `before` places are in use and the last `after`; between them is the gap, just behind the range
    /// that changed last: where the next write is expected.
    places: Vec<[u64; 2]>,
    before: usize,
    after: usize,
    covered: u64,
    forgotten: bool,
    /// Whether any were taken out: what is in the file there is not known.
    removed: bool,
}

impl Coverage {
    /// A set in which no byte is written.
    pub(super) fn new() -> Self {
        Self {
            // All at once, so that nothing is allocated later; zeros that nobody touches take no memory.
            places: vec![[0; 2]; MAX_RANGES],
            before: 0,
            after: 0,
            covered: 0,
            forgotten: false,
            removed: false,
        }
    }

    /// Adds the bytes from `start` up to, not including, `end`.
    ///
    /// If that would make more than [`MAX_RANGES`] separate ranges, the new one is not remembered: its
    /// bytes count as not written, and [`forgotten`](Self::forgotten) says so.
    pub(super) fn add(&mut self, start: u64, end: u64) {
        if start >= end || self.append(start, end) {
            return;
        }
        // The ranges that touch or overlap the new one: from `first` up to, not including, `last`.
        let first = self.partition_point(|range| range.end < start);
        let last = self.partition_point(|range| range.start <= end);
        if first == last && self.len() >= MAX_RANGES {
            self.forgotten = true;
            return;
        }
        self.replace(first, last - first, Range { start, end });
    }

    /// Takes out the bytes from `start` up to, not including, `end`: they count as not written until they
    /// are added again.
    ///
    /// If that would split a range where there are [`MAX_RANGES`] already, its part behind `end` is not
    /// remembered either, and [`forgotten`](Self::forgotten) says so.
    pub(super) fn remove(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        self.removed = true;
        // The ranges that overlap these bytes: from `first` up to, not including, `last`.
        let first = self.partition_point(|range| range.end <= start);
        let last = self.partition_point(|range| range.start < end);
        if first == last {
            return;
        }
        let (head, tail) = (self.get(first).start, self.get(last - 1).end);
        self.move_gap(first);
        for index in first..last {
            let range = self.get(index);
            self.covered -= range.end - range.start;
        }
        self.after -= last - first;
        if head < start {
            self.places[self.before] = [head, start];
            self.before += 1;
            self.covered += start - head;
        }
        if end < tail && self.len() < MAX_RANGES {
            self.after += 1;
            let place = self.places.len() - self.after;
            self.places[place] = [end, tail];
            self.covered += tail - end;
        } else if end < tail {
            self.forgotten = true;
        }
    }

    /// Grows the range that changed last at its end, if the new bytes belong there and nowhere else.
    fn append(&mut self, start: u64, end: u64) -> bool {
        let next = (self.after > 0).then(|| self.get(self.before).start);
        let Some(recent) = self.before.checked_sub(1) else {
            return false;
        };
        if self.get(recent).end != start || next.is_some_and(|next| next <= end) {
            return false;
        }
        self.places[recent][1] = end;
        self.covered += end - start;
        true
    }

    /// Replaces the `count` ranges from the one with the index `first` up by their union with `new`.
    fn replace(&mut self, first: usize, count: usize, new: Range) {
        self.move_gap(first);
        let (mut union, mut before) = (new, 0);
        for index in first..first + count {
            let range = self.get(index);
            union.start = union.start.min(range.start);
            union.end = union.end.max(range.end);
            before += range.end - range.start;
        }
        self.after -= count;
        self.places[self.before] = [union.start, union.end];
        self.before += 1;
        self.covered += (union.end - union.start) - before;
    }

    /// Moves the gap to before the range with this index.
    fn move_gap(&mut self, index: usize) {
        let behind = self.places.len() - self.after;
        if let Some(count) = self.before.checked_sub(index) {
            self.places.copy_within(index..self.before, behind - count);
            self.after += count;
        } else {
            let count = index - self.before;
            self.places.copy_within(behind..behind + count, self.before);
            self.after -= count;
        }
        self.before = index;
    }

    /// How many ranges there are.
    fn len(&self) -> usize {
        self.before + self.after
    }

    /// The range with this index, less than [`Self::len`].
    fn get(&self, index: usize) -> Range {
        let gap = self.places.len() - self.len();
        let place = if index < self.before {
            index
        } else {
            index + gap
        };
        let [start, end] = self.places[place];
        Range { start, end }
    }

    /// How many ranges there are from the first one up for which `is_before` holds: it holds for none
    /// behind them.
    fn partition_point(&self, is_before: impl Fn(Range) -> bool) -> usize {
        let holds = |place: &[u64; 2]| {
            is_before(Range {
                start: place[0],
                end: place[1],
            })
        };
        let (head, rest) = self.places.split_at(self.before);
        match head.last() {
            Some(last) if !holds(last) => head.partition_point(holds),
            _ => {
                let tail = &rest[rest.len() - self.after..];
                self.before + tail.partition_point(holds)
            }
        }
    }

    /// Whether any byte from `start` up to, not including, `end` may ever have been in the set.
    pub(super) fn overlaps(&self, start: u64, end: u64) -> bool {
        let after = self.partition_point(|range| range.end <= start);
        let found = (after < self.len()).then(|| self.get(after));
        found.is_some_and(|range| range.start < end) || self.forgotten || self.removed
    }

    /// How many bytes are in the set.
    pub(super) fn covered(&self) -> u64 {
        self.covered
    }

    /// The first byte below `length` that is not in the set.
    pub(super) fn first_missing(&self, length: u64) -> Option<u64> {
        let first = (self.len() > 0).then(|| self.get(0));
        let from_zero = match first {
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

    fn ranges(coverage: &Coverage) -> Vec<Range> {
        (0..coverage.len())
            .map(|index| coverage.get(index))
            .collect()
    }

    /// The same set as one boolean a byte. Each change has a start, an end, and whether it adds bytes.
    fn model(changes: &[(u64, u64, bool)], length: usize) -> Vec<bool> {
        let mut bytes = vec![false; length];
        for (start, end, adds) in changes {
            let (start, end) = (
                usize::try_from(*start).unwrap(),
                usize::try_from(*end).unwrap(),
            );
            bytes[start..end].fill(*adds);
        }
        bytes
    }

    /// Checks what is true of every set: it is the same as `bytes`, and its ranges do not touch.
    fn check(coverage: &Coverage, bytes: &[bool]) -> Result<(), TestCaseError> {
        let missing = bytes
            .iter()
            .position(|written| !written)
            .map(|offset| offset as u64);
        prop_assert_eq!(
            coverage.covered(),
            bytes.iter().filter(|written| **written).count() as u64
        );
        prop_assert_eq!(coverage.first_missing(bytes.len() as u64), missing);
        prop_assert!(!coverage.forgotten());
        let ranges = ranges(coverage);
        prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
        prop_assert!(ranges.iter().all(|range| range.start < range.end));
        Ok(())
    }

    proptest! {
        #[test]
        fn any_writes_leave_the_same_set_as_a_bitmap(
            writes in prop::collection::vec((0u64..200, 0u64..40), 0..60)
        ) {
            let writes: Vec<_> = writes.iter().map(|(start, size)| (*start, start + size, true)).collect();
            let mut coverage = Coverage::new();
            for (start, end, _) in &writes {
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
            check(&coverage, &bytes)?;
        }

        #[test]
        fn any_writes_and_discards_leave_the_same_set_as_a_bitmap(
            changes in prop::collection::vec((0u64..200, 0u64..40, any::<bool>()), 0..60)
        ) {
            let changes: Vec<_> = changes
                .iter()
                .map(|(start, size, adds)| (*start, start + size, *adds))
                .collect();
            let mut coverage = Coverage::new();
            for (done, (start, end, adds)) in changes.iter().enumerate() {
                match adds {
                    true => coverage.add(*start, *end),
                    false => coverage.remove(*start, *end),
                }
                check(&coverage, &model(&changes[..=done], 240))?;
            }
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
            prop_assert_eq!(coverage.len(), 1);
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
        assert_eq!(coverage.len(), MAX_RANGES);
        assert_eq!(coverage.covered(), MAX_RANGES as u64 * 512);
        assert!(coverage.forgotten());
        coverage.add(0, 100_000 * 1024);
        assert_eq!(coverage.first_missing(100_000 * 1024), None);
    }

    #[test]
    fn a_range_that_is_split_where_there_are_too_many_counts_as_less_than_is_there() {
        let mut coverage = Coverage::new();
        for piece in 0..MAX_RANGES as u64 {
            coverage.add(piece * 1024, piece * 1024 + 512);
        }
        coverage.remove(1024 + 100, 1024 + 200);
        assert_eq!(coverage.len(), MAX_RANGES);
        assert_eq!(coverage.covered(), MAX_RANGES as u64 * 512 - 412);
        assert!(coverage.forgotten());
        // Where a whole range goes, another one can be split.
        coverage.remove(0, 1024);
        coverage.remove(2048 + 100, 2048 + 200);
        assert_eq!(coverage.len(), MAX_RANGES);
        assert_eq!(
            coverage.covered(),
            MAX_RANGES as u64 * 512 - 412 - 512 - 100
        );
    }

    #[test]
    fn what_was_taken_out_may_be_anywhere() {
        let mut coverage = Coverage::new();
        coverage.add(0, 512);
        assert!(!coverage.overlaps(512, 1024));
        coverage.remove(0, 512);
        assert!(coverage.overlaps(0, 512));
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
            let capacity = coverage.places.capacity();
            for step in 0..PIECES {
                let start = order(step) * 512;
                coverage.add(start, start + 512);
            }
            assert_eq!(coverage.first_missing(PIECES * 512), None);
            assert!(!coverage.forgotten());
            assert_eq!(coverage.places.capacity(), capacity);
        }
    }

    #[test]
    fn holes_that_are_declared_first_and_data_between_them_cover_the_copy() {
        const HOLES: u64 = 30_000;
        let mut coverage = Coverage::new();
        for hole in 0..HOLES {
            coverage.add(hole * 1000, hole * 1000 + 900);
        }
        assert_eq!(coverage.len() as u64, HOLES);
        // As a pipelined copy does it: nearly in order.
        for data in (0..HOLES).map(|step| step ^ 3) {
            coverage.add(data * 1000 + 900, (data + 1) * 1000);
            assert!(coverage.overlaps(data * 1000 + 950, data * 1000 + 951));
        }
        assert_eq!((coverage.len(), coverage.covered()), (1, HOLES * 1000));
        assert_eq!(coverage.first_missing(HOLES * 1000), None);
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
