//! The ways on which the guest of a copy speaks: COM1 for its reports, COM2 for debug text, and a
//! virtio console in the machine's third slot if it has many reports to make.

use std::io;
use std::sync::Arc;

use guest_abi::layout::DMA_POOL;
use vm_memory::{Bytes, GuestAddress};

use super::configuration::{InputFacts, Reports, config_frame};
use crate::config::Config;
use crate::devices::ByteQueue;
use crate::machine::{Machine, Slot, Vcpu};
use crate::operations::ports::{SerialPorts, does_not_fit};
use crate::runtime::{ReportSource, RunError, Runner, SerialPort, Worker, report_queue};
use crate::sandbox::Calls;
use crate::virtio::VirtioDevice;
use crate::virtio::console::Console;

/// What the console and its thread are called.
const CONSOLE: &str = "console";

/// All ways on which the guest speaks.
pub(super) struct Channels {
    ports: SerialPorts,
    console: Option<ReportConsole>,
}

struct ReportConsole {
    device: Arc<Console>,
    output: Arc<ByteQueue>,
}

impl Channels {
    /// The channels that `reports` need, with the configuration waiting to be received. The disks
    /// are in `machine` already.
    pub(super) fn new(
        config: &Config,
        reports: Reports,
        input: &InputFacts,
        machine: &mut Machine,
    ) -> Result<Self, RunError> {
        let console = reports
            .are_by_console()
            .then(|| ReportConsole::new(machine))
            .transpose()?;
        let frame = config_frame(config, reports, input).map_err(does_not_fit)?;
        // The devices have done nothing yet, so that the pool is free.
        let pool = GuestAddress(DMA_POOL);
        let stored = machine.memory().write_slice(input.pool(), pool);
        stored.map_err(|error| RunError::Host {
            what: "put the list of the input's data into the guest's memory",
            source: io::Error::other(error),
        })?;
        Ok(Self {
            ports: SerialPorts::new(&frame)?,
            console,
        })
    }

    /// The port whose input is the user's.
    pub(super) fn com2(&self) -> &SerialPort {
        self.ports.com2()
    }

    /// Completes the machine with its ports and its guest.
    pub(super) fn boot(
        &self,
        machine: Machine,
        helped: impl IntoIterator<Item = Slot>,
        image: &[u8],
    ) -> Result<Vcpu, RunError> {
        self.ports.boot(machine, helped, image)
    }

    /// Has `runner` listen to all of them.
    pub(super) fn listen<'a>(&self, runner: Runner<'a>) -> Runner<'a> {
        let runner = self.ports.listen(runner);
        let Some(console) = &self.console else {
            return runner;
        };
        runner
            .worker(Worker {
                name: CONSOLE,
                subscriber: console.device.clone(),
                calls: Calls::new(),
            })
            .listen(ReportSource::Console, console.output.clone())
            .hear_out(console.device.clone())
    }

    /// What the guest's driver did wrong on the console.
    pub(super) fn driver_fault(&self) -> Option<String> {
        let fault = self.console.as_ref()?.device.fault()?;
        Some(fault.of("the console"))
    }
}

impl ReportConsole {
    fn new(machine: &mut Machine) -> Result<Self, RunError> {
        let made = report_queue().and_then(|output| {
            let memory = machine.memory().clone();
            let device = Console::new(output.clone(), memory, machine.line())?;
            let device = Arc::new(device);
            Ok(Self { device, output })
        });
        let console = made.map_err(RunError::host("make a console"))?;
        machine.add_virtio(console.device.clone())?;
        Ok(console)
    }
}
