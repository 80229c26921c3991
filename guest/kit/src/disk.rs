//! A disk that is read piece by piece: whoever asks waits until the bytes are there.
//!
//! It is for programs that look at a few places of a disk and decide by what they find there where
//! to look next. A program that moves much data has many requests under way instead, and uses
//! [`BlockDevice`] itself.

use thiserror::Error;

use crate::dma::DmaRegion;
use crate::hardware::{Attached, Ports, Registers};
use crate::virtio::block::{BlockDevice, BlockError, Purpose, WIRE_SECTOR};
use crate::virtio::requests::{Kind, Request, STATUS_OK};
use crate::waiting::{Waiter, Wake};

/// The only request that is ever under way.
const SLOT: u16 = 0;

/// Why bytes of a disk could not be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DiskError {
    /// The device cannot be used, or not any more.
    #[error(transparent)]
    Device(#[from] BlockError),
    /// The disk ends before these bytes.
    #[error("the disk ends at byte {end}, and {len} bytes at {offset} were wanted")]
    Outside {
        /// The offset of the first byte that was wanted.
        offset: u64,
        /// How many bytes were wanted.
        len: usize,
        /// The length of the disk in bytes.
        end: u64,
    },
    /// The device answered that it failed.
    #[error("the disk cannot be read at byte {offset} (status {status})")]
    Status {
        /// The offset at which the request began, in bytes.
        offset: u64,
        /// The request's status byte (virtio 1.2, section 5.2.6).
        status: u8,
    },
}

/// Whole sectors that hold a piece of what is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cover {
    /// The offset on the disk of the first sector, in bytes.
    pub start: u64,
    /// The length of all sectors in bytes.
    pub len: u32,
    /// How many of their bytes come before the piece.
    pub skip: usize,
}

/// Has `buffer` filled piece by piece with the bytes at `offset` of a disk: `read` gets the sectors that
/// hold a piece, and the part of the buffer that the piece belongs to. A sector has `sector` bytes. As
/// many whole ones are read at a time as `limit` bytes have room for, and at least one.
///
/// # Errors
///
/// The first error of `read`.
pub fn in_sectors<E>(
    offset: u64,
    buffer: &mut [u8],
    sector: u64,
    limit: u64,
    mut read: impl FnMut(Cover, &mut [u8]) -> Result<(), E>,
) -> Result<(), E> {
    let most = (limit - limit % sector).max(sector);
    let (mut at, mut rest) = (offset, buffer);
    while !rest.is_empty() {
        let start = at - at % sector;
        let wanted = at.saturating_add(rest.len() as u64);
        let end = wanted.next_multiple_of(sector).min(start + most);
        // None of these is more than a request may have bytes.
        let skip = usize::try_from(at - start).unwrap_or(usize::MAX);
        let there = usize::try_from(end - at).unwrap_or(usize::MAX);
        let len = u32::try_from(end - start).unwrap_or(u32::MAX);
        let (piece, behind) = rest.split_at_mut(there.min(rest.len()));
        read(Cover { start, len, skip }, piece)?;
        at = end;
        rest = behind;
    }
    Ok(())
}

/// A disk to read, with memory for what is on its way.
#[derive(Debug)]
pub struct ReadDisk<'a, P, R> {
    ports: &'a P,
    device: BlockDevice<R>,
    waiter: Waiter,
    memory: DmaRegion,
    /// Bytes of a sector.
    sector: u64,
    /// The length of the disk in bytes.
    end: u64,
}

impl<'a, P: Ports, R: Registers> ReadDisk<'a, P, R> {
    /// Starts the disk at `place`. What is read goes through `memory`, which must have room for a
    /// sector.
    ///
    /// # Errors
    ///
    /// [`BlockError`] if the device cannot be used.
    pub fn start(ports: &'a P, place: Attached<R>, memory: DmaRegion) -> Result<Self, BlockError> {
        let device = BlockDevice::init(place.registers, place.queue, Purpose::Read, 1, |_| {})?;
        let config = device.config();
        let sector = u64::from(config.sector_size.max(WIRE_SECTOR));
        let end = config.capacity.saturating_mul(u64::from(WIRE_SECTOR));
        Ok(Self {
            ports,
            device,
            waiter: Waiter::default(),
            memory,
            sector,
            end: end - end % sector,
        })
    }

    /// The length of the disk in bytes, in whole sectors.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.end
    }

    /// Whether the disk has no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// Fills `buffer` with the bytes at `offset`, which need not be that of a sector.
    ///
    /// # Errors
    ///
    /// [`DiskError`]; what is in `buffer` then means nothing.
    pub fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let len = buffer.len();
        let fits = offset.checked_add(len as u64);
        if fits.is_none_or(|end| end > self.end) {
            let end = self.end;
            return Err(DiskError::Outside { offset, len, end });
        }
        let limit = u64::from(self.device.config().size_max).min(self.memory.len() as u64);
        in_sectors(offset, buffer, self.sector, limit, |cover, piece| {
            self.fetch(cover.start, cover.len)?;
            piece.copy_from_slice(self.memory.bytes(cover.skip, piece.len()));
            Ok(())
        })
    }

    /// Reads `len` bytes at `offset`, both of whole sectors, to the start of the memory.
    fn fetch(&mut self, offset: u64, len: u32) -> Result<(), DiskError> {
        let request = Request {
            kind: Kind::Read,
            sector: offset / u64::from(WIRE_SECTOR),
            address: self.memory.address(0),
            len,
        };
        self.device.submit(SLOT, request);
        self.device.kick();
        loop {
            if let Some(done) = self.device.complete()? {
                return match done.status {
                    STATUS_OK => Ok(()),
                    status => Err(DiskError::Status { offset, status }),
                };
            }
            let Self { ports, device, .. } = self;
            let wait = self.waiter.wait(*ports, device, Wake::Only(0), || {});
            wait.map_err(|fault| fault.error)?;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

    use std::rc::Rc;

    use guest_abi::layout::QUEUE_SIZE;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::disk::{FakeDisk, Mischief};
    use crate::testing::memory::leak;
    use crate::testing::ports::FakePorts;
    use crate::testing::ports_with;
    use crate::virtio::block::F_SIZE_MAX;

    /// How long the disks are: Miri takes a second for 64 KiB of content.
    const DISK: usize = if cfg!(miri) { 8192 } else { 65536 };

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 7 + i / 256) as u8).collect()
    }

    fn place(disk: &Rc<FakeDisk>) -> Attached<Rc<FakeDisk>> {
        Attached {
            registers: Rc::clone(disk),
            address: 0,
            queue: leak(QUEUE_SIZE as usize),
        }
    }

    fn ports(disk: &Rc<FakeDisk>) -> FakePorts {
        ports_with(&[], [Rc::clone(disk) as _], 1)
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_whatever_sectors_and_memory_there_are(
            sector in prop_oneof![Just(512_u32), Just(4096)],
            memory in prop_oneof![Just(4096_usize), Just(20_000)],
            size_max in prop_oneof![Just(0_u32), Just(4096), Just(10_000)],
            offset in 0..DISK / 8 * 5,
            len in 0..DISK / 2,
        ) {
            let data = content(DISK);
            let disk = FakeDisk::new(data.clone(), sector, 1);
            if size_max > 0 {
                disk.get().features |= F_SIZE_MAX;
                disk.get().size_max = size_max;
            }
            let ports = ports(&disk);
            let mut reader = ReadDisk::start(&ports, place(&disk), leak(memory)).unwrap();
            prop_assert_eq!(reader.len(), DISK as u64);
            let mut found = vec![0; len];
            let whole = offset + len <= DISK;
            prop_assert_eq!(reader.read(offset as u64, &mut found).is_ok(), whole);
            if whole {
                prop_assert_eq!(&found[..], &data[offset..offset + len]);
            }
        }
    }

    #[test]
    fn a_place_that_cannot_be_read_is_named_and_others_can() {
        let disk = FakeDisk::new(content(DISK), 512, 1);
        disk.get().bad.insert(1024);
        let ports = ports(&disk);
        let mut reader = ReadDisk::start(&ports, place(&disk), leak(4096)).unwrap();
        let mut buffer = [0; 16];
        let failed = DiskError::Status {
            offset: 1024,
            status: 1,
        };
        assert_eq!(reader.read(1030, &mut buffer), Err(failed));
        assert_eq!(reader.read(1536, &mut buffer), Ok(()));
        assert_eq!(buffer[..], content(2048)[1536..1552]);
    }

    #[test]
    fn a_disk_that_breaks_down_is_no_disk_that_is_waited_for() {
        let disk = FakeDisk::new(content(DISK), 512, 1);
        disk.get().mischief = Some((1, Mischief::NeedsReset));
        let ports = ports(&disk);
        let mut reader = ReadDisk::start(&ports, place(&disk), leak(4096)).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(reader.read(0, &mut buffer), Ok(()));
        let error = reader.read(0, &mut buffer).unwrap_err();
        assert_eq!(error, DiskError::Device(BlockError::NeedsReset));
    }

    #[test]
    fn a_request_is_as_large_as_the_memory_has_room_for_sectors() {
        let disk = FakeDisk::new(content(4096), 512, 1);
        let ports = ports(&disk);
        let mut reader = ReadDisk::start(&ports, place(&disk), leak(1024 + 100)).unwrap();
        assert_eq!(reader.read(0, &mut [0; 4096]), Ok(()));
        assert_eq!(disk.get().served, 4);
    }

    #[test]
    fn a_limit_of_less_than_a_sector_is_one() {
        for limit in [0, 511, 512, 1023] {
            let mut starts = Vec::new();
            let taken = in_sectors(700, &mut [0; 1000], 512, limit, |cover, piece| {
                starts.push((cover.start, cover.len, piece.len()));
                Ok::<_, ()>(())
            });
            assert_eq!(taken, Ok(()));
            assert_eq!(
                starts,
                [(512, 512, 324), (1024, 512, 512), (1536, 512, 164)]
            );
        }
    }

    #[test]
    fn a_disk_has_its_whole_sectors_to_the_last_byte() {
        // A sector of 4096 bytes, and one eighth of another.
        let disk = FakeDisk::new(content(4096 + 512), 4096, 1);
        let ports_of_disk = ports(&disk);
        let mut reader = ReadDisk::start(&ports_of_disk, place(&disk), leak(4096)).unwrap();
        assert_eq!((reader.len(), reader.is_empty()), (4096, false));
        let mut buffer = [0; 16];
        assert_eq!(reader.read(4080, &mut buffer), Ok(()));
        assert_eq!(buffer[..], content(4096)[4080..]);
        assert!(reader.read(4081, &mut buffer).is_err());

        let empty = FakeDisk::new(Vec::new(), 512, 1);
        let ports = ports(&empty);
        let reader = ReadDisk::start(&ports, place(&empty), leak(4096)).unwrap();
        assert_eq!((reader.len(), reader.is_empty()), (0, true));
    }

    #[test]
    fn bytes_behind_the_end_are_refused_however_far_behind() {
        let disk = FakeDisk::new(content(1024), 512, 1);
        let ports = ports(&disk);
        let mut reader = ReadDisk::start(&ports, place(&disk), leak(4096)).unwrap();
        for offset in [1009, 1024, u64::MAX - 8, u64::MAX] {
            let error = reader.read(offset, &mut [0; 16]).unwrap_err();
            assert!(
                matches!(error, DiskError::Outside { end: 1024, .. }),
                "{error}"
            );
        }
    }
}
