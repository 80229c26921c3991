//! An image of any format: what it says of itself, and where the bytes of its disk are.

use crate::cache::LOAD;
use crate::error::Error;
use crate::format::Format;
use crate::info::{Info, Options};
use crate::mapping::{Content, Mapping, join};
use crate::probe::{Probe, file_system, partition_table};
use crate::qcow2::Qcow2;
use crate::reason::{Finding, Reason};
use crate::source::{ReadAt, ReadError, len64, to_usize};
use crate::survey::{Entry, Table, Units};
use crate::vdi::Vdi;
use crate::vhd::Vhd;
use crate::vhdx::Vhdx;
use crate::vmdk::Vmdk;
use crate::{other, qcow2, vdi, vhd, vhdx, vmdk};

/// An image that can be read.
#[derive(Debug)]
pub enum Image {
    /// A raw disk, with its size in bytes. The file is the disk.
    Raw(u64),
    /// An image that [`Qcow2`] reads.
    Qcow2(Qcow2),
    /// An image that [`Vmdk`] reads.
    Vmdk(Vmdk),
    /// An image that [`Vhd`] reads.
    Vhd(Vhd),
    /// An image that [`Vhdx`] reads.
    Vhdx(Vhdx),
    /// An image that [`Vdi`] reads.
    Vdi(Vdi),
}

/// Says what can be said of an image from its headers, and what speaks against using it.
///
/// Faults of the image are findings, not errors. It makes a few hundred small reads at most. Only the
/// log of a VHDX, of which at most eight times its length is read, and a list of snapshots take more.
///
/// # Errors
///
/// [`Error::Read`] if the caller could not read.
pub fn inspect(source: &mut dyn ReadAt, options: &Options) -> Result<Info, Error> {
    examine(source, options).map(|(info, _)| info)
}

/// Does what [`inspect`] does, and returns also the image, if its headers make sense, whatever
/// speaks against using it. It is for listing snapshots and checking tables. Who uses the disk
/// opens the image with [`Image::open`], which refuses what is not safe.
///
/// # Errors
///
/// [`Error::Read`] if the caller could not read.
pub fn examine(source: &mut dyn ReadAt, options: &Options) -> Result<(Info, Option<Image>), Error> {
    let probe = Probe::new(source, options)?;
    let mut info = Info::new(probe.format);
    info.fitting = probe.told();
    probe.judge(options, &mut info.findings);
    let mut image = match headers(source, &mut info, options) {
        Ok(image) => image,
        Err(Error::Refused(finding)) => {
            info.findings.stop(finding);
            None
        }
        Err(error) => return Err(error),
    };
    if let Some(image) = &mut image {
        look_inside(image, source, &mut info);
    }
    Ok((info, image))
}

fn headers(
    source: &mut dyn ReadAt,
    info: &mut Info,
    options: &Options,
) -> Result<Option<Image>, Error> {
    Ok(Some(match info.format {
        Format::Raw | Format::Iso => {
            info.set_size(source.size(), 0, options);
            Image::Raw(source.size())
        }
        Format::Qcow2 => Image::Qcow2(Qcow2::new(qcow2::inspect(source, info, options)?)),
        Format::Vmdk => Image::Vmdk(vmdk::inspect(source, info, options)?),
        Format::Vhd => Image::Vhd(vhd::inspect(source, info, options)?),
        Format::Vhdx => Image::Vhdx(vhdx::inspect(source, info, options)?),
        Format::Vdi => Image::Vdi(vdi::inspect(source, info, options)?),
        _ => {
            other::inspect(source, info, options)?;
            return Ok(None);
        }
    }))
}

/// Looks for partitions and file systems on the virtual disk, if its start lies in the file
/// uncompressed. Errors on the way are passed over here: whoever reads the disk meets them again.
fn look_inside(image: &mut Image, source: &mut dyn ReadAt, info: &mut Info) {
    let mut disk = VirtualDisk { image, source };
    info.partitions = partition_table(&mut disk).unwrap_or_default();
    if info.partitions.is_none() {
        info.file_system = file_system(&mut disk).unwrap_or_default();
    }
}

impl Image {
    /// Opens an image for reading.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with the first reason that `options` does not allow.
    pub fn open(source: &mut dyn ReadAt, options: &Options) -> Result<(Self, Info), Error> {
        let (info, image) = examine(source, options)?;
        info.require(options)?;
        match image {
            Some(image) => Ok((image, info)),
            // Formats that are not read have a finding that nobody can override.
            None => Err(Error::refused(Reason::FormatNotRead, 0, 0)),
        }
    }

    /// Bytes of the virtual disk.
    #[must_use]
    pub fn virtual_size(&self) -> u64 {
        match self {
            Self::Raw(size) => *size,
            Self::Qcow2(image) => image.virtual_size(),
            Self::Vmdk(image) => image.virtual_size(),
            Self::Vhd(image) => image.virtual_size(),
            Self::Vhdx(image) => image.virtual_size(),
            Self::Vdi(image) => image.virtual_size(),
        }
    }

    /// Bytes of a cluster, grain or block: what one table entry stands for. Raw disks have none.
    #[must_use]
    pub fn cluster_size(&self) -> Option<u64> {
        match self {
            Self::Raw(_) => None,
            Self::Qcow2(image) => Some(image.cluster_size()),
            Self::Vmdk(image) => Some(image.grain_size()),
            Self::Vhd(image) => image.block_size(),
            Self::Vhdx(image) => Some(image.block_size()),
            Self::Vdi(image) => Some(image.block_size()),
        }
    }

    /// Whether [`map`](Self::map) may answer [`Content::Backing`].
    #[must_use]
    pub fn has_backing(&self) -> bool {
        match self {
            Self::Qcow2(image) => image.has_backing(),
            Self::Vmdk(image) => image.has_backing(),
            _ => false,
        }
    }

    /// Whether `backing` may be what the image lacks, as far as the image says what that has to be. Only
    /// a VMDK does.
    #[must_use]
    pub fn may_be_over(&self, backing: &Self) -> bool {
        match self {
            Self::Vmdk(image) => image.is_over(backing),
            _ => true,
        }
    }

    /// Where the bytes at `offset` of the virtual disk come from. The answer reaches as far as they
    /// come from the same place, but it joins at most 4,096 table entries, so that its cost is
    /// bounded. How many answers a whole disk takes is bounded by the virtual size alone.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if a table entry on the way leads nowhere or breaks the format,
    /// [`Error::Outside`] behind the end of the disk, and [`Error::Read`].
    pub fn map(&mut self, source: &mut dyn ReadAt, offset: u64) -> Result<Mapping, Error> {
        self.map_counted(source, offset).map(|(mapping, _)| mapping)
    }

    /// Does what [`map`](Self::map) does, and returns also how much work it was, counted in table
    /// entries that were looked at. To read a piece of a table counts as 2,000 of them. An image can
    /// use a few tables many times over for a disk of any size, so a caller limits the work.
    ///
    /// # Errors
    ///
    /// As for [`map`](Self::map).
    pub fn map_counted(
        &mut self,
        source: &mut dyn ReadAt,
        offset: u64,
    ) -> Result<(Mapping, u64), Error> {
        let before = self.loads();
        let (mapping, entries) = match self {
            Self::Raw(size) => {
                let end = *size;
                let data = |at| Ok(Mapping::new(end - at, Content::Data { offset: at }));
                join(offset, end, data)
            }
            Self::Qcow2(image) => image.joined(source, offset),
            Self::Vmdk(image) => image.joined(source, offset),
            Self::Vhd(image) => image.joined(source, offset),
            Self::Vhdx(image) => image.joined(source, offset),
            Self::Vdi(image) => image.joined(source, offset),
        }?;
        Ok((mapping, entries + LOAD * (self.loads() - before)))
    }

    /// How many lines of its tables were read so far.
    pub(crate) fn loads(&self) -> u64 {
        match self {
            Self::Raw(_) => 0,
            Self::Qcow2(image) => image.loads(),
            Self::Vmdk(image) => image.loads(),
            Self::Vhd(image) => image.loads(),
            Self::Vhdx(image) => image.loads(),
            Self::Vdi(image) => image.loads(),
        }
    }

    /// Has tables be read in long pieces from now on, for who goes through all of them.
    pub(crate) fn read_in_order(&mut self) {
        match self {
            Self::Raw(_) | Self::Qcow2(_) => {}
            Self::Vmdk(image) => image.read_in_order(),
            Self::Vhd(image) => image.read_in_order(),
            Self::Vhdx(image) => image.read_in_order(),
            Self::Vdi(image) => image.read_in_order(),
        }
    }

    /// What one table entry says of the bytes at `offset`.
    fn piece(&mut self, source: &mut dyn ReadAt, offset: u64) -> Result<Mapping, Error> {
        match self {
            Self::Qcow2(image) if offset < image.virtual_size() => image.piece(source, offset),
            Self::Vhd(image) if offset < image.virtual_size() => image.piece(source, offset),
            _ => self.entry(source, offset).map(|entry| entry.mapping),
        }
    }

    /// The grain table whose part of the disk begins at `offset`, if the format has grain tables.
    pub(crate) fn table(
        &mut self,
        source: &mut dyn ReadAt,
        offset: u64,
    ) -> Result<Option<Table>, Error> {
        match self {
            Self::Vmdk(image) => image.whole_table(source, offset),
            _ => Ok(None),
        }
    }

    /// A copy of the same table for who writes, if the format has such copies.
    pub(crate) fn second_table(
        &mut self,
        source: &mut dyn ReadAt,
        offset: u64,
    ) -> Result<Option<Table>, Error> {
        match self {
            Self::Vmdk(image) => image.second_table(source, offset),
            _ => Ok(None),
        }
    }

    /// How many bytes of a disk the tables have entries for, at least those of this one.
    pub(crate) fn covered(&self) -> u64 {
        match self {
            Self::Vmdk(image) => image.covered(),
            Self::Vhd(image) => image.covered(),
            Self::Vdi(image) => image.covered(),
            // The region of a VHDX that has its table is filled up, and says nothing behind the disk.
            Self::Raw(_) | Self::Qcow2(_) | Self::Vhdx(_) => self.virtual_size(),
        }
    }

    /// In which units a survey counts the parts of the file that table entries take. A qcow2 image
    /// has none, since it has refcounts.
    pub(crate) fn units(&self) -> Option<Units> {
        match self {
            Self::Raw(_) | Self::Qcow2(_) => None,
            Self::Vmdk(_) => Some(Units {
                base: 0,
                unit: vmdk::SECTOR,
            }),
            Self::Vhd(image) => image.units(),
            Self::Vhdx(image) => Some(image.units()),
            Self::Vdi(image) => Some(image.units()),
        }
    }

    /// What is wrong with a number of blocks that the header gives, if a survey has met `named` of
    /// them. Only a VDI gives one.
    pub(crate) fn miscount(&self, named: u64) -> Option<Finding> {
        match self {
            Self::Vdi(image) => image.miscount(named),
            _ => None,
        }
    }

    /// What is wrong with the block at `offset`, which has `length` bytes of the disk, although its
    /// entry is sound.
    pub(crate) fn contradiction(
        &mut self,
        source: &mut dyn ReadAt,
        offset: u64,
        length: u64,
    ) -> Result<Option<Finding>, Error> {
        match self {
            Self::Vhd(image) => image.contradiction(source, offset, length),
            _ => Ok(None),
        }
    }

    /// What the table entry for the cluster that begins at `offset` says.
    pub(crate) fn entry(&mut self, source: &mut dyn ReadAt, offset: u64) -> Result<Entry, Error> {
        match self {
            Self::Raw(_) | Self::Qcow2(_) => self.map(source, offset).map(Entry::of),
            Self::Vmdk(image) => image.entry(source, offset),
            Self::Vhd(image) => image.entry(source, offset),
            Self::Vhdx(image) => image.entry(source, offset),
            Self::Vdi(image) => image.entry(source, offset),
        }
    }
}

/// The virtual disk of an image. Reading fails where it takes inflating or a backing file.
struct VirtualDisk<'a> {
    image: &'a mut Image,
    source: &'a mut dyn ReadAt,
}

impl ReadAt for VirtualDisk<'_> {
    fn size(&self) -> u64 {
        self.image.virtual_size()
    }

    fn read_at(&mut self, mut offset: u64, mut buffer: &mut [u8]) -> Result<(), ReadError> {
        while !buffer.is_empty() {
            let mapping = self.image.piece(self.source, offset);
            let mapping = mapping.map_err(|_| ReadError)?;
            let length = mapping.length.min(len64(buffer));
            let (piece, rest) = buffer.split_at_mut(to_usize(length));
            match mapping.content {
                Content::Data { offset } => self.source.read_at(offset, piece)?,
                Content::Zero => piece.fill(0),
                Content::Unwritten { offset } => {
                    self.source.read_at(offset, piece)?;
                    Mapping::unwritten(offset, piece).map_err(|_| ReadError)?;
                }
                Content::Compressed(_) | Content::Backing => return Err(ReadError),
            }
            offset += length;
            buffer = rest;
        }
        Ok(())
    }
}
