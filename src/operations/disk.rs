//! What the disks of all operations have in common: how one is made, and how a fault of its driver
//! is told.

use std::io;
use std::sync::Arc;

use crate::files::padded_length;
use crate::machine::Machine;
use crate::runtime::RunError;
use crate::storage::Storage;
use crate::virtio::VirtioDevice;
use crate::virtio::block::{Block, BlockConfig, ID_BYTES};

/// What the disk that is read is called: its device tells this to a guest that asks who it is
/// (GET_ID), and its thread has this name.
pub(super) const INPUT: &str = "input";
/// What the disk that is written is called.
pub(super) const OUTPUT: &str = "output";

/// How a disk presents what is stored behind it.
pub(super) struct DiskShape {
    /// What it is called, in at most 20 bytes.
    pub(super) name: &'static str,
    /// How many bytes are stored. The disk has a whole number of sectors: the last one is filled
    /// up.
    pub(super) length: u64,
    /// The size of a sector in bytes.
    pub(super) sector_size: u32,
    /// Whether the guest may only read it.
    pub(super) read_only: bool,
    /// Whether the guest may declare parts of it zero.
    pub(super) zeroes: bool,
}

impl DiskShape {
    /// The disk over `storage`, for `machine`.
    pub(super) fn disk<S: Storage>(
        &self,
        storage: &Arc<S>,
        machine: &Machine,
    ) -> Result<Arc<Block<S>>, RunError> {
        let config = BlockConfig {
            capacity: padded_length(self.length, self.sector_size),
            sector_size: self.sector_size,
            read_only: self.read_only,
            zeroes: self.zeroes,
            id: padded_id(self.name),
        };
        let (memory, line) = (machine.memory().clone(), machine.line());
        match Block::new(&config, storage.clone(), memory, line) {
            Ok(disk) => Ok(Arc::new(disk)),
            Err(error) => Err(RunError::Host {
                what: "make a disk",
                source: io::Error::other(error),
            }),
        }
    }
}

/// What the guest's driver did wrong with a disk: what has stopped the disk or kept it from being
/// started, and the first request that it refused.
pub(super) fn driver_faults<S: Storage>(name: &str, disk: &Block<S>) -> Vec<String> {
    let fault = disk.fault();
    let fault = fault.map(|fault| fault.of(&format!("the {name} disk")));
    let refused = disk.first_refusal();
    let refused =
        refused.map(|what| format!("the first request that the {name} disk refused: {what}"));
    fault.into_iter().chain(refused).collect()
}

fn padded_id(name: &str) -> [u8; ID_BYTES] {
    let mut id = [0; ID_BYTES];
    for (byte, from) in id.iter_mut().zip(name.bytes()) {
        *byte = from;
    }
    id
}
