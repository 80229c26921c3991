//! The block device (virtio 1.2, section 5.2) as a service of its queue's worker.

use std::io;
use std::sync::Arc;

use thiserror::Error;
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use vm_memory::GuestMemoryMmap;

use super::batch::Batch;
use super::config::{ConfigSpace, MAX_QUEUE_SIZE};
use super::execute::Execution;
use super::failures::Failures;
use super::request::Geometry;
use super::{BlockConfig, BlockConfigError, BlockCounters, BlockIoError, BlockStats};
use crate::limits::hint_of;
use crate::reason::reason;
use crate::storage::Storage;
use crate::virtio::{NotificationLine, QueueFault, QueueWorker, Service, Turn};

/// Why a block device could not be made.
#[derive(Debug, Error)]
pub enum NewBlockError {
    /// There is no such disk.
    #[error(transparent)]
    Config(#[from] BlockConfigError),
    /// The host has no eventfd for its queue.
    #[error("cannot create an eventfd for the disk's queue: {}{}", reason(.0), hint_of(.0))]
    EventFd(#[source] io::Error),
}

/// A block device over a storage `B`, with one queue.
///
/// ```
/// use std::sync::Arc;
/// use vm_memory::{GuestAddress, GuestMemoryMmap};
/// use vmm::storage::MemoryStorage;
/// use vmm::virtio::block::{Block, BlockConfig};
/// use vmm::virtio::{NotificationLine, VirtioDevice};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = BlockConfig {
///     capacity: 1 << 20,
///     sector_size: 512,
///     read_only: true,
///     id: [0; 20],
///     zeroes: false,
/// };
/// let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)])?;
/// let line = Arc::new(NotificationLine::new()?);
/// let storage = Arc::new(MemoryStorage::new(vec![0; 1 << 20]));
/// let disk = Block::new(&config, storage, memory, line)?;
/// let mut capacity = [0; 8];
/// disk.read_config(0, &mut capacity);
/// assert_eq!(u64::from_le_bytes(capacity), 2048, "in units of 512 bytes");
/// # Ok(())
/// # }
/// ```
pub type Block<B> = QueueWorker<BlockService<B>>;

/// What a block device does with its requests.
pub struct BlockService<B> {
    pub(super) storage: Arc<B>,
    pub(super) geometry: Geometry,
    pub(super) id: [u8; super::ID_BYTES],
    pub(super) stats: BlockStats,
    pub(super) failures: Failures,
    features: u64,
    config_space: ConfigSpace,
}

impl<B: Storage> Block<B> {
    /// Makes a disk over `storage`, at which others may look as well. It reads and writes `memory`
    /// and nothing else of the guest: the regions in it are those that the guest may hand to devices.
    ///
    /// # Errors
    ///
    /// There is no disk of such a configuration, or the host has no eventfd.
    pub fn new(
        config: &BlockConfig,
        storage: Arc<B>,
        memory: GuestMemoryMmap,
        line: Arc<NotificationLine>,
    ) -> Result<Self, NewBlockError> {
        config.check()?;
        let service = BlockService {
            storage,
            geometry: Geometry::new(config),
            id: config.id,
            stats: BlockStats::default(),
            failures: Failures::default(),
            features: config.features(),
            config_space: ConfigSpace::new(config),
        };
        Self::serving(service, memory, line).map_err(NewBlockError::EventFd)
    }

    /// What the disk has counted, to be read at any time.
    #[must_use]
    pub fn counters(&self) -> BlockCounters {
        self.service().stats.counters(self.queue_counters(0))
    }

    /// What lies behind the device.
    #[must_use]
    pub fn storage(&self) -> &B {
        &self.service().storage
    }

    /// The first error of the host that a request has met, unless all that failed has been done
    /// since: a driver may try again.
    #[must_use]
    pub fn io_error(&self) -> Option<Arc<BlockIoError>> {
        self.service().failures.first()
    }
}

impl<B: Storage> Service for BlockService<B> {
    type Room = Batch;

    fn device_type(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_sizes(&self) -> &[u16] {
        &[MAX_QUEUE_SIZE]
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        self.config_space.read(offset, data);
    }

    fn serve(&self, turn: &mut Turn<'_>, batch: &mut Batch) -> Result<(), QueueFault> {
        let filled = batch.fill(turn, &self.geometry.negotiated(turn.features()));
        Execution::new(self, batch, turn).run()?;
        // The requests before a fault were sound and have been answered.
        filled
    }
}
