//! Compressed clusters that are too large for a block or a fetch, or of which only a part is
//! needed.
//!
//! Such a cluster is read in pieces, several of them at once. Each is inflated when it has come, to
//! memory that is for this alone. Blocks are filled from there.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Range;

use guest_formats::Compressed;
use guest_kit::failure::Failure;

use crate::codec::{Fault, Pieces};
use crate::failure::unreadable;
use crate::pool::{Place, Pool};
use crate::{SECTOR, to_u64, to_usize};

/// The size of a piece in bytes.
const PIECE: usize = 64 << 10;
/// The most pieces that are read at once.
const MOST_READS: usize = 3;
/// The most bytes that a cluster of any format has.
const LARGEST: usize = 2 << 20;
/// The most bytes that lie in front of the compressed bytes: those of a grain marker.
const HEAD: u64 = 12;

/// The last cluster that was inflated this way, and the one that is being inflated.
#[derive(Debug, Default)]
pub(super) struct Large {
    /// Which cluster is in memory: the number of its disk, its offset there, and where it begins on
    /// the disk that is made. At another place the same bytes count as another cluster: they have to
    /// be charged there, and a marker that is right here is wrong there.
    of: Option<(usize, u64, u64)>,
    bytes: Vec<u8>,
    stream: Option<Stream>,
}

/// A cluster that is being inflated.
#[derive(Debug)]
struct Stream {
    source: usize,
    cluster: Compressed,
    /// Where it begins on the disk that is made.
    begins: u64,
    pieces: Pieces,
    /// Which bytes of the file are the compressed ones. The first piece tells that.
    payload: Option<Range<u64>>,
    /// The offset in the file up to which pieces were asked for.
    asked: u64,
    /// The pieces that were asked for and are not inflated, in order. The next field is the number
    /// of the first.
    reads: VecDeque<Read>,
    first: usize,
    /// Whether the cluster is complete, so that pieces that still come are not needed.
    done: bool,
}

#[derive(Debug)]
struct Read {
    start: u64,
    len: usize,
    place: Place,
    there: bool,
}

/// A piece that is to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Its offset in the file in bytes, a multiple of a sector.
    pub(super) start: u64,
    /// Its length in bytes, a multiple of a sector.
    pub(super) len: usize,
    /// The memory that it is read to.
    pub(super) place: Place,
    /// Its number, for [`Large::arrive`].
    pub(super) number: usize,
}

impl Large {
    /// The bytes of a cluster that begins at `begins` of the disk from its `skip` on, if the cluster
    /// is in memory.
    pub(super) fn cluster(
        &self,
        source: usize,
        cluster: &Compressed,
        begins: u64,
    ) -> Option<&[u8]> {
        let there = self.of == Some((source, cluster.offset, begins));
        let bytes = || self.bytes.get(to_usize(cluster.skip)..).unwrap_or_default();
        there.then(bytes)
    }

    /// Whether no piece is being read.
    pub(super) fn is_quiet(&self) -> bool {
        self.stream
            .as_ref()
            .is_none_or(|stream| stream.reads.is_empty())
    }

    /// Begins to inflate a cluster, unless it is being inflated already. Does nothing while pieces
    /// of the cluster before it are being read. Returns true if it has begun.
    pub(super) fn begin(
        &mut self,
        source: usize,
        cluster: &Compressed,
        begins: u64,
    ) -> Result<bool, Failure> {
        if self.stream.is_some() {
            return Ok(false);
        }
        let bad = |fault| super::bad_data(source, cluster.offset, fault);
        self.of = None;
        resize(&mut self.bytes, to_usize(cluster.size)).map_err(bad)?;
        self.stream = Some(Stream {
            source,
            cluster: *cluster,
            begins,
            pieces: Pieces::new(cluster.codec).map_err(bad)?,
            payload: None,
            asked: cluster.offset - cluster.offset % SECTOR,
            reads: VecDeque::new(),
            first: 0,
            done: false,
        });
        Ok(true)
    }

    /// The next piece to read, if there is memory for it. The caller must ask the disk for it.
    pub(super) fn next_read(&mut self, pool: &mut Pool) -> Option<Wanted> {
        let stream = self.stream.as_mut()?;
        let end = stream.cluster.offset + stream.cluster.length;
        let rest = end.next_multiple_of(SECTOR).saturating_sub(stream.asked);
        if stream.done || rest == 0 || stream.reads.len() >= MOST_READS {
            return None;
        }
        let place = pool.take_upper(PIECE)?;
        let (start, len) = (stream.asked, super::least(rest, PIECE));
        stream.asked += to_u64(len);
        stream.reads.push_back(Read {
            start,
            len,
            place,
            there: false,
        });
        Some(Wanted {
            start,
            len,
            place,
            number: stream.first + stream.reads.len() - 1,
        })
    }

    /// Says that the piece with this number has been read.
    pub(super) fn arrive(&mut self, number: usize, pool: &mut Pool) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        let index = number.wrapping_sub(stream.first);
        if let Some(read) = stream.reads.get_mut(index) {
            read.there = true;
        }
        if stream.done {
            self.drain(pool);
        }
    }

    /// Gives back the memory of pieces that have come and are not needed.
    fn drain(&mut self, pool: &mut Pool) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        while let Some(read) = stream.take() {
            pool.give(read.place);
        }
        if stream.reads.is_empty() {
            self.stream = None;
        }
    }

    /// Inflates the next piece, if it has been read. Returns true if it has.
    pub(super) fn feed(&mut self, pool: &mut Pool) -> Result<bool, Failure> {
        let Some(stream) = &mut self.stream else {
            return Ok(false);
        };
        let Some(read) = stream.take() else {
            return Ok(false);
        };
        let input = pool.bytes(read.place.offset(), read.len);
        let inflated = stream.inflate(read.start, input, &mut self.bytes);
        pool.give(read.place);
        if inflated? {
            stream.done = true;
            self.of = Some((stream.source, stream.cluster.offset, stream.begins));
            self.drain(pool);
        }
        Ok(true)
    }
}

impl Stream {
    /// The first piece, if it has been read.
    fn take(&mut self) -> Option<Read> {
        if !self.reads.front()?.there {
            return None;
        }
        self.first += 1;
        self.reads.pop_front()
    }

    /// Inflates `input`, which lies at `start` in the file, to `output`. Returns true once the
    /// cluster is complete.
    fn inflate(&mut self, start: u64, input: &[u8], output: &mut [u8]) -> Result<bool, Failure> {
        let (source, cluster) = (self.source, self.cluster);
        let bad = |fault| super::bad_data(source, cluster.offset, fault);
        let payload = match self.payload.clone() {
            Some(payload) => payload,
            None => {
                let at = to_usize(cluster.offset - start);
                let head = at..at + to_usize(cluster.length.min(HEAD));
                let head = input.get(head).unwrap_or_default();
                let payload = cluster.payload_within(head, cluster.length);
                let payload = payload.map_err(|error| unreadable(source, &error))?;
                let range = cluster.offset + payload.start..cluster.offset + payload.end;
                self.payload.insert(range).clone()
            }
        };
        let end = start + to_u64(input.len());
        let from = to_usize(payload.start.saturating_sub(start));
        let to = to_usize(payload.end.min(end).saturating_sub(start));
        let input = input.get(from..to).unwrap_or_default();
        let more = end < payload.end;
        if !self.pieces.take(input, output, more).map_err(bad)? {
            return Ok(false);
        }
        if self.pieces.made() < to_usize(cluster.least) {
            return Err(bad(Fault::Data));
        }
        output[self.pieces.made()..].fill(0);
        Ok(true)
    }
}

/// Makes `bytes` `len` bytes long, if there is memory for that. What was there before is lost.
fn resize(bytes: &mut Vec<u8>, len: usize) -> Result<(), Fault> {
    // Once and for all: there is not so much memory that more could be had before this is given back.
    bytes.clear();
    let reserved = bytes.try_reserve_exact(len.max(LARGEST));
    reserved.map_err(|_| Fault::Memory)?;
    bytes.resize(len, 0);
    Ok(())
}

#[cfg(test)]
#[path = "large_tests.rs"]
mod tests;
