//! What the output is: where the disk's bytes go on it, and what becomes of zeros.

use guest_kit::virtio::requests::Request;

use super::tables::Tables;
use super::zeros::Zeros;
use crate::failure::Failure;
use crate::pool::Pool;

/// The output.
#[derive(Debug)]
pub(super) enum Target {
    /// The bytes of the disk as they are. Zeros are declared.
    Raw(Zeros),
    /// An image with tables, in which zeros have no place.
    Qcow2(Tables),
}

impl Target {
    /// Zeros are left out in pieces of so many bytes: what file systems have as their smallest hole,
    /// or a cluster.
    pub(super) const fn grain(&self) -> u64 {
        match self {
            Self::Raw(_) => 4096,
            Self::Qcow2(_) => guest_formats::qcow2::CLUSTER,
        }
    }

    /// Whether zeros can be left out at all.
    pub(super) const fn leaves_zeros_out(&self) -> bool {
        match self {
            Self::Raw(zeros) => zeros.are_taken(),
            Self::Qcow2(_) => true,
        }
    }

    /// Leaves out so many zeros at `offset`, or as many as it can now, and returns how many.
    pub(super) fn leave_out(&mut self, offset: u64, length: u64) -> u64 {
        match self {
            Self::Raw(zeros) => zeros.add(offset, length),
            Self::Qcow2(_) => length,
        }
    }

    /// What is to be asked of the output beside the writing of blocks, one request at a time.
    /// `composed` says whether all of the disk is in blocks or left out, `written` whether these
    /// blocks are written.
    pub(super) fn request(
        &mut self,
        pool: &mut Pool,
        composed: bool,
        written: bool,
    ) -> Result<Option<Request>, Failure> {
        match self {
            Self::Raw(zeros) => Ok(zeros.request(pool, composed)),
            Self::Qcow2(tables) => tables.request(pool, composed && written),
        }
    }

    /// The request came back.
    pub(super) fn take(&mut self, status: u8) -> Result<(), Failure> {
        match self {
            Self::Raw(zeros) => zeros.take(status),
            Self::Qcow2(tables) => tables.take(status),
        }
    }

    /// Nothing is under way, and nothing waits.
    pub(super) fn is_quiet(&self) -> bool {
        match self {
            Self::Raw(zeros) => zeros.is_quiet(),
            Self::Qcow2(tables) => tables.is_quiet(),
        }
    }

    /// Bytes of the output once all is written, of a disk of `size` bytes.
    pub(super) const fn length(&self, size: u64) -> u64 {
        match self {
            Self::Raw(_) => size,
            Self::Qcow2(tables) => tables.length(),
        }
    }
}
