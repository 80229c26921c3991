//! The way of compressed clusters that are too large for a block or a frame, or of which only a part
//! is needed. They are read in pieces, of which several are on their way at once, and inflated as these
//! come to memory of their own, from which blocks are filled.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Range;

use guest_formats::Compressed;

use crate::codec::{Fault, Pieces};
use crate::disks::source_name;
use crate::failure::{Failure, unreadable};
use crate::pool::{Place, Pool};
use crate::{SECTOR, to_u64, to_usize};

/// How many compressed bytes are read at once.
const PIECE: usize = 64 << 10;
/// How many such reads there are at once.
const MOST_READS: usize = 3;
/// What the header in front of the compressed bytes has at the most.
const HEAD: u64 = 12;

/// The last cluster that was inflated this way, and the next.
#[derive(Debug, Default)]
pub(super) struct Large {
    /// Whose bytes are there: the disk, and the offset of the frame.
    of: Option<(usize, u64)>,
    bytes: Vec<u8>,
    stream: Option<Stream>,
}

/// A cluster that is being inflated.
#[derive(Debug)]
struct Stream {
    source: usize,
    cluster: Compressed,
    pieces: Pieces,
    /// Which bytes of the file are the compressed ones, once the first piece has told.
    payload: Option<Range<u64>>,
    /// All is asked for up to this byte of the file.
    asked: u64,
    /// What was asked for and not inflated yet, in order, and the number of the first.
    reads: VecDeque<Read>,
    first: usize,
    /// Whether the cluster is complete: what still comes is of no use.
    done: bool,
}

#[derive(Debug)]
struct Read {
    start: u64,
    len: usize,
    place: Place,
    there: bool,
}

/// What is to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Where in the file, in bytes and whole sectors.
    pub(super) start: u64,
    /// How many bytes, whole sectors.
    pub(super) len: usize,
    /// Where it is to go.
    pub(super) place: Place,
    /// What to tell [`Large::arrive`] when it is there.
    pub(super) number: usize,
}

impl Large {
    /// The bytes of a cluster from its `skip` on, if they are there.
    pub(super) fn cluster(&self, source: usize, cluster: &Compressed) -> Option<&[u8]> {
        let there = self.of == Some((source, cluster.offset));
        let bytes = || self.bytes.get(to_usize(cluster.skip)..).unwrap_or_default();
        there.then(bytes)
    }

    /// Nothing is being read.
    pub(super) fn is_quiet(&self) -> bool {
        self.stream
            .as_ref()
            .is_none_or(|stream| stream.reads.is_empty())
    }

    /// Begins to inflate a cluster, unless that is so already, or the one before it still has reads
    /// under way.
    pub(super) fn begin(&mut self, source: usize, cluster: &Compressed) -> Result<(), Failure> {
        if self.stream.is_some() {
            return Ok(());
        }
        let bad = |fault| super::bad_data(source_name(source), cluster.offset, fault);
        self.of = None;
        resize(&mut self.bytes, to_usize(cluster.size)).map_err(bad)?;
        self.stream = Some(Stream {
            source,
            cluster: *cluster,
            pieces: Pieces::new(cluster.codec).map_err(bad)?,
            payload: None,
            asked: cluster.offset - cluster.offset % SECTOR,
            reads: VecDeque::new(),
            first: 0,
            done: false,
        });
        Ok(())
    }

    /// The next thing to read, if there is memory for it. It has to be asked for.
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

    /// What was asked for under this number is there.
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

    /// Gives back the memory of what came and is of no use.
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

    /// Inflates the next piece, if it is there. True if it was.
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
            self.of = Some((stream.source, stream.cluster.offset));
            self.drain(pool);
        }
        Ok(true)
    }
}

impl Stream {
    /// The first read, if it is there.
    fn take(&mut self) -> Option<Read> {
        if !self.reads.front()?.there {
            return None;
        }
        self.first += 1;
        self.reads.pop_front()
    }

    /// Inflates `input`, which is at `start` of the file, to `output`. True if that was all.
    fn inflate(&mut self, start: u64, input: &[u8], output: &mut [u8]) -> Result<bool, Failure> {
        let (source, cluster) = (source_name(self.source), self.cluster);
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

/// Makes room for `len` bytes, if there is.
fn resize(bytes: &mut Vec<u8>, len: usize) -> Result<(), Fault> {
    let more = len.saturating_sub(bytes.len());
    bytes.try_reserve_exact(more).map_err(|_| Fault::Memory)?;
    bytes.resize(len, 0);
    Ok(())
}
