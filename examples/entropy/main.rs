//! A virtio device from outside: an entropy device (virtio 1.2, section 5.4) on the transport that
//! the disks have, and a guest in C that takes 16 bytes from it.
//!
//!     cargo run --example entropy

mod device;
#[path = "../guests/mod.rs"]
mod guests;

use std::fs::File;
use std::sync::Arc;

use device::Entropy;
use vmm::machine::{Machine, Ports, open_kvm};
use vmm::report::Console;
use vmm::runtime::{GuestEnd, Operation, ReportSource, RunError, Runner, SerialPort, Worker};
use vmm::sandbox::Calls;

/// What the guest has taken.
struct Sixteen(Vec<u8>);

impl Operation for Sixteen {
    fn receive(&mut self, _: ReportSource, bytes: &[u8], _: &mut Console) -> Result<(), RunError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn judge(&mut self, end: GuestEnd<'_>) -> Result<(), RunError> {
        end.check()?;
        match self.0.len() {
            16 if self.0.iter().any(|byte| *byte != 0) => Ok(()),
            _ => Err(RunError::Guest(format!("{:?} is not random", self.0))),
        }
    }
}

fn main() -> std::process::ExitCode {
    vmm::runtime::main(|| {
        let image = guests::build("entropy").map_err(RunError::host("build the guest"))?;
        let mut machine = Machine::new(open_kvm()?, 1)?;
        let com1 = SerialPort::for_reports().map_err(RunError::host("make a serial port"))?;
        machine.add_pio(Ports::new(0x3f8, 8), com1.uart.clone())?;
        machine.add_exit_port(0xf4)?;
        machine.add_idle_port(0xf5, None)?;
        let source = File::open("/dev/urandom").map_err(RunError::host("open /dev/urandom"))?;
        let device = Entropy { source };
        let (memory, line) = (machine.memory().clone(), machine.line());
        let entropy = vmm::virtio::QueueWorker::serving(device, memory, line);
        let entropy = Arc::new(entropy.map_err(RunError::host("make an eventfd"))?);
        machine.add_virtio(entropy.clone())?;
        let worker = Worker {
            name: "entropy",
            subscriber: entropy,
            // Beside waiting for kicks its thread reads, which any thread may.
            calls: Calls::new(),
        };
        let runner = Runner::new(machine.boot(&image)?)
            .worker(worker)
            .reports(&com1);
        let outcome = runner.run(&mut Sixteen(Vec::new()), Console::default())?;
        outcome.end("the guest has 16 random bytes")
    })
}
