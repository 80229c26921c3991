//! What a block device is made from, and the configuration space and feature bits that follow
//! from it (virtio 1.2, sections 5.2.3 and 5.2.4).

pub use guest_abi::limits::MAX_QUEUE_SIZE;
use guest_abi::limits::MIN_SECTOR_SIZE;
use thiserror::Error;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX,
    VIRTIO_BLK_F_SIZE_MAX,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

/// Most data descriptors of a request; one with more is answered with an error.
pub const SEG_MAX: u32 = 126;
/// Most bytes of a data descriptor; with [`SEG_MAX`] it bounds how long one request can take.
pub const SIZE_MAX: u32 = 1 << 20;
/// Length of the device's id (virtio 1.2, section 5.2.6).
pub const ID_BYTES: usize = 20;
/// Unit of the capacity and of a request's position, whatever the block size.
pub(super) const WIRE_SECTOR: u64 = MIN_SECTOR_SIZE as u64;

const CONFIG_BYTES: usize = 60;
const CAPACITY: usize = 0;
const SIZE_MAX_FIELD: usize = 8;
const SEG_MAX_FIELD: usize = 12;
const BLK_SIZE: usize = 20;
const NUM_QUEUES: usize = 34;

/// What a block device is made from.
#[derive(Clone, Copy, Debug)]
pub struct BlockConfig {
    /// Size of the disk in bytes, a multiple of the sector size.
    pub capacity: u64,
    /// Block size in bytes, a power of two from 512 up: the granularity of requests.
    pub sector_size: u32,
    /// Whether requests to write are refused.
    pub read_only: bool,
    /// What the driver gets that asks for the device's id, padded with zeros.
    pub id: [u8; ID_BYTES],
}

/// Why there cannot be such a disk.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BlockConfigError {
    /// The disk does not end with a sector.
    #[error("a capacity of {capacity} bytes is not a whole number of {sector_size}-byte sectors")]
    Capacity {
        /// In bytes.
        capacity: u64,
        /// In bytes.
        sector_size: u32,
    },
    /// Not a sector size.
    #[error("a sector size of {0} bytes is not a power of two from 512 up")]
    SectorSize(u32),
}

impl BlockConfig {
    pub(super) fn check(&self) -> Result<(), BlockConfigError> {
        let sector_size = self.sector_size;
        if !sector_size.is_power_of_two() || u64::from(sector_size) < WIRE_SECTOR {
            return Err(BlockConfigError::SectorSize(sector_size));
        }
        if !self.capacity.is_multiple_of(u64::from(sector_size)) {
            return Err(BlockConfigError::Capacity {
                capacity: self.capacity,
                sector_size,
            });
        }
        Ok(())
    }

    /// The feature bits that such a disk offers.
    pub(super) fn features(&self) -> u64 {
        let always = [
            VIRTIO_BLK_F_SIZE_MAX,
            VIRTIO_BLK_F_SEG_MAX,
            VIRTIO_BLK_F_BLK_SIZE,
            VIRTIO_BLK_F_FLUSH,
            VIRTIO_RING_F_INDIRECT_DESC,
            VIRTIO_RING_F_EVENT_IDX,
            VIRTIO_F_VERSION_1,
        ];
        let read_only = self.read_only.then_some(VIRTIO_BLK_F_RO);
        let bits = always.into_iter().chain(read_only);
        bits.fold(0, |features, bit| features | (1 << bit))
    }
}

/// The configuration space as the driver reads it. There is nothing in it for the driver to
/// write: its only such field, writeback, needs a feature that is not offered.
#[derive(Debug)]
pub(super) struct ConfigSpace([u8; CONFIG_BYTES]);

impl ConfigSpace {
    pub(super) fn new(config: &BlockConfig) -> Self {
        let mut space = Self([0; CONFIG_BYTES]);
        space.set(CAPACITY, &(config.capacity / WIRE_SECTOR).to_le_bytes());
        space.set(SIZE_MAX_FIELD, &SIZE_MAX.to_le_bytes());
        space.set(SEG_MAX_FIELD, &SEG_MAX.to_le_bytes());
        space.set(BLK_SIZE, &config.sector_size.to_le_bytes());
        space.set(NUM_QUEUES, &1u16.to_le_bytes());
        space
    }

    /// Copies what there is from `offset` up, and leaves the rest of `data` alone.
    pub(super) fn read(&self, offset: usize, data: &mut [u8]) {
        let bytes = self.0.get(offset..).unwrap_or_default();
        for (target, byte) in data.iter_mut().zip(bytes) {
            *target = *byte;
        }
    }

    fn set(&mut self, offset: usize, bytes: &[u8]) {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(sector_size: u32) -> BlockConfig {
        BlockConfig {
            capacity: 1 << 20,
            sector_size,
            read_only: false,
            id: [0; ID_BYTES],
        }
    }

    #[test]
    fn capacity_is_in_512_byte_sectors_whatever_the_block_size() {
        for sector_size in [512, 4096, 65536] {
            let space = ConfigSpace::new(&config(sector_size));
            let mut capacity = [0; 8];
            space.read(CAPACITY, &mut capacity);
            assert_eq!(u64::from_le_bytes(capacity), 2048);
            let mut blk_size = [0; 4];
            space.read(20, &mut blk_size);
            assert_eq!(u32::from_le_bytes(blk_size), sector_size);
        }
    }

    #[test]
    fn reads_over_the_end_of_the_space_give_what_there_is() {
        let space = ConfigSpace::new(&config(512));
        for offset in [CONFIG_BYTES - 2, CONFIG_BYTES, usize::MAX] {
            let mut data = [0; 8];
            space.read(offset, &mut data);
            assert_eq!(data, [0; 8]);
        }
    }

    #[test]
    fn only_powers_of_two_from_512_up_are_sector_sizes() {
        for sector_size in [0, 1, 256, 1000, 513, u32::MAX] {
            let error = config(sector_size).check();
            assert_eq!(error, Err(BlockConfigError::SectorSize(sector_size)));
        }
        for shift in 9..=16 {
            assert_eq!(config(1 << shift).check(), Ok(()));
        }
    }

    #[test]
    fn a_disk_is_a_whole_number_of_sectors() {
        let odd = BlockConfig {
            capacity: 4096 + 512,
            ..config(4096)
        };
        assert!(matches!(
            odd.check(),
            Err(BlockConfigError::Capacity { .. })
        ));
    }

    #[test]
    fn only_a_read_only_disk_offers_ro() {
        let read_only = BlockConfig {
            read_only: true,
            ..config(512)
        };
        assert_ne!(read_only.features() & (1 << VIRTIO_BLK_F_RO), 0);
        assert_eq!(config(512).features() & (1 << VIRTIO_BLK_F_RO), 0);
    }
}
