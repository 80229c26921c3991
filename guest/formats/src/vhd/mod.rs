//! VHD, fixed and dynamic (Microsoft's Virtual Hard Disk Image Format Specification, 1.0).
//!
//! A fixed disk is its bytes and a footer. A dynamic disk has a copy of the footer at the start, a
//! block allocation table (BAT), and blocks, each behind a bitmap of its sectors. The bitmap of a
//! dynamic disk is not looked at: writers zero a block when they allocate it, and other readers
//! take its bytes as they are. Memory: one cache line.

mod dynamic;
mod footer;

use crate::cache::Cache;
use crate::error::{Error, ensure};
use crate::extent::{Content, Extent, join};
use crate::info::{Info, Options};
use crate::reason::Reason;
use crate::source::ReadAt;
use crate::survey::{Entry, Units};
use dynamic::Dynamic;
use footer::Kind;

/// An open VHD.
#[derive(Debug)]
pub struct Vhd {
    virtual_size: u64,
    dynamic: Option<Dynamic>,
    cache: Cache,
}

/// Bytes of a sector.
const SECTOR: u64 = 512;

/// Reads the headers into `info`; fails where there is no sense in going on.
pub(crate) fn inspect(
    source: &mut dyn ReadAt,
    info: &mut Info,
    options: &Options,
) -> Result<Vhd, Error> {
    let (footer, at) = footer::find(source, info)?;
    info.version = Some(1);
    info.set_size(footer.virtual_size(), at + 48, options);
    let virtual_size = footer.virtual_size();
    let dynamic = match footer.kind {
        Kind::Fixed => {
            info.variant = Some("fixed");
            ensure(virtual_size <= at, Reason::BeyondEnd, at + 48, virtual_size)?;
            None
        }
        Kind::Dynamic | Kind::Differencing => {
            let header = dynamic::inspect(source, &footer, info)?;
            Some(header)
        }
    };
    Ok(Vhd {
        virtual_size,
        dynamic,
        cache: Cache::new(1),
    })
}

impl Vhd {
    /// Opens the image.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with the first reason that `options` does not allow.
    pub fn open(source: &mut dyn ReadAt, options: &Options) -> Result<Self, Error> {
        let mut info = Info::new(crate::format::Format::Vhd);
        let image = inspect(source, &mut info, options)?;
        info.require(options)?;
        Ok(image)
    }

    /// Bytes of the virtual disk.
    #[must_use]
    pub fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    /// Bytes of a block, which a fixed disk has not.
    #[must_use]
    pub fn block_size(&self) -> Option<u64> {
        self.dynamic.map(|dynamic| dynamic.block_size)
    }

    /// Where the bytes at `offset` of the virtual disk come from, and how many entries said so.
    pub(crate) fn joined(
        &mut self,
        source: &mut dyn ReadAt,
        offset: u64,
    ) -> Result<(Extent, u64), Error> {
        let size = self.virtual_size;
        let Some(dynamic) = &self.dynamic else {
            // A fixed disk lies in the file as it is.
            let data = |at| Ok(Extent::new(size - at, Content::Data { offset: at }));
            return join(offset, size, data);
        };
        join(offset, size, |at| {
            dynamic.piece(source, &mut self.cache, at)
        })
    }

    /// The blocks of a dynamic disk begin at a sector; a fixed one has none.
    pub(crate) fn units(&self) -> Option<Units> {
        self.dynamic.map(|_| Units {
            base: 0,
            unit: SECTOR,
        })
    }

    /// What the entry for the block at `offset` says, or that a fixed disk is there as a whole.
    pub(crate) fn entry(&mut self, source: &mut dyn ReadAt, offset: u64) -> Result<Entry, Error> {
        if let Some(dynamic) = &self.dynamic {
            return dynamic.entry(source, &mut self.cache, offset);
        }
        let (extent, _) = self.joined(source, offset)?;
        Ok(Entry::of(extent))
    }
}
