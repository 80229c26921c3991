//! The two disks of a copy: the files behind them, and their devices.

use std::sync::Arc;

use crate::config::{Config, SectorSize};
use crate::files::{InputFile, OutputFile};
use crate::machine::{Machine, Poller, Slot, WithPoller};
use crate::operations::disk::{DiskShape, INPUT, OUTPUT, driver_faults};
use crate::operations::written::Files;
use crate::runtime::{RunError, Subscriber, Worker};
use crate::sandbox::Calls;
use crate::sandbox::calls::{read_file, write_file};
use crate::virtio::block::{Block, BlockCounters, BlockIoError};

/// Both disks.
pub(super) struct Disks {
    input: Arc<Block<InputFile>>,
    output: Arc<Block<OutputFile>>,
}

impl Disks {
    /// How many there are.
    pub(super) const COUNT: usize = 2;

    /// The disks over `files`, for `machine`. Each shows a whole number of its own sectors: the
    /// last one is filled up.
    pub(super) fn new(config: &Config, files: &Files, machine: &Machine) -> Result<Self, RunError> {
        let shape = |name, sector_size: SectorSize, read_only| DiskShape {
            name,
            length: files.input().len(),
            sector_size: sector_size.bytes(),
            read_only,
            zeroes: true,
        };
        let input = shape(INPUT, config.input_sector_size, true);
        let output = shape(OUTPUT, config.output_sector_size, false);
        Ok(Self {
            input: input.disk(files.input(), machine)?,
            output: output.disk(&files.output, machine)?,
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
        let output: Arc<dyn Subscriber> = match poller {
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

    /// How many bytes of the output the guest has read.
    pub(super) fn read_back(&self) -> u64 {
        self.output.counters().bytes_read
    }

    /// The first error of the host on either disk that was not made good.
    pub(super) fn host_error(&self) -> Option<Arc<BlockIoError>> {
        self.input.io_error().or_else(|| self.output.io_error())
    }

    /// What the guest's driver did wrong on either disk.
    pub(super) fn driver_faults(&self) -> Vec<String> {
        let input = driver_faults(INPUT, &self.input).into_iter();
        input.chain(driver_faults(OUTPUT, &self.output)).collect()
    }
}

/// The calls that the work of both takes, which the vCPU's thread does while the guest waits.
pub(super) fn calls() -> Calls {
    read_file().and(&write_file())
}
