//! Which bytes a request covers: the input cut into pieces of the request size, and those, where
//! need be, into blocks of the larger of the two sector sizes.
//!
//! A disk holds whole sectors only, so the last sector of either may be filled up with zeros that
//! the other need not have room for.

use thiserror::Error;

use crate::config::{Config, Side};
use guest_kit::virtio::block::{BlockConfig, WIRE_SECTOR};

/// Why the two disks cannot be copied, one to the other.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PlanError {
    /// The device's sectors are not those of the configuration.
    #[error("the {0} disk has sectors of {1} bytes, but the configuration says {2}")]
    SectorSize(Side, u32, u32),
    /// The capacity is no number of whole sectors.
    #[error("the {0} disk's {1} x 512 bytes are not a whole number of sectors of {2}")]
    Capacity(Side, u64, u32),
    /// A request cannot hold a sector.
    #[error("the {0} disk takes {1} bytes a request, less than the {2} of a sector")]
    SizeMax(Side, u32, u32),
    /// The output is too small.
    #[error("the output disk is too small: {1} bytes for {0}")]
    TooSmall(u64, u64),
}

impl PlanError {
    /// The disk that is to blame.
    #[must_use]
    pub const fn disk(&self) -> Side {
        match self {
            Self::SectorSize(disk, ..) | Self::Capacity(disk, ..) | Self::SizeMax(disk, ..) => {
                *disk
            }
            Self::TooSmall(..) => Side::Output,
        }
    }
}

/// One disk, as the copy sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskShape {
    /// Sector size in bytes.
    pub sector: u32,
    /// Capacity in bytes, a multiple of it.
    pub len: u64,
}

impl DiskShape {
    /// Checks what `disk` says of itself against its configured `sector` size.
    ///
    /// # Errors
    ///
    /// [`PlanError`] if they do not agree.
    pub fn new(disk: Side, device: &BlockConfig, sector: u32) -> Result<Self, PlanError> {
        if device.sector_size != sector {
            return Err(PlanError::SectorSize(disk, device.sector_size, sector));
        }
        let len = device.capacity.checked_mul(u64::from(WIRE_SECTOR));
        match len.filter(|len| len.is_multiple_of(u64::from(sector))) {
            Some(len) => Ok(Self { sector, len }),
            None => Err(PlanError::Capacity(disk, device.capacity, sector)),
        }
    }

    /// Capacity in sectors.
    #[must_use]
    pub fn sectors(&self) -> u64 {
        self.len / u64::from(self.sector)
    }
}

/// Bytes that are read together and written together, from the same place in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its offset on both disks, in bytes.
    pub offset: u64,
    /// How many bytes to read: whole input sectors.
    pub read_len: u32,
    /// How many bytes to write: whole output sectors. What is beyond `read_len` is to be zero;
    /// if it is less, the rest is the input's own filling-up.
    pub write_len: u32,
}

impl Piece {
    /// The first byte behind what is read.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.read_len))
    }
}

/// The copy of one disk to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    input: DiskShape,
    output: DiskShape,
    request_size: u32,
}

impl Plan {
    /// Plans the copy of `input` to `output` with requests of `request_size` bytes, a multiple of
    /// both sector sizes.
    ///
    /// # Errors
    ///
    /// [`PlanError::TooSmall`] if more than filling-up of the last input sector would be lost.
    pub const fn new(
        input: DiskShape,
        output: DiskShape,
        request_size: u32,
    ) -> Result<Self, PlanError> {
        if input.len.saturating_sub(output.len) >= input.sector as u64 {
            return Err(PlanError::TooSmall(input.len, output.len));
        }
        Ok(Self {
            input,
            output,
            request_size,
        })
    }

    /// The input disk.
    #[must_use]
    pub const fn input(&self) -> &DiskShape {
        &self.input
    }

    /// The output disk.
    #[must_use]
    pub const fn output(&self) -> &DiskShape {
        &self.output
    }

    /// The length of a piece in bytes. The last one may be shorter.
    #[must_use]
    pub const fn request_size(&self) -> u32 {
        self.request_size
    }

    /// Number of pieces.
    #[must_use]
    pub fn pieces(&self) -> u64 {
        self.input.len.div_ceil(u64::from(self.request_size))
    }

    /// The piece with this index, less than [`Plan::pieces`].
    #[must_use]
    pub fn piece(&self, index: u64) -> Piece {
        let offset = index.saturating_mul(u64::from(self.request_size));
        self.cut(offset, self.request_size)
    }

    /// The blocks that `piece` consists of: the smallest pieces of whole sectors on both disks.
    pub fn blocks(&self, piece: Piece) -> impl Iterator<Item = Piece> + use<> {
        let plan = *self;
        let block = self.block();
        (0..piece.read_len.div_ceil(block))
            .map(move |index| plan.cut(piece.offset + u64::from(index) * u64::from(block), block))
    }

    /// The larger of the two sector sizes.
    #[must_use]
    pub fn block(&self) -> u32 {
        self.input.sector.max(self.output.sector)
    }

    /// At most `len` bytes at `offset`, both multiples of the larger sector size.
    pub(super) fn cut(&self, offset: u64, len: u32) -> Piece {
        let read_len = clip(len, self.input.len.saturating_sub(offset));
        // `len` is such a multiple itself, so this does not go beyond it.
        let filled = read_len.next_multiple_of(self.output.sector);
        Piece {
            offset,
            read_len,
            write_len: clip(filled, self.output.len.saturating_sub(offset)),
        }
    }
}

/// The smaller of the two.
fn clip(len: u32, room: u64) -> u32 {
    u32::try_from(room).map_or(len, |room| room.min(len))
}

/// The request size to use: what is configured, or what both devices take if that is less.
///
/// # Errors
///
/// [`PlanError::SizeMax`] if a device does not take a sector.
pub fn request_size(
    config: &Config,
    input: &BlockConfig,
    output: &BlockConfig,
) -> Result<u32, PlanError> {
    let block = config.input_sector.max(config.output_sector);
    for (disk, device) in [(Side::Input, input), (Side::Output, output)] {
        if device.size_max < block {
            return Err(PlanError::SizeMax(disk, device.size_max, block));
        }
    }
    let allowed = input.size_max.min(output.size_max);
    Ok(config.request_size.min(allowed - allowed % block))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
