//! A run from beginning to end: open everything, build the machine, confine the process, let the
//! guest work, judge what it did, put the output in place.

mod console;
mod disks;
mod error;
mod signals;
mod supervisor;
mod threads;
mod verdict;

use std::sync::{Arc, Barrier};
use std::time::Instant;

use guest_abi::ports::{COM1, COM2};

pub use error::{EXIT_USAGE, RunError};

use crate::config::Config;
use crate::devices::{ByteQueue, Overflow, Uart};
use crate::files::{InputFile, OutputFile, OutputOptions};
use crate::job::{self, Session};
use crate::machine::{self, GuestRam, IdlePort, Machine, Vcpu};
use console::{drain, open_console};
use disks::Disks;
use signals::Signals;
use supervisor::{GuestPorts, Supervised, Supervisor};
use threads::{DiskThread, VcpuThread};

/// The guest that copies, built with the VMM.
static GUEST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/guest.elf"));

/// What waits of COM1 before the vCPU is held back, and of COM2 before text is dropped, in bytes.
const COM1_QUEUE: usize = 64 * 1024;
const COM2_QUEUE: usize = 16 * 1024;

/// Copies as `config` says.
///
/// # Errors
///
/// Why there is no copy; the output's path is as it was then.
pub fn run(config: &Config) -> Result<(), RunError> {
    let started = Instant::now();
    let input = Arc::new(InputFile::open(&config.input, config.direct)?);
    let output = OutputFile::create(
        &config.output,
        &input,
        OutputOptions {
            direct: config.direct,
            fsync: config.fsync,
        },
    )?;
    let output = Arc::new(output);
    let image = config
        .guest
        .as_deref()
        .map(machine::read_image)
        .transpose()?;
    let mut console = open_console(config, input.len());
    console.warn(input.notes().iter().chain(output.notes().iter()));

    let ram = GuestRam::new()?;
    let disks = Disks::new(config, input.clone(), output.clone(), &ram)?;
    let ports = serial_ports()?;
    let frame = job::config_frame(config, console.lines).map_err(|error| {
        RunError::Guest(format!(
            "the configuration does not fit into a frame: {error}"
        ))
    })?;
    ports.com1.queue_input(&frame);
    let vcpu = build(&disks, &ports, ram, image.as_deref().unwrap_or(GUEST))?;

    // From here on signals end the run in order; before, their default is as good.
    let signals = Signals::take_over().map_err(RunError::host("take over signals"))?;
    let start = Arc::new(Barrier::new(4));
    let disk_threads = [
        DiskThread::spawn("input", disks.input.clone(), start.clone(), || {})?,
        DiskThread::spawn("output", disks.output.clone(), start.clone(), || {})?,
    ];
    let vcpu = VcpuThread::spawn(vcpu, start.clone(), || {})?;
    let session = Session::new(
        config.protocol,
        input
            .len()
            .div_ceil(config.input_sector_size.bytes().into()),
    );
    let progress = {
        let output = output.clone();
        move || output.bytes_written()
    };
    let supervisor = Supervisor::new(
        signals,
        vcpu,
        ports,
        console,
        session,
        progress,
        config.timeout,
    )?;
    start.wait();
    let mut supervised = supervisor.run()?;
    drop(disk_threads);

    let result = verdict::judge(&supervised, &disks).and_then(|()| {
        output.commit()?;
        Ok(())
    });
    finish(config, &mut supervised, &input, result, started)
}

fn serial_ports() -> Result<GuestPorts, RunError> {
    let make = || {
        let com1_output = Arc::new(ByteQueue::new(COM1_QUEUE, Overflow::Wait)?);
        let com2_output = Arc::new(ByteQueue::new(COM2_QUEUE, Overflow::Drop)?);
        Ok(GuestPorts {
            com1: Arc::new(Uart::new(com1_output.clone())?),
            com2: Arc::new(Uart::new(com2_output.clone())?),
            com1_output,
            com2_output,
        })
    };
    make().map_err(RunError::host("make an eventfd"))
}

/// The machine with its devices and the guest in it.
fn build(disks: &Disks, ports: &GuestPorts, ram: GuestRam, image: &[u8]) -> Result<Vcpu, RunError> {
    let mut machine = Machine::new(machine::open_kvm()?, ram)?;
    machine.add_uart(COM1, ports.com1.clone())?;
    machine.add_uart(COM2, ports.com2.clone())?;
    for (base, device) in Disks::addresses().into_iter().zip(disks.devices()) {
        machine.add_virtio_mmio(base, device)?;
    }
    let idle = IdlePort::new(disks.line.clone(), disks.devices().into());
    Ok(machine.boot(image, idle)?)
}

/// Shows what is left to show.
fn finish(
    config: &Config,
    supervised: &mut Supervised,
    input: &InputFile,
    result: Result<(), RunError>,
    _started: Instant,
) -> Result<(), RunError> {
    let console = &mut supervised.console;
    console.bar.finish(result.is_ok());
    if result.is_ok() {
        console.warn(input.check_unchanged().iter());
    } else if !config.debug {
        for line in supervised.debug.last() {
            console.err.print(format!("[DEBUG] {line}\n").as_bytes());
        }
    }
    drain(console, &supervised.signals).and(result)
}
