//! The sizes that both sides have to keep to. The VMM refuses a configuration beyond them before
//! there is a machine. The guest refuses sizes of sectors and requests beyond them, and takes a larger
//! depth for the largest that it has room for.

use crate::layout::DMA_POOL_SIZE;

/// The smallest sector in bytes, which is also the unit of virtio-blk's own sector numbers (virtio
/// 1.2, section 5.2.4).
pub const MIN_SECTOR_SIZE: u32 = 512;
/// The largest sector in bytes.
pub const MAX_SECTOR_SIZE: u32 = 65536;
/// The most bytes that a request may cover. The data pool has room for two of them.
pub const MAX_REQUEST_SIZE: u32 = 1 << 20;
const _: () = assert!(2 * MAX_REQUEST_SIZE as u64 <= DMA_POOL_SIZE);
/// The most descriptors that a queue of a block device has.
pub const MAX_QUEUE_SIZE: u16 = 2048;
/// The most requests that may be under way at once: each takes three descriptors.
pub const MAX_QUEUE_DEPTH: u32 = MAX_QUEUE_SIZE as u32 / 3;

/// Whether `size` is a sector size: a power of two from [`MIN_SECTOR_SIZE`] to
/// [`MAX_SECTOR_SIZE`].
#[must_use]
pub const fn is_sector_size(size: u32) -> bool {
    size.is_power_of_two() && size >= MIN_SECTOR_SIZE && size <= MAX_SECTOR_SIZE
}
