//! Lets the parsers read the image on the disk.
//!
//! A disk has whole sectors, while an image may have any length. Why a read failed is kept here,
//! since a parser only says that it did.

use guest_formats::{ReadAt, ReadError};
use guest_kit::disk::{DiskError, ReadDisk};
use guest_kit::hardware::{Ports, Registers};

/// An image on a disk.
#[derive(Debug)]
pub struct Source<'a, P, R> {
    disk: ReadDisk<'a, P, R>,
    length: u64,
    failure: Option<DiskError>,
}

impl<'a, P: Ports, R: Registers> Source<'a, P, R> {
    /// The image in the first `length` bytes of `disk`, or in all of it if it has fewer.
    #[must_use]
    pub fn new(disk: ReadDisk<'a, P, R>, length: u64) -> Self {
        Self {
            length: length.min(disk.len()),
            disk,
            failure: None,
        }
    }

    /// Why the first read failed, if one did.
    #[must_use]
    pub const fn failure(&self) -> Option<&DiskError> {
        self.failure.as_ref()
    }
}

impl<P: Ports, R: Registers> ReadAt for Source<'_, P, R> {
    fn size(&self) -> u64 {
        self.length
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        self.disk.read(offset, buffer).map_err(|error| {
            self.failure.get_or_insert(error);
            ReadError
        })
    }
}
