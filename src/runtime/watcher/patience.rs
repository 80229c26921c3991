//! How long the main thread may take to react when the run is to end, by what it is doing. The time
//! is counted in looks and not on a clock: a process that was stopped, or a host that slept, has not
//! had the time that passed meanwhile.

use std::time::Duration;

/// The time between two looks at a main thread that is to react.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// What the main thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// It opens what is read. Nothing has been made yet, and signals end the process by themselves, or
    /// at once by the watcher if it is the first of a namespace.
    Opening,
    /// It makes what is written, and the machine.
    Preparing,
    /// It is in the main loop.
    Running,
    /// It ends threads, shows what there is to show, or takes back what was made.
    Ending,
    /// It puts the output in place.
    Committing,
    /// The output is in place; what is left is statistics and last lines.
    InPlace,
    /// It has done all that there was to do, and the watcher ends.
    Over,
    /// The watcher is about to end the process: the main thread must not go on to another stage.
    Ended,
}

impl Stage {
    const ALL: [Self; 8] = [
        Self::Opening,
        Self::Preparing,
        Self::Running,
        Self::Ending,
        Self::Committing,
        Self::InPlace,
        Self::Over,
        Self::Ended,
    ];

    /// The stage with this number.
    pub(super) fn of(number: u8) -> Self {
        let stage = Self::ALL.get(usize::from(number));
        stage.copied().unwrap_or(Self::Ended)
    }
}

/// Why a run is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Its time is over.
    Late,
    /// A signal has arrived.
    Signal,
}

/// What the watcher sees at one look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// What the main thread is doing.
    pub(super) stage: Stage,
    /// How often it has shown that it goes on.
    pub(super) beats: u32,
    /// Whether the time is over.
    pub(super) late: bool,
    /// Whether a signal has arrived.
    pub(super) signal: bool,
}

impl Seen {
    /// Whether the run is to end.
    pub(super) const fn is_asked_to_end(&self) -> bool {
        self.late || self.signal
    }
}

/// The looks since the main thread last went on while the run was to end.
#[derive(Debug)]
pub(super) struct Patience {
    stage: Stage,
    beats: u32,
    late: u32,
    signal: u32,
}

impl Patience {
    pub(super) const fn new() -> Self {
        Self {
            stage: Stage::Opening,
            beats: 0,
            late: 0,
            signal: 0,
        }
    }

    /// Takes note of a look, and says whether the watcher has to end the process, and for which
    /// reason.
    pub(super) fn look(&mut self, seen: &Seen) -> Option<Why> {
        if (self.stage, self.beats) != (seen.stage, seen.beats) {
            *self = Self {
                stage: seen.stage,
                beats: seen.beats,
                ..Self::new()
            };
        }
        for (why, asked, looks) in [
            (Why::Late, seen.late, &mut self.late),
            (Why::Signal, seen.signal, &mut self.signal),
        ] {
            if !asked {
                continue;
            }
            if *looks >= looks_allowed(seen.stage, why) {
                return Some(why);
            }
            *looks += 1;
        }
        None
    }
}

/// How many looks the main thread may take without going on. Where it waits by itself it waits for
/// less: two seconds for threads that are to end, and a second for a reader of the last lines.
fn looks_allowed(stage: Stage, why: Why) -> u32 {
    let seconds = match (stage, why) {
        (Stage::Opening, _) => 0,
        (Stage::Preparing | Stage::Running, _) => 2,
        (Stage::Ending | Stage::InPlace, _) | (Stage::Committing, Why::Signal) => 4,
        // The guest has ended in time, so that the run is to succeed.
        (Stage::Committing, Why::Late) => 10,
        (Stage::Over | Stage::Ended, _) => return u32::MAX,
    };
    let looks = Duration::from_secs(seconds).as_millis() / LOOK.as_millis();
    u32::try_from(looks).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: Seen = Seen {
        stage: Stage::Running,
        beats: 7,
        late: true,
        signal: false,
    };
    const SIGNAL: Seen = Seen {
        late: false,
        signal: true,
        ..LATE
    };

    /// After how much time the watcher ends a process that looks like this at each look, and why.
    fn ends_after(patience: &mut Patience, seen: Seen) -> Option<(Duration, Why)> {
        (0..10_000).find_map(|looks| patience.look(&seen).map(|why| (LOOK * looks, why)))
    }

    fn seconds_until(seen: Seen) -> Option<(u64, Why)> {
        let ended = ends_after(&mut Patience::new(), seen);
        ended.map(|(after, why)| (after.as_secs(), why))
    }

    #[test]
    fn each_stage_has_its_time_to_react() {
        for (stage, late, signal) in [
            (Stage::Opening, 0, 0),
            (Stage::Preparing, 2, 2),
            (Stage::Running, 2, 2),
            (Stage::Ending, 4, 4),
            (Stage::Committing, 10, 4),
            (Stage::InPlace, 4, 4),
        ] {
            let found = seconds_until(Seen { stage, ..LATE });
            assert_eq!(found, Some((late, Why::Late)), "{stage:?}");
            let found = seconds_until(Seen { stage, ..SIGNAL });
            assert_eq!(found, Some((signal, Why::Signal)), "{stage:?}");
        }
    }

    #[test]
    fn a_run_that_nobody_wants_to_end_may_wait_for_ever() {
        for stage in Stage::ALL {
            let quiet = Seen {
                stage,
                late: false,
                ..LATE
            };
            assert_eq!(seconds_until(quiet), None, "{stage:?}");
        }
    }

    #[test]
    fn a_main_thread_that_has_done_its_work_is_not_ended() {
        for stage in [Stage::Over, Stage::Ended] {
            assert_eq!(seconds_until(Seen { stage, ..LATE }), None);
        }
    }

    #[test]
    fn a_beat_or_another_stage_begins_the_time_anew() {
        let mut patience = Patience::new();
        for beats in 0..500 {
            assert_eq!(patience.look(&Seen { beats, ..LATE }), None);
        }
        let almost = |patience: &mut Patience, seen| {
            (0..39).for_each(|_| assert_eq!(patience.look(&seen), None));
        };
        almost(&mut patience, LATE);
        let stage = Stage::Preparing;
        almost(&mut patience, Seen { stage, ..LATE });
        let left = ends_after(&mut patience, Seen { stage, ..LATE });
        assert_eq!(left, Some((LOOK, Why::Late)));
    }

    #[test]
    fn a_signal_ends_a_commit_that_the_time_limit_would_still_wait_for() {
        let both = Seen {
            stage: Stage::Committing,
            signal: true,
            ..LATE
        };
        assert_eq!(seconds_until(both), Some((4, Why::Signal)));
    }

    #[test]
    fn each_stage_is_found_by_its_number() {
        for stage in Stage::ALL {
            assert_eq!(Stage::of(stage as u8), stage);
        }
        assert_eq!(Stage::of(200), Stage::Ended);
    }
}
