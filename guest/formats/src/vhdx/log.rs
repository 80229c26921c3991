//! The log, replayed in memory (section 2.3). It is a ring of entries, each of which says what some
//! sectors of the file now hold. Where those changes lie in the log is kept, and whoever reads
//! tables gets the changed bytes.
//!
//! The log may be full of anything, and it is read before anything else is known of the image. So
//! the work for it is bounded: over how many bytes checksums are computed, and how many changes are
//! taken. All of it is read in pieces of [`PIECE`] bytes, however small the things in it are.

use alloc::vec;
use alloc::vec::Vec;

use crate::bytes::{guid, has, le32, le64};
use crate::cache::Cache;
use crate::error::{Error, ensure};
use crate::reason::Reason;
use crate::source::{ReadAt, len64, read, to_usize};
use crate::span::Span;
use crate::vhdx::header::Header;
use crate::vhdx::patches::{Change, Log};
use crate::vhdx::{CRC_32C, MIB};

/// The longest log that is replayed, in bytes. Writers make logs of 1 MiB.
pub const LONGEST_LOG: u64 = 16 << 20;
/// The most changes that are taken from a log, those included that later ones cover. It is four for
/// each sector of the longest log, and a change of data takes a sector.
pub const MOST_CHANGES: u64 = 16_384;
/// Over how many bytes checksums may be computed, as a multiple of the length of the log. A log
/// that no one has tampered with takes two.
const MOST_PASSES: u64 = 8;
/// How many bytes of the log are read at once.
const PIECE: u64 = 32 << 10;
/// The size of the sectors in which entries, descriptors and data lie in the log, in bytes.
const SECTOR: u64 = 4096;

/// An entry of the log whose checksum is right.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Its offset from the start of the log, in bytes.
    at: u64,
    length: u64,
    /// The offset in the log of the first entry whose changes were not in the file yet when this
    /// one was written.
    tail: u64,
    sequence: u64,
    descriptors: u64,
    /// The length that the file had at least when this entry was written, in bytes.
    flushed: u64,
}

struct Ring<'a> {
    header: &'a Header,
    /// The parts of the log that were read last: descriptors, and the data behind them.
    cache: Cache,
    /// How many changes may still be taken.
    changes: u64,
    /// Over how many bytes checksums may still be computed.
    budget: u64,
}

/// Finds the active sequence of entries and collects their changes (section 2.3.3).
pub(super) fn replay(source: &mut dyn ReadAt, header: &Header) -> Result<Log, Error> {
    let mut log = Log::default();
    if header.log_guid == [0; 16] {
        return Ok(log);
    }
    let region = header.log;
    let length = region.length();
    ensure(
        length <= LONGEST_LOG,
        Reason::LogTooLong,
        region.start,
        length,
    )?;
    ensure(
        region.end <= source.size(),
        Reason::BeyondEnd,
        region.start,
        length,
    )?;
    let mut ring = Ring {
        header,
        cache: Cache::with_lines(2, PIECE),
        changes: MOST_CHANGES,
        budget: length * MOST_PASSES,
    };
    let mut active: Option<Entry> = None;
    let mut at = 0;
    while at < length {
        let (head, end) = ring.sequence(source, at)?;
        if let Some(head) = head
            && active.is_none_or(|other| head.sequence > other.sequence)
        {
            active = Some(head);
        }
        // If the last entry of a sequence names a tail before the first one, the sequence is not
        // active, and neither is any part of it. So the search goes on behind it.
        at = end.max(at + SECTOR);
    }
    let head = active.ok_or(Error::refused(Reason::BadLog, region.start, 0))?;
    let mut at = head.tail;
    loop {
        let entry = ring.entry(source, at)?;
        let entry = entry.ok_or(Error::refused(Reason::BadLog, region.start + at, 0))?;
        ring.take(source, &entry, &mut log)?;
        if entry.at == head.at {
            return Ok(log);
        }
        at = (entry.at + entry.length) % length;
    }
}

impl Ring<'_> {
    /// The offset in the file of the byte `at` of the ring.
    fn place(&self, at: u64) -> u64 {
        self.header.log.start + at % self.header.log.length()
    }

    /// The head, which is the last entry, of the sequence that begins at `tail`, if that sequence
    /// may be active. Also where the sequence ends: behind the end of the ring the offset goes on
    /// to grow.
    fn sequence(
        &mut self,
        source: &mut dyn ReadAt,
        tail: u64,
    ) -> Result<(Option<Entry>, u64), Error> {
        let length = self.header.log.length();
        let (mut at, mut head) = (tail, None::<Entry>);
        let mut has_tail = false;
        let mut starts = Vec::new();
        while at - tail < length {
            let Some(entry) = self.entry(source, at % length)? else {
                break;
            };
            let follows = head.is_none_or(|head| entry.sequence == head.sequence + 1);
            if !follows || at - tail + entry.length > length {
                break;
            }
            // An entry has at least one sector, so that the log's length bounds this list.
            starts.push(entry.at);
            has_tail = starts.contains(&entry.tail);
            at += entry.length;
            head = Some(entry);
        }
        Ok((head.filter(|_| has_tail), at))
    }

    /// The entry at `at`, if there is one whose checksum is right (section 2.3.1.1).
    fn entry(&mut self, source: &mut dyn ReadAt, at: u64) -> Result<Option<Entry>, Error> {
        let whole = self.header.log.length();
        let place = self.place(at);
        let mut bytes = [0; 64];
        self.cache.copy(source, place, &mut bytes)?;
        let ours = has(&bytes, 0, b"loge") && guid(&bytes, 32) == self.header.log_guid;
        let length = u64::from(le32(&bytes, 8));
        let sectors = length.is_multiple_of(SECTOR) && length > 0 && length <= whole;
        let (tail, sequence) = (u64::from(le32(&bytes, 12)), le64(&bytes, 16));
        let descriptors = u64::from(le32(&bytes, 24));
        let sane = tail.is_multiple_of(SECTOR) && tail < whole && sequence > 0;
        if !(ours && sectors && sane && sequence < u64::MAX) {
            return Ok(None);
        }
        if (64 + descriptors * 32).next_multiple_of(SECTOR) > length {
            return Ok(None);
        }
        let spent = Error::refused(Reason::LogTooLong, place, length);
        self.budget = self.budget.checked_sub(length).ok_or(spent)?;
        if self.checksum(source, at, length)? != le32(&bytes, 4) {
            return Ok(None);
        }
        Ok(Some(Entry {
            at,
            length,
            tail,
            sequence,
            descriptors,
            flushed: le64(&bytes, 48),
        }))
    }

    /// The checksum of the entry of `length` bytes at `at`, whose own checksum is taken as zero.
    fn checksum(&self, source: &mut dyn ReadAt, at: u64, length: u64) -> Result<u32, Error> {
        let mut digest = CRC_32C.digest();
        let mut bytes = vec![0; to_usize(PIECE.min(length))];
        let mut done = 0;
        while done < length {
            let place = self.place(at + done);
            let most = PIECE.min(length - done);
            let there = to_usize(most.min(self.header.log.end - place));
            let piece = bytes.get_mut(..there).unwrap_or_default();
            read(source, place, piece)?;
            if done == 0 {
                piece.get_mut(4..8).unwrap_or_default().fill(0);
            }
            digest.update(piece);
            done += len64(piece);
        }
        Ok(digest.finalize())
    }

    /// Adds the changes of an entry to `log` (sections 2.3.1.2 to 2.3.1.4).
    fn take(&mut self, source: &mut dyn ReadAt, entry: &Entry, log: &mut Log) -> Result<(), Error> {
        let bad = |at, value| Error::refused(Reason::BadLog, at, value);
        let start = self.place(entry.at);
        ensure(
            entry.flushed <= source.size(),
            Reason::Truncated,
            start + 48,
            entry.flushed,
        )?;
        let left = self.changes.checked_sub(entry.descriptors);
        let many = Error::refused(Reason::LogTooLong, start + 24, entry.descriptors);
        self.changes = left.ok_or(many)?;
        let mut data = entry.at + (64 + entry.descriptors * 32).next_multiple_of(SECTOR);
        for index in 0..entry.descriptors {
            let place = self.place(entry.at + 64 + index * 32);
            let mut bytes = [0; 32];
            self.cache.copy(source, place, &mut bytes)?;
            let target = le64(&bytes, 16);
            let good = target.is_multiple_of(SECTOR) && target >= MIB;
            ensure(
                good && le64(&bytes, 24) == entry.sequence,
                Reason::BadLog,
                place,
                target,
            )?;
            let (length, content) = if has(&bytes, 0, b"zero") {
                (le64(&bytes, 8), Change::Zero)
            } else if has(&bytes, 0, b"desc") {
                let inside = data + SECTOR <= entry.at + entry.length;
                ensure(inside, Reason::BadLog, place, data)?;
                let at = self.place(data);
                self.check_sector(source, at, entry.sequence)?;
                data += SECTOR;
                let mut change = ([0; 8], [0; 4]);
                change.0.copy_from_slice(&bytes[8..16]);
                change.1.copy_from_slice(&bytes[4..8]);
                let (leading, trailing) = change;
                (
                    SECTOR,
                    Change::Sector {
                        at,
                        leading,
                        trailing,
                    },
                )
            } else {
                return Err(bad(place, 0));
            };
            let end = target.checked_add(length).ok_or(bad(place, length))?;
            ensure(length.is_multiple_of(SECTOR), Reason::BadLog, place, length)?;
            log.add(Span { start: target, end }, content, place)?;
        }
        Ok(())
    }

    fn check_sector(
        &mut self,
        source: &mut dyn ReadAt,
        at: u64,
        sequence: u64,
    ) -> Result<(), Error> {
        let (mut head, mut tail) = ([0; 8], [0; 4]);
        self.cache.copy(source, at, &mut head)?;
        self.cache.copy(source, at + SECTOR - 4, &mut tail)?;
        let found = u64::from(le32(&head, 4)) << 32 | u64::from(le32(&tail, 0));
        let good = has(&head, 0, b"data") && found == sequence;
        ensure(good, Reason::BadLog, at, found)
    }
}
