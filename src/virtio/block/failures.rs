//! The errors of the host that requests have met and that nobody has made good.
//!
//! A driver may ask again for what has failed. If all of it then succeeds the error has done no
//! harm; what stays here is what was never read or written.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::disk::{BlockIoError, IoOperation};
use crate::lock::lock;

/// Most separate pieces of a disk that can wait to be made good. With more of them, the errors
/// stay: this bounds what a guest can make the device remember.
const MAX_PIECES: usize = 64;

/// A piece of the disk, in bytes, that could not be read, written or discarded.
#[derive(Clone, Debug)]
struct Piece {
    /// What it is left of.
    error: Arc<BlockIoError>,
    start: u64,
    end: u64,
}

impl Piece {
    /// Whether nothing of it is left to be done where `operation` has succeeded. What has been
    /// written need not be discarded any more. A flush is not made good by another one: Linux tells
    /// once of what it could not write back, and may have dropped it then (fsync(2), "EIO").
    fn is_made_good_by(&self, operation: IoOperation) -> bool {
        match (self.error.operation, operation) {
            (IoOperation::Flush, _) => false,
            (IoOperation::Discard, IoOperation::Write) => true,
            (failed, done) => failed == done,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// What has not been made good, in the order of the errors.
    pieces: Vec<Piece>,
    /// The error of the first piece that was not remembered, which nothing can make good.
    overflow: Option<Arc<BlockIoError>>,
}

impl State {
    /// Takes what lies from `start` to `end` out of the pieces for which `concerned` says so.
    fn take_out(&mut self, start: u64, end: u64, concerned: impl Fn(&Piece) -> bool) {
        for piece in std::mem::take(&mut self.pieces) {
            let before = (piece.start, start.min(piece.end));
            let behind = (end.max(piece.start), piece.end);
            let left = if concerned(&piece) {
                [before, behind]
            } else {
                [(piece.start, piece.end), (0, 0)]
            };
            for (start, end) in left.into_iter().filter(|(start, end)| start < end) {
                self.remember(Piece {
                    error: Arc::clone(&piece.error),
                    start,
                    end,
                });
            }
        }
    }

    /// However pieces come up, as new errors or as what is left of old ones: no more than the limit.
    fn remember(&mut self, piece: Piece) {
        if self.pieces.len() < MAX_PIECES {
            self.pieces.push(piece);
        } else {
            self.overflow.get_or_insert(piece.error);
        }
    }
}

/// What has failed on one disk.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// Whether anything has failed. It is asked without the lock, so that a request that succeeds
    /// does not have to take it.
    any: AtomicBool,
    state: Mutex<State>,
}

impl Failures {
    /// The first error of those that have not been made good.
    pub(super) fn first(&self) -> Option<Arc<BlockIoError>> {
        let state = lock(&self.state);
        let remembered = state.pieces.first().map(|piece| &piece.error);
        remembered.or(state.overflow.as_ref()).cloned()
    }

    /// Adds an error of the host. Where an older one of the same operation covers it, as that of a
    /// request of which a part is asked for again, the new one knows better where the fault lies.
    pub(super) fn add(&self, error: BlockIoError) {
        // A flush covers nothing, and nothing makes it good.
        let (start, end) = (error.offset, error.offset + error.len.max(1));
        let operation = error.operation;
        let piece = Piece {
            start,
            end,
            error: Arc::new(error),
        };
        let covers = |older: &Piece| {
            let is_around = older.start <= start && end <= older.end;
            is_around && older.error.operation == operation && operation != IoOperation::Flush
        };
        let mut state = lock(&self.state);
        match state.pieces.iter().position(covers) {
            Some(place) => {
                state.take_out(start, end, covers);
                // Before what is left of the older one.
                let behind = state.pieces.split_off(place);
                std::iter::once(piece)
                    .chain(behind)
                    .for_each(|piece| state.remember(piece));
            }
            None => state.remember(piece),
        }
        self.any.store(true, Ordering::SeqCst);
    }

    /// Takes note that `operation` has succeeded on `len` bytes, however many.
    pub(super) fn make_good(&self, operation: IoOperation, offset: u64, len: u64) {
        if !self.any.load(Ordering::Relaxed) {
            return;
        }
        let mut state = lock(&self.state);
        state.take_out(offset, offset + len.max(1), |piece| {
            piece.is_made_good_by(operation)
        });
        if state.pieces.is_empty() && state.overflow.is_none() {
            self.any.store(false, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn failed(operation: IoOperation, offset: u64, len: u64) -> BlockIoError {
        BlockIoError {
            operation,
            offset,
            len,
            source: io::Error::from_raw_os_error(libc::EIO),
        }
    }

    #[test]
    fn an_error_stays_until_all_of_it_has_succeeded_in_whatever_pieces() {
        let failures = Failures::default();
        failures.add(failed(IoOperation::Read, 4096, 4096));
        failures.make_good(IoOperation::Read, 5120, 512);
        failures.make_good(IoOperation::Read, 0, 5120);
        failures.make_good(IoOperation::Write, 0, 65536);
        assert!(failures.first().is_some());
        failures.make_good(IoOperation::Read, 5632, 65536);
        assert!(failures.first().is_none());
    }

    #[test]
    fn a_part_that_has_failed_again_is_told_in_place_of_the_request_it_was_a_part_of() {
        let failures = Failures::default();
        let first = || failures.first().map(|error| error.offset);
        // Asked for again sector by sector, of which the third cannot be read.
        failures.add(failed(IoOperation::Read, 4096, 4096));
        failures.make_good(IoOperation::Read, 4096, 1024);
        failures.add(failed(IoOperation::Write, 5120, 512));
        assert_eq!(first(), Some(4096), "a write is something else");
        failures.add(failed(IoOperation::Read, 5120, 512));
        assert_eq!(
            first(),
            Some(5120),
            "what follows has not been asked for again"
        );
        failures.make_good(IoOperation::Write, 5120, 512);
        failures.make_good(IoOperation::Read, 5632, 2560);
        assert_eq!(first(), Some(5120));
        failures.make_good(IoOperation::Read, 5120, 512);
        assert_eq!(first(), None);
    }

    #[test]
    fn a_request_that_fails_around_a_part_that_has_failed_knows_less_than_that_part() {
        let failures = Failures::default();
        let first = || failures.first().map(|error| error.offset);
        failures.add(failed(IoOperation::Read, 5120, 512));
        failures.add(failed(IoOperation::Read, 4096, 4096));
        assert_eq!(first(), Some(5120));
        failures.make_good(IoOperation::Read, 5120, 512);
        assert_eq!(first(), Some(4096));
        failures.make_good(IoOperation::Read, 4096, 4096);
        assert_eq!(first(), None);
    }

    #[test]
    fn nothing_makes_a_flush_good() {
        let failures = Failures::default();
        failures.add(failed(IoOperation::Flush, 0, 0));
        failures.make_good(IoOperation::Write, 0, 512);
        failures.make_good(IoOperation::Flush, 0, 0);
        assert!(failures.first().is_some());
    }

    #[test]
    fn what_is_told_is_what_has_not_been_made_good() {
        let failures = Failures::default();
        failures.add(failed(IoOperation::Write, 0, 512));
        failures.add(failed(IoOperation::Flush, 0, 0));
        failures.make_good(IoOperation::Write, 0, 512);
        let first = failures.first().map(|error| error.operation);
        assert_eq!(first, Some(IoOperation::Flush));
    }

    #[test]
    fn a_discard_is_made_good_by_another_one_and_by_what_is_written_instead() {
        for done in [IoOperation::Discard, IoOperation::Write] {
            let failures = Failures::default();
            failures.add(failed(IoOperation::Discard, 4096, 4096));
            failures.make_good(IoOperation::Read, 0, 65536);
            failures.make_good(done, 0, 8191);
            assert!(failures.first().is_some());
            failures.make_good(done, 8191, 1);
            assert!(failures.first().is_none());
        }
        let failures = Failures::default();
        failures.add(failed(IoOperation::Write, 4096, 4096));
        failures.make_good(IoOperation::Discard, 0, 65536);
        assert!(failures.first().is_some(), "it has still to be written");
    }

    #[test]
    fn what_is_left_of_one_error_is_no_more_than_can_be_remembered() {
        let failures = Failures::default();
        failures.add(failed(IoOperation::Write, 0, 1 << 20));
        for sector in (1..4 * MAX_PIECES as u64).step_by(2) {
            failures.make_good(IoOperation::Write, sector * 512, 512);
        }
        assert!(lock(&failures.state).pieces.len() <= MAX_PIECES);
        failures.make_good(IoOperation::Write, 0, 1 << 20);
        assert!(failures.first().is_some());
    }

    #[test]
    fn a_piece_that_is_split_where_there_is_no_room_for_both_halves_is_never_forgotten() {
        let failures = Failures::default();
        for piece in 0..MAX_PIECES as u64 {
            failures.add(failed(IoOperation::Write, piece * 4096, 1536));
        }
        failures.make_good(IoOperation::Write, 512, 512);
        failures.make_good(IoOperation::Write, 0, 1 << 20);
        assert!(failures.first().is_some());
    }

    #[test]
    fn as_many_errors_as_are_remembered_are_forgotten_once_all_has_succeeded() {
        let failures = Failures::default();
        for piece in 0..MAX_PIECES as u64 {
            failures.add(failed(IoOperation::Write, piece * 1024, 512));
        }
        failures.make_good(IoOperation::Write, 0, 1 << 20);
        assert!(failures.first().is_none());
    }

    #[test]
    fn more_errors_than_are_remembered_are_never_forgotten() {
        let failures = Failures::default();
        for piece in 0..=MAX_PIECES as u64 {
            failures.add(failed(IoOperation::Write, piece * 1024, 512));
        }
        failures.make_good(IoOperation::Write, 0, 1 << 20);
        assert!(failures.first().is_some());
    }
}
