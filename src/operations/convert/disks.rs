//! The disks of a conversion: the image and its backing files to read, and the output.

use std::sync::Arc;

use crate::files::{InputFile, OutputFile};
use crate::machine::{Machine, Slot};
use crate::operations::disk::{DiskShape, INPUT, OUTPUT, driver_faults};
use crate::operations::written::Files;
use crate::runtime::{RunError, Worker};
use crate::sandbox::calls;
use crate::virtio::block::{Block, BlockCounters, BlockIoError};

/// The sector size of all of them: what the formats count in.
pub(super) const SECTOR_SIZE: u32 = 512;

/// What the disks of backing files, and their threads, are called.
const BACKING: &str = "backing";

/// The disks of a conversion.
pub(super) struct Disks {
    inputs: Vec<Arc<Block<InputFile>>>,
    output: Arc<Block<OutputFile>>,
}

impl Disks {
    /// The disks over `files`, for `machine`. The output's has as much room as the output may have.
    pub(super) fn new(files: &Files, machine: &Machine) -> Result<Self, RunError> {
        let shape = |name, length, read_only| DiskShape {
            name,
            length,
            sector_size: SECTOR_SIZE,
            read_only,
            zeroes: true,
        };
        let inputs = files.inputs.iter().enumerate();
        let inputs = inputs
            .map(|(index, file)| shape(source_name(index), file.len(), true).disk(file, machine));
        let output = shape(OUTPUT, files.output.length(), false);
        Ok(Self {
            inputs: inputs.collect::<Result<_, _>>()?,
            output: output.disk(&files.output, machine)?,
        })
    }

    /// Puts all into the machine: input, output, and the backing files in their order. Returns
    /// where the input is, whose work the vCPU's thread does while the guest waits.
    pub(super) fn add_to(&self, machine: &mut Machine) -> Result<Slot, RunError> {
        let input = machine.add_virtio(self.inputs[0].clone())?;
        machine.add_virtio(self.output.clone())?;
        for backing in &self.inputs[1..] {
            machine.add_virtio(backing.clone())?;
        }
        Ok(input)
    }

    /// A thread for each disk.
    pub(super) fn workers(&self) -> Vec<Worker> {
        let inputs = self.inputs.iter().enumerate().map(|(index, disk)| Worker {
            name: source_name(index),
            subscriber: disk.clone(),
            calls: calls::read_file(),
        });
        let output = Worker {
            name: OUTPUT,
            subscriber: self.output.clone(),
            calls: calls::read_file().and(&calls::write_file()),
        };
        inputs.chain([output]).collect()
    }

    /// What each disk has counted, with its name.
    pub(super) fn counters(&self) -> Vec<(&'static str, BlockCounters)> {
        let inputs = self.inputs.iter().enumerate();
        let inputs = inputs.map(|(index, disk)| (source_name(index), disk.counters()));
        inputs.chain([(OUTPUT, self.output.counters())]).collect()
    }

    /// The first error of the host that was not made good.
    pub(super) fn host_error(&self) -> Option<Arc<BlockIoError>> {
        let input = self.inputs.iter().find_map(|disk| disk.io_error());
        input.or_else(|| self.output.io_error())
    }

    /// What the guest's driver did wrong.
    pub(super) fn driver_faults(&self) -> Vec<String> {
        let inputs = self.inputs.iter().enumerate();
        let inputs = inputs.flat_map(|(index, disk)| driver_faults(source_name(index), disk));
        inputs.chain(driver_faults(OUTPUT, &self.output)).collect()
    }
}

const fn source_name(index: usize) -> &'static str {
    match index {
        0 => INPUT,
        _ => BACKING,
    }
}
