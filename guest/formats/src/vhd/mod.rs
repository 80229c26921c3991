//! VHD, fixed and dynamic (Microsoft's Virtual Hard Disk Image Format Specification, 1.0).
//!
//! A fixed disk is its bytes and a footer. A dynamic disk has a copy of the footer at the start, a
//! block allocation table (BAT), and blocks, each with a bitmap of its sectors before it. An open
//! VHD takes three cache lines of memory: one for the table, and two for bitmaps and, in a check, for
//! what they say was never written.

mod dynamic;
mod footer;

use crate::cache::{Cache, LONG_LINE};
use crate::error::{Error, ensure};
use crate::format::Format;
use crate::info::{Info, Options};
use crate::mapping::{Content, Mapping, join};
use crate::reason::{Finding, Reason};
use crate::source::{ReadAt, len64, to_usize};
use crate::survey::{Entry, Units};
use dynamic::Dynamic;
use footer::Kind;

/// An open VHD.
#[derive(Debug)]
pub struct Vhd {
    virtual_size: u64,
    dynamic: Option<Dynamic>,
    cache: Cache,
    sectors: Cache,
}

/// The size of a sector in bytes.
const SECTOR: u64 = 512;
/// What a fixed disk may have behind its end: the rest of a cylinder, where the geometry is its size.
const LARGEST_CYLINDER: u64 = 16 * 255 * SECTOR;

/// Reads the headers into `info`. Fails where nothing further can be read.
pub(crate) fn inspect(
    source: &mut dyn ReadAt,
    info: &mut Info,
    options: &Options,
) -> Result<Vhd, Error> {
    let (footer, end) = footer::find(source, info)?;
    // A disk that is not fixed has the same at the start.
    let at = if footer.kind == Kind::Fixed { end } else { 0 };
    info.version = Some(1);
    info.set_size(footer.virtual_size(), at + 48, options);
    let virtual_size = footer.virtual_size();
    let dynamic = match footer.kind {
        Kind::Fixed => {
            info.variant = Some("fixed");
            ensure(virtual_size <= at, Reason::BeyondEnd, at + 48, virtual_size)?;
            if at - virtual_size > LARGEST_CYLINDER {
                // It is a raw disk to who takes none of its bytes for a footer.
                info.fitting = info.fitting.with(Format::Raw);
                let formats = u64::from(info.fitting.len());
                info.find(Reason::SeveralFormats, at + 48, formats);
            }
            None
        }
        Kind::Dynamic | Kind::Differencing => {
            let header = dynamic::inspect(source, &footer, end, info)?;
            Some(header)
        }
    };
    Ok(Vhd {
        virtual_size,
        dynamic,
        cache: Cache::new(1),
        sectors: Cache::new(2),
    })
}

impl Vhd {
    /// The size of the virtual disk in bytes.
    #[must_use]
    pub fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    /// The size of a block in bytes. A fixed disk has no blocks.
    #[must_use]
    pub fn block_size(&self) -> Option<u64> {
        self.dynamic.map(|dynamic| dynamic.block_size)
    }

    /// Where the bytes at `offset` of the virtual disk come from, and how many table entries were
    /// looked at.
    pub(crate) fn joined(
        &mut self,
        source: &mut dyn ReadAt,
        offset: u64,
    ) -> Result<(Mapping, u64), Error> {
        join(offset, self.virtual_size, |at| self.piece(source, at))
    }

    /// The piece at `offset`, which lies on the disk. A fixed disk is one piece.
    pub(crate) fn piece(&mut self, source: &mut dyn ReadAt, offset: u64) -> Result<Mapping, Error> {
        match &self.dynamic {
            Some(dynamic) => dynamic.piece(source, &mut self.cache, &mut self.sectors, offset),
            None => {
                let length = self.virtual_size - offset;
                Ok(Mapping::new(length, Content::Data { offset }))
            }
        }
    }

    /// What is wrong with the block at `offset`, in its first `length` bytes: sectors that count as never
    /// written are read.
    pub(crate) fn contradiction(
        &mut self,
        source: &mut dyn ReadAt,
        offset: u64,
        length: u64,
    ) -> Result<Option<Finding>, Error> {
        let mut seen = 0;
        while seen < length {
            let piece = self.piece(source, offset + seen);
            let compared = piece.and_then(|piece| match piece.content {
                Content::Unwritten { offset } => {
                    let bytes = self.sectors.bytes(source, offset, 1)?;
                    let bytes = bytes.get(..to_usize(piece.length)).unwrap_or(bytes);
                    Mapping::unwritten(offset, bytes)?;
                    Ok(len64(bytes))
                }
                _ => Ok(piece.length),
            });
            match compared {
                Ok(length) => seen += length,
                Err(Error::Refused(finding)) => return Ok(Some(finding)),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Has tables, and blocks, be read in long pieces from now on.
    pub(crate) fn read_in_order(&mut self) {
        self.cache.set_length(LONG_LINE);
        self.sectors.set_length(LONG_LINE);
    }

    /// How many lines of its table and of its blocks were read so far.
    pub(crate) fn loads(&self) -> u64 {
        self.cache.loads() + self.sectors.loads()
    }

    /// How many bytes of a disk the table has entries for.
    pub(crate) fn covered(&self) -> u64 {
        self.dynamic.map_or(self.virtual_size, Dynamic::covered)
    }

    /// In which units a survey counts. The blocks of a dynamic disk begin at any sector; a fixed
    /// disk has none.
    pub(crate) fn units(&self) -> Option<Units> {
        self.dynamic.map(|_| Units {
            base: 0,
            unit: SECTOR,
        })
    }

    /// What the entry for the block at `offset` says. Of a fixed disk it is one entry for all of
    /// it.
    pub(crate) fn entry(&mut self, source: &mut dyn ReadAt, offset: u64) -> Result<Entry, Error> {
        if let Some(dynamic) = &self.dynamic {
            return dynamic.entry(source, &mut self.cache, offset);
        }
        let (mapping, _) = self.joined(source, offset)?;
        Ok(Entry::of(mapping))
    }
}
