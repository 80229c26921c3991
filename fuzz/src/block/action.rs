//! Bytes to actions of a disk's driver. Values that mean something (sector multiples among them)
//! are favoured, so that a random input gets past the first checks; each field can still take any
//! value at all.

use arbitrary::{Result, Unstructured};
use guest_abi::layout::DMA_POOL;

use super::super::virtio::queue::{QueueLayout, TABLES};
use super::super::virtio::values::{
    Fields, address, bytes, features, fields, length, register, register_value,
};

/// Requests whose data is a list of parts of the disk.
pub const DISCARD: u32 = 11;
pub const WRITE_ZEROES: u32 = 13;
/// Wire sectors around the start, the failing range and the end of the disks.
const SECTORS: [u64; 10] = [0, 1, 8, 64, 72, 127, 128, 512, 1023, 1024];

/// A block request that is nearly right.
#[derive(Clone, Debug)]
pub struct Request {
    pub slot: u16,
    pub kind: u32,
    pub sector: u64,
    pub header_len: u32,
    /// Address and length of each data descriptor.
    pub data: Vec<(u64, u32)>,
    pub status_len: u32,
    pub indirect: bool,
    /// What is written where the data begins, of a request that makes parts of the disk zero.
    pub list: Vec<u8>,
}

/// One step of a driver.
#[derive(Clone, Debug)]
pub enum Action {
    WriteRegister {
        offset: u64,
        bytes: Vec<u8>,
    },
    ReadRegister {
        offset: u64,
        len: usize,
    },
    Start {
        features: u64,
        size: u16,
    },
    Descriptor {
        table: u64,
        index: u16,
        fields: Fields,
    },
    Request(Request),
    Available(u16),
    AvailIndex(u16),
    Poke {
        address: u64,
        bytes: Vec<u8>,
    },
    Notify,
    Work,
    Help,
    Leave,
}

impl Action {
    /// The next action, and which of the two disks it is for.
    pub fn take(u: &mut Unstructured<'_>) -> Result<(usize, Self)> {
        let choice: u8 = u.arbitrary()?;
        let disk = usize::from(choice >> 7);
        let queue = QueueLayout::of(disk);
        let action = match choice & 0x1f {
            0..=2 => Self::WriteRegister {
                offset: register(u)?,
                bytes: register_value(u)?,
            },
            3 => Self::ReadRegister {
                offset: register(u)?,
                len: *u.choose(&[0, 1, 2, 4, 4, 8, 3, 16, 300])?,
            },
            4 | 5 => Self::Start {
                features: features(u)?,
                size: 1 << u.int_in_range(0..=11)?,
            },
            6..=11 => Self::Descriptor {
                table: *u.choose(&[queue.table(), queue.table(), queue.base + TABLES])?,
                index: u.int_in_range(0..=33)?,
                fields: fields(u, queue)?,
            },
            12..=19 => Self::Request(request(u, queue)?),
            20..=22 => Self::Available(u.int_in_range(0..=33)?),
            23 => Self::AvailIndex(u.arbitrary()?),
            24 => Self::Poke {
                address: address(u, queue)?,
                bytes: bytes(u, 16)?,
            },
            25 | 26 => Self::Notify,
            27 => Self::Help,
            28 => Self::Leave,
            _ => Self::Work,
        };
        Ok((disk, action))
    }
}

fn request(u: &mut Unstructured<'_>, queue: QueueLayout) -> Result<Request> {
    let segments = u.int_in_range(0..=4)?;
    let shape: u8 = u.arbitrary()?;
    let mut data = Vec::with_capacity(segments);
    for _ in 0..segments {
        let at = match u.int_in_range(0..=15u8)? {
            15 => address(u, queue)?,
            slot => DMA_POOL + u64::from(slot) * 0x1_0000,
        };
        let len = match u.int_in_range(0..=7u8)? {
            0..=5 => u.int_in_range(1..=16u32)? * 512,
            _ => length(u)?,
        };
        data.push((at, len));
    }
    let kind = match shape & 0xf {
        0..=5 => 0,
        6..=10 => 1,
        11 => DISCARD,
        12 => 4,
        13 => 8,
        14 => WRITE_ZEROES,
        _ => u.arbitrary()?,
    };
    let mut list = Vec::new();
    if matches!(kind, DISCARD | WRITE_ZEROES) {
        list = parts(u)?;
        if let Some((_, len)) = data.first_mut().filter(|_| shape & 0x10 == 0) {
            *len = u32::try_from(list.len()).unwrap();
            data.truncate(1);
        }
    }
    Ok(Request {
        slot: u.int_in_range(0..=31)?,
        kind,
        list,
        sector: match u.int_in_range(0..=7u8)? {
            0..=2 => *u.choose(&SECTORS)?,
            3..=6 => u.int_in_range(0..=140)?,
            _ => u.arbitrary()?,
        },
        header_len: if shape & 0x10 == 0 { 16 } else { length(u)? },
        data,
        status_len: u32::from(shape & 0x60 != 0x60),
        indirect: shape & 0x80 != 0,
    })
}

/// A list of parts to make zero: first sector, how many, flags (virtio 1.2, section 5.2.6).
fn parts(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut list = Vec::new();
    for _ in 0..u.int_in_range(0..=4u8)? {
        let wild: u8 = u.arbitrary()?;
        let sector: u64 = match wild & 3 {
            3 => u.arbitrary()?,
            _ => *u.choose(&SECTORS)?,
        };
        let sectors: u32 = match wild & 12 {
            12 => u.arbitrary()?,
            _ => u.int_in_range(0..=16)? * 8,
        };
        let flags: u32 = match wild & 48 {
            48 => u.arbitrary()?,
            _ => u32::from(wild >> 7),
        };
        list.extend(sector.to_le_bytes());
        list.extend(sectors.to_le_bytes());
        list.extend(flags.to_le_bytes());
    }
    Ok(list)
}
