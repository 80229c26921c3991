//! What a block device is made from, and the configuration space and feature bits that follow
//! from it (virtio 1.2, sections 5.2.3 and 5.2.4).

use super::zeroes::MAX_ZERO_SEGMENTS;
pub use guest_abi::limits::MAX_QUEUE_SIZE;
use guest_abi::limits::MIN_SECTOR_SIZE;
use thiserror::Error;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO,
    VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

/// The most data descriptors that a request may have. A request with more is answered with an
/// error.
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
const PHYSICAL_BLOCK_EXP: usize = 24;
const MIN_IO_SIZE: usize = 26;
const OPT_IO_SIZE: usize = 28;
const NUM_QUEUES: usize = 34;
const MAX_DISCARD_SECTORS: usize = 36;
const MAX_DISCARD_SEG: usize = 40;
const DISCARD_SECTOR_ALIGNMENT: usize = 44;
const MAX_WRITE_ZEROES_SECTORS: usize = 48;
const MAX_WRITE_ZEROES_SEG: usize = 52;
const WRITE_ZEROES_MAY_UNMAP: usize = 56;

/// What lies behind a disk is stored in blocks of so many bytes, or of a sector if that is more:
/// what file systems and drives have.
const PHYSICAL_BLOCK: u32 = 4096;
/// Requests of this many bytes are the fastest.
const OPTIMAL_IO: u32 = 128 << 10;

/// What a block device is made from.
#[derive(Clone, Copy, Debug)]
pub struct BlockConfig {
    /// Size of the disk in bytes, a multiple of the sector size.
    pub capacity: u64,
    /// Block size in bytes, a power of two from 512 up: the granularity of requests.
    pub sector_size: u32,
    /// Whether requests to write are refused.
    pub read_only: bool,
    /// Whether parts can be made zero and discarded without data, unless the disk is read-only.
    pub zeroes: bool,
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

    /// Whether WRITE_ZEROES and DISCARD are offered.
    pub(super) fn takes_zeroes(&self) -> bool {
        self.zeroes && !self.read_only
    }

    /// The feature bits that such a disk offers.
    pub(super) fn features(&self) -> u64 {
        let always = [
            VIRTIO_BLK_F_SIZE_MAX,
            VIRTIO_BLK_F_SEG_MAX,
            VIRTIO_BLK_F_BLK_SIZE,
            VIRTIO_BLK_F_FLUSH,
            VIRTIO_BLK_F_TOPOLOGY,
            VIRTIO_RING_F_INDIRECT_DESC,
            VIRTIO_RING_F_EVENT_IDX,
            VIRTIO_F_VERSION_1,
        ];
        let read_only = self.read_only.then_some(VIRTIO_BLK_F_RO);
        let zeroes = [VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES];
        let zeroes = zeroes.into_iter().filter(|_| self.takes_zeroes());
        let bits = always.into_iter().chain(read_only).chain(zeroes);
        bits.fold(0, |features, bit| features | (1 << bit))
    }
}

/// Whether a driver that has chosen `features` takes what it has written for stable as soon as it has
/// the answer (virtio 1.2, section 5.2.6.2): one that could have had FLUSH and left it out. There is no
/// way for it to ask for more.
pub(super) fn expects_stable_writes(features: u64) -> bool {
    features & (1 << VIRTIO_BLK_F_FLUSH) == 0
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
        space.set_topology(config.sector_size);
        if config.takes_zeroes() {
            space.set_zero_limits(config.sector_size);
        }
        space
    }

    /// Copies what there is from `offset` up, and leaves the rest of `data` alone.
    pub(super) fn read(&self, offset: usize, data: &mut [u8]) {
        let bytes = self.0.get(offset..).unwrap_or_default();
        for (target, byte) in data.iter_mut().zip(bytes) {
            *target = *byte;
        }
    }

    /// So many bytes in sectors of `sector_size` bytes, the unit of the whole topology.
    fn set_topology(&mut self, sector_size: u32) {
        let physical = PHYSICAL_BLOCK.max(sector_size) / sector_size;
        // A sector has 512 bytes at least, so that both fit.
        let exponent = u8::try_from(physical.ilog2()).unwrap_or_default();
        let smallest = u16::try_from(physical).unwrap_or(1);
        let optimal = OPTIMAL_IO.max(sector_size) / sector_size;
        self.set(PHYSICAL_BLOCK_EXP, &[exponent]);
        self.set(MIN_IO_SIZE, &smallest.to_le_bytes());
        self.set(OPT_IO_SIZE, &optimal.to_le_bytes());
    }

    /// So many bytes in sectors of 512 bytes, the unit of all these fields.
    fn set_zero_limits(&mut self, sector_size: u32) {
        let unit = sector_size / MIN_SECTOR_SIZE;
        let most = (u32::MAX - u32::MAX % unit).to_le_bytes();
        let segments = MAX_ZERO_SEGMENTS.to_le_bytes();
        self.set(MAX_DISCARD_SECTORS, &most);
        self.set(MAX_DISCARD_SEG, &segments);
        self.set(DISCARD_SECTOR_ALIGNMENT, &unit.to_le_bytes());
        self.set(MAX_WRITE_ZEROES_SECTORS, &most);
        self.set(MAX_WRITE_ZEROES_SEG, &segments);
        self.set(WRITE_ZEROES_MAY_UNMAP, &[1]);
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
            zeroes: true,
            id: [0; ID_BYTES],
        }
    }

    fn field<const N: usize>(config: &BlockConfig, offset: usize) -> [u8; N] {
        let mut bytes = [0; N];
        ConfigSpace::new(config).read(offset, &mut bytes);
        bytes
    }

    #[test]
    fn the_topology_is_that_of_blocks_of_4096_bytes() {
        for (sector_size, exponent, smallest, optimal) in
            [(512, 3, 8, 256), (4096, 0, 1, 32), (65536, 0, 1, 2)]
        {
            let config = config(sector_size);
            assert_eq!(field(&config, 24), [exponent, 0]);
            assert_eq!(u16::from_le_bytes(field(&config, 26)), smallest);
            assert_eq!(u32::from_le_bytes(field(&config, 28)), optimal);
        }
    }

    #[test]
    fn limits_of_zeroes_are_whole_blocks_and_there_only_where_they_are_offered() {
        let bits = 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES;
        for sector_size in [512, 4096, 65536] {
            let config = config(sector_size);
            assert_eq!(config.features() & bits, bits);
            for offset in [36, 48] {
                let most = u32::from_le_bytes(field(&config, offset));
                assert!(most >= u32::MAX - 127 && most.is_multiple_of(sector_size / 512));
            }
            assert_eq!(u32::from_le_bytes(field(&config, 44)), sector_size / 512);
            assert_eq!(field(&config, 56), [1]);
        }
        let read_only = BlockConfig {
            read_only: true,
            ..config(512)
        };
        let without = BlockConfig {
            zeroes: false,
            ..config(512)
        };
        for config in [read_only, without] {
            assert_eq!(config.features() & bits, 0);
            assert_eq!(field(&config, 36), [0; 24]);
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
