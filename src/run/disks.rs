//! The two disks of a copy: the files behind them, and their devices.

use std::io;
use std::sync::Arc;

use guest_abi::layout::{INPUT_MMIO, OUTPUT_MMIO};

use super::error::RunError;
use crate::config::{Config, SectorSize};
use crate::files::{InputFile, OutputFile, padded_length};
use crate::machine::GuestRam;
use crate::virtio::block::{
    Block, BlockConfig, BlockCounters, ID_BYTES, NewBlockError, QueueFault,
};
use crate::virtio::{IrqLine, VirtioDevice};

/// What the devices tell a guest that asks who they are (GET_ID).
const INPUT_ID: &str = "input";
const OUTPUT_ID: &str = "output";

/// Both disks and the line on which they notify.
pub(super) struct Disks {
    pub(super) input: Arc<Block<Arc<InputFile>>>,
    pub(super) output: Arc<Block<Arc<OutputFile>>>,
    pub(super) line: Arc<IrqLine>,
}

impl Disks {
    /// The disks over `input` and `output`, which reach what devices may reach of `ram`. Each
    /// shows a whole number of its own sectors: the last one is filled up.
    pub(super) fn new(
        config: &Config,
        input: &Arc<InputFile>,
        output: &Arc<OutputFile>,
        ram: &GuestRam,
    ) -> Result<Self, RunError> {
        let line = Arc::new(IrqLine::new().map_err(RunError::host("make an eventfd"))?);
        let length = input.len();
        let disk_config = |sector_size: SectorSize, read_only, id| BlockConfig {
            capacity: padded_length(length, sector_size.bytes()),
            sector_size: sector_size.bytes(),
            read_only,
            id: padded_id(id),
        };
        let refused = |error: NewBlockError| RunError::Host {
            what: "make a disk",
            source: io::Error::other(error),
        };
        Ok(Self {
            input: Arc::new(
                Block::new(
                    &disk_config(config.input_sector_size, true, INPUT_ID),
                    input.clone(),
                    ram.dma().clone(),
                    line.clone(),
                )
                .map_err(refused)?,
            ),
            output: Arc::new(
                Block::new(
                    &disk_config(config.output_sector_size, false, OUTPUT_ID),
                    output.clone(),
                    ram.dma().clone(),
                    line.clone(),
                )
                .map_err(refused)?,
            ),
            line,
        })
    }

    /// The devices, input first.
    pub(super) fn devices(&self) -> [Arc<dyn VirtioDevice>; 2] {
        [self.input.clone(), self.output.clone()]
    }

    /// Where the devices are on the bus.
    pub(super) fn addresses() -> [u64; 2] {
        [INPUT_MMIO, OUTPUT_MMIO]
    }

    /// What each disk has counted, with its name.
    pub(super) fn counters(&self) -> [(&'static str, BlockCounters); 2] {
        [
            (INPUT_ID, self.input.stats().counters()),
            (OUTPUT_ID, self.output.stats().counters()),
        ]
    }

    /// The host's first error on either disk, as the file layer tells it.
    pub(super) fn host_error(&self) -> Option<String> {
        self.input
            .io_error()
            .or(self.output.io_error())
            // The file layer names the file, the operation and the offset.
            .map(|error| error.source.to_string())
    }

    /// What the guest's driver did wrong on either disk.
    pub(super) fn driver_fault(&self) -> Option<String> {
        let describe = |name: &str, fault: Option<&QueueFault>| {
            fault.map(|fault| format!("the guest's driver broke the {name} disk's queue: {fault}"))
        };
        describe("input", self.input.fault()).or_else(|| describe("output", self.output.fault()))
    }
}

fn padded_id(text: &str) -> [u8; ID_BYTES] {
    let mut id = [0; ID_BYTES];
    for (byte, from) in id.iter_mut().zip(text.bytes()) {
        *byte = from;
    }
    id
}
