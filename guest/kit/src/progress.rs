//! When a program reports progress, and to whom: which of the counts 1 to total are worth a message.
//!
//! The points depend on the total and the interval alone, so the same reports come out in the same
//! order whatever steps the count moves in.

/// The most points that are given within a hole that is skipped in one step: what it saves to skip
/// a hole would be lost if each ten of its sectors were reported.
const MAX_IN_HOLE: u64 = 4096;

/// The counts to report, in sectors.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    total: u64,
    interval: u32,
    next: Option<u64>,
}

/// Whoever wants to know how the work on a disk gets on.
pub trait Observer {
    /// The first `sectors` sectors of the input disk are done. Called with counts that never fall.
    fn done(&mut self, sectors: u64);

    /// The first `sectors` sectors are dealt with, of which the last ones were a hole that is passed
    /// in one step.
    fn skipped(&mut self, sectors: u64);

    /// There is nothing to do until a disk has done something.
    fn idle(&mut self);
}

/// Whoever can report progress to the VMM.
pub trait Reports {
    /// `current` of `total` sectors of the input disk are done.
    fn progress(&mut self, current: u64, total: u64);

    /// Sends what is waiting, if the VMM would see it now.
    fn idle(&mut self);
}

/// An observer that reports the points of a schedule as they are passed.
#[derive(Debug)]
pub struct Scheduled<'a, R> {
    schedule: Schedule,
    reporter: &'a mut R,
}

impl<'a, R: Reports> Scheduled<'a, R> {
    /// Has `reporter` report the points of `schedule`.
    #[must_use]
    pub const fn new(schedule: Schedule, reporter: &'a mut R) -> Self {
        Self { schedule, reporter }
    }
}

impl<R: Reports> Observer for Scheduled<'_, R> {
    fn done(&mut self, sectors: u64) {
        while let Some(point) = self.schedule.take(sectors) {
            self.reporter.progress(point, self.schedule.total());
        }
    }

    fn skipped(&mut self, sectors: u64) {
        self.schedule.skip(sectors);
    }

    fn idle(&mut self) {
        self.reporter.idle();
    }
}

/// How far `current` is in percent, rounded down.
#[must_use]
pub fn percent(current: u64, total: u64) -> u32 {
    let percent = u128::from(current) * 100 / u128::from(total.max(1));
    u32::try_from(percent).unwrap_or(u32::MAX)
}

impl Schedule {
    /// The schedule for `total` sectors. An `interval` of 0 reports sectors 1, 11, 21 and so on and
    /// the last one; 1 to 99 the first sector at which each multiple of so many percent is reached,
    /// and the last one; 100 reports nothing.
    #[must_use]
    pub fn new(total: u64, interval: u32) -> Self {
        let mut schedule = Self {
            total,
            interval,
            next: None,
        };
        if total > 0 && interval < 100 {
            schedule.next = Some(schedule.after(0));
        }
        schedule
    }

    /// The total that the points lead to.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// The next point that is not beyond `count`; each is given once.
    pub fn take(&mut self, count: u64) -> Option<u64> {
        let point = self.next.filter(|&point| point <= count)?;
        self.next = (point < self.total).then(|| self.after(point));
        Some(point)
    }

    /// Takes note that the counts up to `count` are passed in one step, which deals with a hole. If
    /// that makes more than `MAX_IN_HOLE` points, only the last of them is left to be given.
    pub fn skip(&mut self, count: u64) {
        let count = count.min(self.total);
        let Some(next) = self.next.filter(|&next| next <= count) else {
            return;
        };
        // Percentages are few by themselves.
        if self.interval == 0 && (count - next) / 10 >= MAX_IN_HOLE {
            self.next = Some(match count == self.total {
                true => count,
                false => (count - 1) / 10 * 10 + 1,
            });
        }
    }

    /// The first point after `count`, which is less than the total.
    fn after(&self, count: u64) -> u64 {
        let point = match self.interval {
            // One behind the next ten: 0 itself for 0, and 10, 20, ... for 1, 11, ...
            0 => count.div_ceil(10).saturating_mul(10).saturating_add(1),
            interval => self.first_at(percent(count, self.total) / interval * interval + interval),
        };
        point.min(self.total)
    }

    /// The first count at which `percent` are reached.
    fn first_at(&self, percent: u32) -> u64 {
        let count = (u128::from(self.total) * u128::from(percent)).div_ceil(100);
        u64::try_from(count).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    /// Sector by sector, as the specification's words say it.
    fn naive(total: u64, interval: u32) -> Vec<u64> {
        let step = |count: u64| count * 100 / total / u64::from(interval);
        (1..=total)
            .filter(|&count| match interval {
                0 => count % 10 == 1 || count == total,
                100 => false,
                _ => step(count) > step(count - 1) || count == total,
            })
            .collect()
    }

    fn points(total: u64, interval: u32, counts: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut schedule = Schedule::new(total, interval);
        let mut points = Vec::new();
        for count in counts {
            points.extend(core::iter::from_fn(|| schedule.take(count)));
        }
        points
    }

    #[test]
    fn fifty_sectors_are_reported_as_the_reference_shows() {
        assert_eq!(points(50, 0, [50]), [1, 11, 21, 31, 41, 50]);
        assert_eq!(points(51, 0, [51]), [1, 11, 21, 31, 41, 51]);
    }

    #[test]
    fn an_interval_in_percent_ends_at_the_last_sector() {
        assert_eq!(points(1000, 30, [1000]), [300, 600, 900, 1000]);
        assert_eq!(points(3, 10, [3]), [1, 2, 3]);
    }

    #[test]
    fn nothing_is_reported_of_nothing_or_if_not_wanted() {
        assert!(points(0, 0, [0]).is_empty());
        assert!(points(1000, 100, [1000]).is_empty());
    }

    #[test]
    fn a_hole_has_its_points_unless_they_are_very_many() {
        let rest = |schedule: &mut Schedule, count| {
            core::iter::from_fn(|| schedule.take(count)).collect::<Vec<_>>()
        };
        let mut schedule = Schedule::new(1 << 34, 0);
        schedule.skip(40_000);
        assert_eq!(rest(&mut schedule, 40_000).len(), 4000);
        schedule.skip(1 << 33);
        let last = (1 << 33) - ((1 << 33) - 1) % 10;
        assert_eq!(rest(&mut schedule, 1 << 33), [last]);
        assert_eq!(rest(&mut schedule, last + 20), [last + 10, last + 20]);
        // A short one behind a long one is a short one.
        schedule.skip(last + 1020);
        assert_eq!(rest(&mut schedule, last + 1020).len(), 100);
        schedule.skip(u64::MAX);
        assert_eq!(rest(&mut schedule, 1 << 34), [1 << 34]);
        schedule.skip(1 << 34);
        assert_eq!(schedule.take(1 << 34), None);
        let mut schedule = Schedule::new(1 << 34, 10);
        schedule.skip(1 << 34);
        assert_eq!(rest(&mut schedule, 1 << 34).len(), 10);
    }

    #[test]
    fn the_last_point_of_a_hole_is_not_beyond_it() {
        for end in 10_000_000..10_000_011 {
            let mut schedule = Schedule::new(1 << 34, 0);
            schedule.skip(end);
            assert_eq!(schedule.take(end), Some((end - 1) / 10 * 10 + 1));
            assert_eq!(schedule.take(end), None);
        }
    }

    #[test]
    fn who_reports_is_told_of_a_long_hole_once() {
        #[derive(Default)]
        struct Points(Vec<u64>, usize);
        impl Reports for Points {
            fn progress(&mut self, current: u64, total: u64) {
                assert_eq!(total, 1 << 34);
                assert!(self.0.len() < 3, "each point of the hole is told");
                self.0.push(current);
            }

            fn idle(&mut self) {
                self.1 += 1;
            }
        }
        let mut points = Points::default();
        let mut scheduled = Scheduled::new(Schedule::new(1 << 34, 0), &mut points);
        scheduled.done(1);
        scheduled.skipped(10_000_000);
        scheduled.done(10_000_000);
        scheduled.idle();
        assert_eq!((points.0, points.1), (vec![1, 9_999_991], 1));
    }

    #[test]
    fn the_largest_total_does_not_overflow() {
        let mut schedule = Schedule::new(u64::MAX, 99);
        assert!(schedule.take(u64::MAX).is_some());
        assert_eq!(schedule.take(u64::MAX), Some(u64::MAX));
        assert_eq!(percent(u64::MAX, u64::MAX), 100);
    }

    proptest! {
        #[test]
        fn points_are_those_of_the_naive_model_whatever_the_steps(
            total in 0_u64..3000,
            interval in 0_u32..=100,
            steps in prop::collection::vec(1_u64..400, 0..50),
        ) {
            let counts = steps.iter().scan(0, |count, step| {
                *count = (*count + step).min(total);
                Some(*count)
            });
            let found = points(total, interval, counts.chain([total]));
            prop_assert_eq!(found, naive(total, interval));
        }
    }
}
