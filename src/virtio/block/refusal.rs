//! What a disk refuses: a request that is answered with an error by the fault of its driver, and not
//! of the host. A driver that does not look at the answer goes wrong only later, so that the first
//! refusal is kept for who asks what came before.

use std::sync::OnceLock;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN,
    VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};

use super::config::{SEG_MAX, SIZE_MAX, WIRE_SECTOR};
use super::request::{Geometry, Status};
use super::zeroes::MAX_ZERO_SEGMENTS;

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// The header is too short, or cannot be read.
    Header,
    /// A readable descriptor follows a writable one.
    Order,
    /// Its data is for the other direction.
    Direction,
    /// The disk can only be read.
    ReadOnly,
    /// It asks for nothing, or for parts of sectors.
    Unaligned,
    /// It reaches past the end of the disk.
    End,
    /// Its data has too many pieces, or too large ones.
    Pieces,
    /// Its data is not within memory.
    Memory,
    /// Its data is no list of parts.
    List,
    /// A part of its list has a flag that it may not have.
    Flags,
    /// The device has no such type.
    Type,
    /// The driver has not chosen the feature that the type belongs to.
    Feature,
}

/// A request that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Its type; of no meaning if its header is what is wrong.
    pub(super) kind: u32,
    pub(super) wrong: Wrong,
    /// The first sector of what it asks for, in the unit of the header.
    pub(super) sector: u64,
    /// How many bytes it asks for.
    pub(super) len: u64,
}

impl Refusal {
    /// A request of type `kind` for this part of the disk, whose data is not within memory.
    pub(super) fn unreachable(kind: u32, offset: u64, len: u64) -> Self {
        Self {
            kind,
            wrong: Wrong::Memory,
            sector: offset / WIRE_SECTOR,
            len,
        }
    }

    /// What the request is answered with.
    pub(super) fn status(self) -> Status {
        match self.wrong {
            Wrong::Type | Wrong::Feature | Wrong::Flags => Status::Unsupported,
            _ => Status::IoErr,
        }
    }

    /// The request and what is wrong with it, as a part of a sentence.
    fn describe(self, geometry: &Geometry) -> String {
        format!("{}, {}", self.request(), self.wrong.describe(geometry))
    }

    fn request(self) -> String {
        let Self {
            kind, sector, len, ..
        } = self;
        let name = match kind {
            _ if self.wrong == Wrong::Header => return "one".to_owned(),
            VIRTIO_BLK_T_IN => "a read",
            VIRTIO_BLK_T_OUT => "a write",
            VIRTIO_BLK_T_FLUSH => return "a flush".to_owned(),
            VIRTIO_BLK_T_GET_ID => return "one for its name (GET_ID)".to_owned(),
            VIRTIO_BLK_T_DISCARD => "a discard",
            VIRTIO_BLK_T_WRITE_ZEROES => "a write of zeros (WRITE_ZEROES)",
            _ => return format!("one of type {kind}"),
        };
        let is_list = matches!(kind, VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES);
        match self.wrong {
            // The sector of the header means nothing then.
            _ if !is_list => format!("{name} of {len} bytes at sector {sector}"),
            Wrong::End | Wrong::Unaligned | Wrong::Flags => {
                format!("{name}, of {len} bytes at sector {sector}")
            }
            _ => name.to_owned(),
        }
    }
}

impl Wrong {
    fn describe(self, geometry: &Geometry) -> String {
        let text = match self {
            Self::Header => "whose header of 16 bytes cannot be read",
            Self::Order => {
                "whose descriptors to be read do not all come before those to be written"
            }
            Self::Direction => "whose descriptors are for the other direction",
            Self::ReadOnly => "on a disk that can only be read",
            Self::Unaligned => {
                let size = geometry.sector_size();
                return format!("which are no whole sectors of {size} bytes");
            }
            Self::End => {
                let sectors = geometry.capacity() / WIRE_SECTOR;
                return format!("past its end of {sectors} sectors of {WIRE_SECTOR} bytes");
            }
            Self::Pieces => {
                return format!(
                    "whose data has more than {SEG_MAX} pieces, or one of more than {SIZE_MAX} bytes"
                );
            }
            Self::Memory => "whose data is not within the memory that devices may use",
            Self::List => {
                return format!("whose data is no list of 1 to {MAX_ZERO_SEGMENTS} parts");
            }
            Self::Flags => "with a flag that it may not have",
            Self::Type => "which it does not know",
            Self::Feature => "of a feature that its driver has not chosen",
        };
        text.to_owned()
    }
}

/// The first request that a disk refused.
#[derive(Debug, Default)]
pub(super) struct FirstRefusal(OnceLock<Refusal>);

impl FirstRefusal {
    /// Keeps `refusal` if it is the first; returns what the request is answered with.
    pub(super) fn note(&self, refusal: Refusal) -> Status {
        self.0.get_or_init(|| refusal);
        refusal.status()
    }

    /// What it was and why, as a part of a sentence that has named the disk.
    pub(super) fn describe(&self, geometry: &Geometry) -> Option<String> {
        Some(self.0.get()?.describe(geometry))
    }
}
