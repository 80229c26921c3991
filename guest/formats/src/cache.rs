//! Keeps a few pieces of an image's tables in memory, called lines, instead of whole tables.
//!
//! A line has [`LINE`] bytes unless more are wanted, and a cache never has more lines than it was made
//! with. If another one is needed, the line that was used longest ago is given up. To read a line
//! takes much longer than all that is done with what is in it, so that the cache counts how many were
//! read.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use crate::bytes;
use crate::error::Error;
use crate::reason::Reason;
use crate::source::{ReadAt, len64, read, to_usize};

/// Bytes of a line, a power of two.
pub(crate) const LINE: u64 = 8192;
/// Bytes of a line for who goes through a table from one end to the other, a power of two.
pub(crate) const LONG_LINE: u64 = 64 << 10;
/// As how many table entries it counts to read a piece of a table, wherever work is limited: how many
/// could be looked at in the same time if they were in memory. An image can be made so that each entry
/// leads to a place that no cache has.
pub const LOAD: u64 = 2000;

#[derive(Clone, PartialEq, Eq)]
struct CacheLine {
    start: u64,
    used: u64,
    bytes: Box<[u8]>,
    valid: usize,
}

/// A cache of parts of one file.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Cache {
    lines: Vec<CacheLine>,
    most: usize,
    /// Bytes of a line, a power of two.
    length: u64,
    clock: u64,
    loads: u64,
}

impl core::fmt::Debug for Cache {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Cache({} of {} lines)", self.lines.len(), self.most)
    }
}

impl Cache {
    /// A cache of at most `most` lines, which are allocated when they are first needed.
    pub(crate) fn new(most: usize) -> Self {
        Self::with_lines(most, LINE)
    }

    /// The same with lines of `length` bytes, a power of two that is at least [`LINE`].
    pub(crate) fn with_lines(most: usize, length: u64) -> Self {
        Self {
            lines: Vec::with_capacity(most),
            most,
            length,
            clock: 0,
            loads: 0,
        }
    }

    /// Has the lines from now on have `length` bytes, as for [`with_lines`](Self::with_lines).
    pub(crate) fn set_length(&mut self, length: u64) {
        if self.length != length {
            self.lines.clear();
            self.length = length;
        }
    }

    /// How many lines were read so far.
    pub(crate) fn loads(&self) -> u64 {
        self.loads
    }

    /// The bytes from `offset` to the end of its line or of the file: at least `least`, which are
    /// within one line.
    pub(crate) fn bytes(
        &mut self,
        source: &mut dyn ReadAt,
        offset: u64,
        least: usize,
    ) -> Result<&[u8], Error> {
        let beyond = Error::refused(Reason::BeyondEnd, offset, source.size());
        let start = offset & !(self.length - 1);
        self.clock += 1;
        let index = match self.lines.iter().position(|line| line.start == start) {
            Some(index) => index,
            None if offset >= source.size() => return Err(beyond),
            None => self.load(source, start)?,
        };
        let clock = self.clock;
        let line = self.lines.get_mut(index).ok_or(beyond)?;
        line.used = clock;
        let valid = line.bytes.get(..line.valid).unwrap_or_default();
        let bytes = valid.get(to_usize(offset - start)..).ok_or(beyond)?;
        if bytes.len() < least {
            return Err(beyond);
        }
        Ok(bytes)
    }

    fn load(&mut self, source: &mut dyn ReadAt, start: u64) -> Result<usize, Error> {
        let index = self.room();
        let valid = to_usize((source.size() - start).min(self.length));
        let Some(line) = self.lines.get_mut(index) else {
            return Err(Error::Read { offset: start });
        };
        self.loads += 1;
        // A line that cannot be read must not be found later.
        line.start = u64::MAX;
        let target = line.bytes.get_mut(..valid).unwrap_or_default();
        read(source, start, target)?;
        line.start = start;
        line.valid = valid;
        Ok(index)
    }

    fn room(&mut self) -> usize {
        if self.lines.len() < self.most {
            self.lines.push(CacheLine {
                start: u64::MAX,
                used: 0,
                bytes: vec![0; to_usize(self.length)].into_boxed_slice(),
                valid: 0,
            });
            return self.lines.len() - 1;
        }
        let oldest = self.lines.iter().enumerate().min_by_key(|(_, l)| l.used);
        oldest.map_or(0, |(index, _)| index)
    }

    /// Fills `buffer` from `offset`, over as many lines as it takes.
    pub(crate) fn copy(
        &mut self,
        source: &mut dyn ReadAt,
        mut offset: u64,
        mut buffer: &mut [u8],
    ) -> Result<(), Error> {
        while !buffer.is_empty() {
            let bytes = self.bytes(source, offset, 1)?;
            let there = bytes.len().min(buffer.len());
            let (piece, rest) = buffer.split_at_mut(there);
            piece.copy_from_slice(bytes.get(..there).unwrap_or_default());
            offset = offset.saturating_add(len64(piece));
            buffer = rest;
        }
        Ok(())
    }

    /// The big-endian 64-bit entry at `offset`, which is a multiple of 8.
    pub(crate) fn be64(&mut self, source: &mut dyn ReadAt, offset: u64) -> Result<u64, Error> {
        Ok(bytes::be64(self.bytes(source, offset, 8)?, 0))
    }

    /// The big-endian 32-bit entry at `offset`, which is a multiple of 4.
    pub(crate) fn be32(&mut self, source: &mut dyn ReadAt, offset: u64) -> Result<u32, Error> {
        Ok(bytes::be32(self.bytes(source, offset, 4)?, 0))
    }

    /// The little-endian 32-bit entry at `offset`, which is a multiple of 4.
    pub(crate) fn le32(&mut self, source: &mut dyn ReadAt, offset: u64) -> Result<u32, Error> {
        Ok(bytes::le32(self.bytes(source, offset, 4)?, 0))
    }

    /// The little-endian 64-bit entry at `offset`, which is a multiple of 8.
    pub(crate) fn le64(&mut self, source: &mut dyn ReadAt, offset: u64) -> Result<u64, Error> {
        Ok(bytes::le64(self.bytes(source, offset, 8)?, 0))
    }
}
