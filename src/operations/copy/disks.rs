//! The two disks of a copy: the files behind them, and their devices.

use std::io;
use std::sync::Arc;

use event_manager::EventSubscriber;

use super::Files;
use crate::config::{Config, SectorSize};
use crate::files::{InputFile, OutputFile, padded_length};
use crate::machine::{Machine, Poller, Slot, WithPoller};
use crate::runtime::{RunError, Worker};
use crate::sandbox::Calls;
use crate::sandbox::calls::{read_file, write_file};
use crate::virtio::block::{Block, BlockConfig, BlockCounters, ID_BYTES, NewBlockError};
use crate::virtio::{DeviceFault, VirtioDevice};

/// What the devices tell a guest that asks who they are (GET_ID), and what their threads are
/// called.
const INPUT: &str = "input";
const OUTPUT: &str = "output";

/// Both disks.
pub(super) struct Disks {
    input: Arc<Block<Arc<InputFile>>>,
    output: Arc<Block<Arc<OutputFile>>>,
}

impl Disks {
    /// How many there are.
    pub(super) const COUNT: usize = 2;

    /// The disks over `files`, for `machine`. Each shows a whole number of its own sectors: the
    /// last one is filled up.
    pub(super) fn new(config: &Config, files: &Files, machine: &Machine) -> Result<Self, RunError> {
        let length = files.input.len();
        let disk_config = |sector_size: SectorSize, read_only, id| BlockConfig {
            capacity: padded_length(length, sector_size.bytes()),
            sector_size: sector_size.bytes(),
            read_only,
            zeroes: true,
            id: padded_id(id),
        };
        let refused = |error: NewBlockError| RunError::Host {
            what: "make a disk",
            source: io::Error::other(error),
        };
        let input = Block::new(
            &disk_config(config.input_sector_size, true, INPUT),
            files.input.clone(),
            machine.memory().clone(),
            machine.line(),
        );
        let output = Block::new(
            &disk_config(config.output_sector_size, false, OUTPUT),
            files.output.clone(),
            machine.memory().clone(),
            machine.line(),
        );
        Ok(Self {
            input: Arc::new(input.map_err(refused)?),
            output: Arc::new(output.map_err(refused)?),
        })
    }

    /// Puts both into the machine, input first, and returns where they are.
    pub(super) fn add_to(&self, machine: &mut Machine) -> Result<[Slot; Self::COUNT], RunError> {
        let input = machine.add_virtio(self.input.clone())?;
        let output = machine.add_virtio(self.output.clone())?;
        Ok([input, output])
    }

    /// A thread for each. That of the output may do all that either disk asks for, and so it is the
    /// one that polls.
    pub(super) fn workers(&self, poller: Option<Arc<Poller>>) -> [Worker; 2] {
        let output: Arc<dyn EventSubscriber + Send + Sync> = match poller {
            Some(poller) => Arc::new(WithPoller {
                device: self.output.clone(),
                poller,
            }),
            None => self.output.clone(),
        };
        [
            Worker {
                name: INPUT,
                subscriber: self.input.clone(),
                calls: read_file(),
            },
            Worker {
                name: OUTPUT,
                subscriber: output,
                calls: calls(),
            },
        ]
    }

    /// What each disk has counted, with its name.
    pub(super) fn counters(&self) -> [(&'static str, BlockCounters); 2] {
        [
            (INPUT, self.input.counters()),
            (OUTPUT, self.output.counters()),
        ]
    }

    /// The first error of the host on either disk that was not made good, as the file layer tells
    /// it.
    pub(super) fn host_error(&self) -> Option<Box<dyn std::error::Error + Send + Sync>> {
        let error = self.input.io_error().or_else(|| self.output.io_error())?;
        // The file layer names the file, the operation and the offset.
        Some(error.source.to_string().into())
    }

    /// What the guest's driver did wrong on either disk.
    pub(super) fn driver_fault(&self) -> Option<String> {
        let devices: [(&str, &dyn VirtioDevice); 2] =
            [(INPUT, &*self.input), (OUTPUT, &*self.output)];
        devices.into_iter().find_map(|(name, device)| {
            Some(match device.fault()? {
                DeviceFault::NotStarted(why) => format!("the {name} disk did not start: {why}"),
                DeviceFault::Queue(fault) => {
                    format!("the guest's driver broke the {name} disk's queue: {fault}")
                }
            })
        })
    }
}

/// The calls that the work of both takes, which the vCPU's thread does while the guest waits.
pub(super) fn calls() -> Calls {
    read_file().and(&write_file())
}

fn padded_id(text: &str) -> [u8; ID_BYTES] {
    let mut id = [0; ID_BYTES];
    for (byte, from) in id.iter_mut().zip(text.bytes()) {
        *byte = from;
    }
    id
}
