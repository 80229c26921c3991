//! Which windows the entries of L2 tables name, so that a pass reads only the tables that name
//! something in its own.
//!
//! Each pass meets the same tables in the same order. The first one reads them all, and notes the first
//! and the last window that each of them names. Most images have clusters that are close together on the
//! disk close together in the file as well. If there are more tables than notes, a note is for several
//! tables that follow each other, so that the memory is fixed: at most 32 KiB.

use alloc::vec::Vec;
use core::ops::Range;

/// The most notes, an even number.
const MOST: usize = 8192;

/// What the tables of one note name: the numbers of the first window and of the last one.
type Note = (u16, u16);
/// The note of a table that names nothing. Joined with another one, it changes nothing.
const NOTHING: Note = (u16::MAX, 0);

/// The notes, and how far this pass is.
#[derive(Debug)]
pub(super) struct Reach {
    notes: Vec<Note>,
    /// For how many tables a note is.
    tables: usize,
    /// How many tables this pass has met.
    met: usize,
}

impl Reach {
    pub(super) fn new() -> Self {
        Self {
            notes: Vec::new(),
            tables: 1,
            met: 0,
        }
    }

    /// Begins a pass.
    pub(super) fn restart(&mut self) {
        self.met = 0;
    }

    /// Notes the windows that the next table names, in the first pass.
    pub(super) fn note(&mut self, windows: Option<Range<u64>>) {
        if self.met == MOST * self.tables {
            let pairs = self.notes.chunks(2);
            self.notes = pairs
                .map(|pair| pair.iter().copied().fold(NOTHING, join))
                .collect();
            self.tables *= 2;
        }
        let index = self.met / self.tables;
        self.met += 1;
        if index == self.notes.len() {
            self.notes.push(NOTHING);
        }
        if let (Some(note), Some(windows)) = (self.notes.get_mut(index), windows) {
            *note = join(*note, (number(windows.start), number(windows.end - 1)));
        }
    }

    /// Goes on to the next table in a later pass. Returns whether it may name something in a window.
    pub(super) fn meet(&mut self, window: u64) -> bool {
        let note = self.notes.get(self.met / self.tables).copied();
        self.met += 1;
        note.is_none_or(|(first, last)| (first..=last).contains(&number(window)))
    }
}

fn join((first, last): Note, (other_first, other_last): Note) -> Note {
    (first.min(other_first), last.max(other_last))
}

/// The number of a window as it is noted. The largest one stands for all larger ones, too.
fn number(window: u64) -> u16 {
    u16::try_from(window).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(reach: &mut Reach, window: u64, tables: usize) -> Vec<bool> {
        reach.restart();
        (0..tables).map(|_| reach.meet(window)).collect()
    }

    #[test]
    fn a_table_is_met_in_the_windows_that_it_names() {
        let mut reach = Reach::new();
        for windows in [Some(1..3), None, Some(70_000..80_000)] {
            reach.note(windows);
        }
        assert_eq!(met(&mut reach, 1, 3), [true, false, false]);
        assert_eq!(met(&mut reach, 2, 3), [true, false, false]);
        assert_eq!(met(&mut reach, 3, 3), [false, false, false]);
        assert_eq!(met(&mut reach, 65_534, 3), [false, false, false]);
        assert_eq!(met(&mut reach, 75_000, 3), [false, false, true]);
        // A table of which nothing was noted may name anything.
        assert_eq!(met(&mut reach, 3, 4), [false, false, false, true]);
    }

    #[test]
    fn tables_without_a_note_of_their_own_share_one() {
        let mut reach = Reach::new();
        let tables = 5 * MOST + 1;
        for table in 0..tables {
            reach.note((table % 2 == 1).then(|| (table / 8) as u64..(table / 8) as u64 + 1));
        }
        assert!(reach.notes.len() <= MOST);
        for window in [0, 7, 100, tables as u64 / 8 - 1] {
            let found = met(&mut reach, window, tables);
            let place = |table: usize| (table / 8) as u64 == window;
            assert!(
                (0..tables).all(|table| found[table] == place(table)),
                "{window}"
            );
        }
    }
}
