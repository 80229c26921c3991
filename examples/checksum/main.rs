//! Another job than copying: a guest that only reads a disk and reports the sum of its bytes, and
//! an operation with a success of its own.
//!
//!     cargo run --example checksum -- FILE

#[path = "../guests/mod.rs"]
mod guests;

use std::path::Path;
use std::sync::Arc;

use vmm::files::{InputFile, padded_length};
use vmm::machine::{Machine, Ports, open_kvm};
use vmm::report::Console;
use vmm::runtime::{GuestEnd, Operation, ReportSource, RunError, Runner, SerialPort, Worker};
use vmm::sandbox::calls;
use vmm::virtio::block::{Block, BlockConfig};

/// What the guest has reported: the sum, eight bytes, little-endian.
struct Checksum {
    reported: Vec<u8>,
}

impl Checksum {
    fn sum(&self) -> Option<u64> {
        Some(u64::from_le_bytes(self.reported[..].try_into().ok()?))
    }
}

impl Operation for Checksum {
    fn receive(&mut self, _: ReportSource, bytes: &[u8], _: &mut Console) -> Result<(), RunError> {
        self.reported.extend_from_slice(bytes);
        match self.reported.len() {
            0..=8 => Ok(()),
            _ => Err(RunError::Guest("it reports more than a sum".into())),
        }
    }

    fn judge(&mut self, end: GuestEnd<'_>) -> Result<(), RunError> {
        end.check()?;
        let missing = || RunError::Guest("it has reported no sum".into());
        self.sum().map(drop).ok_or_else(missing)
    }
}

fn main() -> std::process::ExitCode {
    vmm::runtime::main(|| {
        let path = std::env::args_os().nth(1).unwrap_or("Cargo.toml".into());
        let image = guests::build("checksum").map_err(RunError::host("build the guest"))?;
        let input = Arc::new(InputFile::open(Path::new(&path), false)?);
        let mut machine = Machine::new(open_kvm()?, 1)?;
        let config = BlockConfig {
            capacity: padded_length(input.len(), 512),
            sector_size: 512,
            read_only: true,
            zeroes: false,
            id: *b"checksum\0\0\0\0\0\0\0\0\0\0\0\0",
        };
        let (memory, line) = (machine.memory().clone(), machine.line());
        let disk = Block::new(&config, input, memory, line);
        let disk = Arc::new(disk.map_err(|error| RunError::Storage(error.into()))?);
        let slot = machine.add_virtio(disk.clone())?;
        let com1 = SerialPort::for_reports().map_err(RunError::host("make a serial port"))?;
        machine.add_pio(Ports::new(0x3f8, 8), com1.uart.clone())?;
        machine.add_exit_port(0xf4)?;
        machine.add_idle_port(0xf5, Some(slot))?;
        let worker = Worker {
            name: "disk",
            subscriber: disk.clone(),
            calls: calls::read_file(),
        };
        let mut checksum = Checksum {
            reported: Vec::new(),
        };
        let outcome = Runner::new(machine.boot(&image)?)
            .worker(worker)
            .vcpu_calls(&calls::read_file())
            .reports(&com1)
            .run(&mut checksum, Console::default())?;
        // What the host could not read the guest cannot have summed up.
        if let Some(error) = disk.io_error() {
            return Err(RunError::Storage(error.source.to_string().into()));
        }
        outcome.end(&format!("the sum is {}", checksum.sum().unwrap_or(0)))
    })
}
