//! The two kinds of output: a raw disk and a qcow2 image. They differ in where the bytes of the
//! disk go, and in what is done with zeros.

use guest_kit::failure::Failure;
use guest_kit::virtio::requests::Request;

use super::tables::Tables;
use super::zeros::Zeros;
use crate::pool::Pool;

/// The output.
#[derive(Debug)]
pub(super) enum Target {
    /// A raw disk. Zeros are declared to it, if it takes that.
    Raw(Zeros),
    /// An image with tables. Clusters of zeros have no place in it.
    Qcow2(Tables),
}

impl Target {
    /// The grain in bytes: zeros are left out in multiples of it. It is the smallest hole of usual
    /// file systems, or a cluster of the image.
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

    /// Whether no more zeros can be left out now.
    pub(super) fn is_full(&self) -> bool {
        match self {
            Self::Raw(zeros) => zeros.is_full(),
            Self::Qcow2(_) => false,
        }
    }

    /// Leaves out `length` bytes of zeros at `offset`, or as many of them as it can now. Returns
    /// how many.
    pub(super) fn leave_out(&mut self, offset: u64, length: u64) -> u64 {
        match self {
            Self::Raw(zeros) => zeros.add(offset, length),
            Self::Qcow2(_) => length,
        }
    }

    /// The request that makes zero what lies where the header will be, if there will be one.
    pub(super) fn clear(&mut self, pool: &mut Pool) -> Option<Request> {
        match self {
            Self::Raw(_) => None,
            Self::Qcow2(tables) => tables.clear(pool),
        }
    }

    /// The next request to the output that does not write a block, if there is one. Only one of
    /// them is under way at a time. `composed` says whether all of the disk is in blocks or left
    /// out, and `written` whether all blocks are written.
    pub(super) fn request(
        &mut self,
        pool: &mut Pool,
        composed: bool,
        written: bool,
    ) -> Result<Option<Request>, Failure> {
        match self {
            Self::Raw(zeros) => Ok(zeros.request(pool, composed && written)),
            Self::Qcow2(tables) => tables.request(pool, composed && written),
        }
    }

    /// Says that the request has come back with this status byte.
    pub(super) fn take(&mut self, status: u8) -> Result<(), Failure> {
        match self {
            Self::Raw(zeros) => zeros.take(status),
            Self::Qcow2(tables) => tables.take(status),
        }
    }

    /// Whether no such request is under way, and none waits.
    pub(super) fn is_quiet(&self) -> bool {
        match self {
            Self::Raw(zeros) => zeros.is_quiet(),
            Self::Qcow2(tables) => tables.is_quiet(),
        }
    }

    /// The length of the output in bytes, once a disk of `size` bytes is written.
    pub(super) const fn length(&self, size: u64) -> u64 {
        match self {
            Self::Raw(_) => size,
            Self::Qcow2(tables) => tables.length(),
        }
    }
}
