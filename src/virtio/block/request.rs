//! Parses a block request (virtio 1.2, section 5.2.6) out of a descriptor chain. How a request is
//! spread over descriptors is the driver's choice (section 2.7.4.1), so the readable ones are
//! read as one stream, header then data, and of the writable ones the last byte is the status.

use std::ops::Range;

use thiserror::Error;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::config::{BlockConfig, SEG_MAX, SIZE_MAX, WIRE_SECTOR};
use super::refusal::{Refusal, Wrong};
use super::zeroes::{ZeroKind, is_list_length};
use crate::virtio::{Chain, ChainError};

const HEADER_BYTES: usize = 16;

/// Why a chain cannot even be answered with an error.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RequestFault {
    /// The descriptors are no chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// There is no writable descriptor, or the last one is empty.
    #[error("a request has no status byte")]
    NoStatus,
    /// The status byte is where devices may not write.
    #[error("the status byte of a request at {0:#x} is not within guest memory")]
    StatusUnreachable(u64),
}

/// How a request ended (virtio 1.2, section 5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    Ok = 0,
    IoErr = 1,
    Unsupported = 2,
}

/// A piece of guest memory, not yet checked to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) address: GuestAddress,
    pub(super) len: u32,
}

/// A part of the disk, in bytes, checked against its size and sector size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) offset: u64,
    pub(super) len: u32,
}

impl Extent {
    /// The first byte behind it; it does not wrap, since it is within the disk.
    pub(super) fn end(self) -> u64 {
        self.offset + u64::from(self.len)
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Read(Extent),
    Write(Extent),
    /// The parts that its data names are to be made zero or forgotten.
    Zeroes(ZeroKind),
    Flush,
    GetId,
    /// Nothing is to be done but to answer with an error.
    Refuse(Refusal),
}

impl Operation {
    /// Whether it changes what can be read. What is discarded reads as anything, before and after.
    pub(super) fn is_write(self) -> bool {
        matches!(self, Self::Write(_) | Self::Zeroes(ZeroKind::WriteZeroes))
    }
}

/// A request whose status byte can be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Index of the chain's first descriptor.
    pub(super) head: u16,
    pub(super) operation: Operation,
    /// Where in the list of segments its data is.
    pub(super) segments: Range<usize>,
    /// How many bytes of that the device may write.
    pub(super) writable: u64,
    pub(super) status: GuestAddress,
}

/// The properties of the disk that decide whether a request is valid.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    capacity: u64,
    sector_size: u64,
    read_only: bool,
    discard: bool,
    write_zeroes: bool,
}

impl Geometry {
    pub(super) fn new(config: &BlockConfig) -> Self {
        Self {
            capacity: config.capacity,
            sector_size: u64::from(config.sector_size),
            read_only: config.read_only,
            discard: false,
            write_zeroes: false,
        }
    }

    /// The same for a driver that has chosen `features`: it may ask for nothing else (virtio 1.2, section
    /// 2.2). A flush without FLUSH is carried out all the same, as it only makes more stable.
    pub(super) fn negotiated(self, features: u64) -> Self {
        let has = |bit: u32| features & (1 << bit) != 0;
        Self {
            discard: has(VIRTIO_BLK_F_DISCARD),
            write_zeroes: has(VIRTIO_BLK_F_WRITE_ZEROES),
            ..self
        }
    }

    /// The size of the disk in bytes.
    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The size of a sector in bytes.
    pub(super) fn sector_size(&self) -> u64 {
        self.sector_size
    }

    /// The part of the disk from wire sector `sector` on, `len` bytes, if it is whole sectors
    /// within the disk.
    fn extent(&self, sector: u64, len: u64) -> Result<Extent, Wrong> {
        let offset = self.offset(sector, len)?;
        let len = u32::try_from(len).map_err(|_| Wrong::Pieces)?;
        Ok(Extent { offset, len })
    }

    /// Where in bytes wire sector `sector` is, if the `len` bytes from there on are whole sectors
    /// within the disk, one at least.
    pub(super) fn offset(&self, sector: u64, len: u64) -> Result<u64, Wrong> {
        let offset = sector.checked_mul(WIRE_SECTOR).ok_or(Wrong::End)?;
        let end = offset.checked_add(len).ok_or(Wrong::End)?;
        // The sector size is a power of two, and this is asked for each request.
        let whole = (offset | len) & (self.sector_size - 1) == 0;
        if len == 0 || !whole {
            return Err(Wrong::Unaligned);
        }
        if end > self.capacity {
            return Err(Wrong::End);
        }
        Ok(offset)
    }
}

/// Parses `chain` and appends its data to `segments`.
///
/// # Errors
///
/// Why the chain cannot be answered; `segments` is then as before.
pub(super) fn parse(
    mut chain: Chain<'_, '_>,
    memory: &GuestMemoryMmap,
    geometry: &Geometry,
    segments: &mut Vec<Segment>,
) -> Result<Request, RequestFault> {
    let (head, first) = (chain.head(), segments.len());
    let mut parts = ChainParts::new(memory, segments);
    let status = match parts.read(&mut chain) {
        Ok(status) => status,
        Err(fault) => {
            segments.truncate(first);
            return Err(fault);
        }
    };
    Ok(Request {
        head,
        operation: parts.operation(geometry, first),
        writable: parts.writable,
        segments: first..segments.len(),
        status,
    })
}

/// A chain taken apart: header, data and status.
struct ChainParts<'a> {
    memory: &'a GuestMemoryMmap,
    segments: &'a mut Vec<Segment>,
    header: [u8; HEADER_BYTES],
    header_len: usize,
    /// Whether all of the header that there is could be read.
    header_sound: bool,
    /// Whether no readable descriptor follows a writable one.
    in_order: bool,
    readable: u64,
    writable: u64,
    /// The last writable descriptor so far, which may turn out to hold the status.
    last: Option<Segment>,
}

impl<'a> ChainParts<'a> {
    fn new(memory: &'a GuestMemoryMmap, segments: &'a mut Vec<Segment>) -> Self {
        Self {
            memory,
            segments,
            header: [0; HEADER_BYTES],
            header_len: 0,
            header_sound: true,
            in_order: true,
            readable: 0,
            writable: 0,
            last: None,
        }
    }

    /// Takes the whole chain and returns where the status byte is.
    fn read(&mut self, chain: &mut Chain<'_, '_>) -> Result<GuestAddress, RequestFault> {
        while let Some(descriptor) = chain.next_descriptor()? {
            let segment = Segment {
                address: descriptor.addr(),
                len: descriptor.len(),
            };
            if descriptor.is_write_only() {
                if let Some(data) = self.last.replace(segment) {
                    self.push_writable(data);
                }
            } else {
                self.add_readable(segment);
            }
        }
        self.split_status()
    }

    fn add_readable(&mut self, segment: Segment) {
        // Section 2.7.4.2: what the device writes comes behind all that it reads.
        self.in_order &= self.last.is_none();
        let data = self.take_header(segment);
        self.readable += u64::from(data.len);
        self.push(data);
    }

    /// Takes of `segment` what the header still lacks and returns the rest.
    fn take_header(&mut self, segment: Segment) -> Segment {
        let lacking = &mut self.header[self.header_len..];
        if lacking.is_empty() {
            return segment;
        }
        let taken = lacking.len().min(segment.len as usize);
        let read = self
            .memory
            .read_slice(&mut lacking[..taken], segment.address);
        self.header_len += taken;
        // These are 16 bytes at the most, so that this cannot fail. An address that wraps could not
        // be read either.
        let taken = u32::try_from(taken).unwrap_or(segment.len);
        let rest = segment.address.checked_add(u64::from(taken));
        self.header_sound &= read.is_ok() && rest.is_some();
        Segment {
            address: rest.unwrap_or_default(),
            len: segment.len - taken,
        }
    }

    fn split_status(&mut self) -> Result<GuestAddress, RequestFault> {
        let last = self.last.ok_or(RequestFault::NoStatus)?;
        let data = last.len.checked_sub(1).ok_or(RequestFault::NoStatus)?;
        let status = last.address.checked_add(u64::from(data));
        let status = status
            .and_then(|address| self.memory.check_address(address))
            .ok_or(RequestFault::StatusUnreachable(last.address.0))?;
        self.push_writable(Segment {
            address: last.address,
            len: data,
        });
        Ok(status)
    }

    fn push_writable(&mut self, data: Segment) {
        self.writable += u64::from(data.len);
        self.push(data);
    }

    fn push(&mut self, data: Segment) {
        if data.len > 0 {
            self.segments.push(data);
        }
    }

    /// What the request asks for; its data is in the segments from `first` up.
    fn operation(&self, geometry: &Geometry, first: usize) -> Operation {
        let [t0, t1, t2, t3, _, _, _, _, s0, s1, s2, s3, s4, s5, s6, s7] = self.header;
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let kind = u32::from_le_bytes([t0, t1, t2, t3]);
        let asked = self.asked(kind, sector, geometry).and_then(|operation| {
            let within = self.within_limits(first);
            within.then_some(operation).ok_or(Wrong::Pieces)
        });
        asked.unwrap_or_else(|wrong| {
            Operation::Refuse(Refusal {
                kind,
                wrong,
                sector,
                len: self.readable + self.writable,
            })
        })
    }

    fn asked(&self, kind: u32, sector: u64, geometry: &Geometry) -> Result<Operation, Wrong> {
        if !self.header_sound || self.header_len < HEADER_BYTES {
            return Err(Wrong::Header);
        }
        if !self.in_order {
            return Err(Wrong::Order);
        }
        Ok(match kind {
            VIRTIO_BLK_T_IN => {
                none(self.readable)?;
                Operation::Read(geometry.extent(sector, self.writable)?)
            }
            VIRTIO_BLK_T_OUT if geometry.read_only => return Err(Wrong::ReadOnly),
            VIRTIO_BLK_T_OUT => {
                none(self.writable)?;
                Operation::Write(geometry.extent(sector, self.readable)?)
            }
            VIRTIO_BLK_T_WRITE_ZEROES if geometry.write_zeroes => {
                self.zeroes(ZeroKind::WriteZeroes)?
            }
            VIRTIO_BLK_T_DISCARD if geometry.discard => self.zeroes(ZeroKind::Discard)?,
            VIRTIO_BLK_T_WRITE_ZEROES | VIRTIO_BLK_T_DISCARD => return Err(Wrong::Feature),
            VIRTIO_BLK_T_FLUSH => Operation::Flush,
            VIRTIO_BLK_T_GET_ID => {
                none(self.readable)?;
                Operation::GetId
            }
            _ => return Err(Wrong::Type),
        })
    }

    /// A list of parts of the disk; what it says is looked at when it is carried out.
    fn zeroes(&self, kind: ZeroKind) -> Result<Operation, Wrong> {
        none(self.writable)?;
        let sound = is_list_length(self.readable);
        sound.then_some(Operation::Zeroes(kind)).ok_or(Wrong::List)
    }

    fn within_limits(&self, first: usize) -> bool {
        let data = &self.segments[first..];
        data.len() <= SEG_MAX as usize && data.iter().all(|segment| segment.len <= SIZE_MAX)
    }
}

/// Holds a request to having so much data in the wrong direction as it may have.
fn none(bytes: u64) -> Result<(), Wrong> {
    match bytes {
        0 => Ok(()),
        _ => Err(Wrong::Direction),
    }
}
