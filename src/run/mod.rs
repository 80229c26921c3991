//! A run from beginning to end: open everything, build the machine, confine the process, let the
//! guest work, judge what it did, put the output in place.

mod console;
mod disks;
mod error;
mod gate;
mod signals;
mod supervisor;
mod threads;
mod verdict;

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use guest_abi::ports::{COM1, COM2};

pub use error::{EXIT_USAGE, RunError};

use crate::config::{Config, StatsFormat};
use crate::devices::{ByteQueue, Overflow, Uart};
use crate::files::{InputFile, OutputFile, OutputOptions};
use crate::job::{self, Session};
use crate::machine::{self, GuestRam, IdlePort, Machine, Vcpu};
use crate::report::Console;
use crate::sandbox::{self, Filter, Role};
use crate::stats::Stats;
use console::{drain, open_console};
use disks::Disks;
use gate::Gate;
use signals::Signals;
use supervisor::{GuestPorts, MainLoop, Supervised, Supervisor};
use threads::{DiskThread, VcpuThread, install};

/// The guest that copies, built with the VMM.
pub static GUEST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/guest.elf"));

/// What waits of COM1 before the vCPU is held back, and of COM2 before text is dropped, in bytes.
const COM1_QUEUE: usize = 64 * 1024;
const COM2_QUEUE: usize = 16 * 1024;

/// The files of a run, open.
struct Files {
    input: Arc<InputFile>,
    output: Arc<OutputFile>,
    stats: Option<File>,
}

/// Copies as `config` says.
///
/// Gives back the exit status of a run whose end the user has been told.
///
/// # Errors
///
/// Why there is no copy, where the user has not been told yet; the output's path is as it was then.
pub fn run(config: &Config) -> Result<u8, RunError> {
    let started = Instant::now();
    let files = open_files(config)?;
    let image = config.guest.as_deref().map(machine::read_image);
    let image = image.transpose()?;
    let mut console = open_console(config, files.input.len());
    let notes = [files.input.notes(), files.output.notes()];
    for note in notes.concat() {
        console.warn(&note);
    }

    let ram = GuestRam::new(2)?;
    let disks = Disks::new(config, &files.input, &files.output, &ram)?;
    let ports = serial_ports()?;
    let frame = job::config_frame(config, console.wants_reports()).map_err(|error| {
        RunError::Guest(format!(
            "the configuration does not fit into a frame: {error}"
        ))
    })?;
    ports.com1.queue_input(&frame);
    let vcpu = build(&disks, &ports, ram, image.as_deref().unwrap_or(GUEST))?;

    // From here on signals end the run in order; before, their default is as good.
    let signals = Signals::take_over().map_err(RunError::host("take over signals"))?;
    if config.sandbox {
        sandbox::confine_process(files.output.folder())?;
    } else {
        console.warn("the sandbox is off");
    }
    let (main_loop, disk_threads) = start(config, &files, &disks, vcpu, ports, console, signals)?;
    let supervised = main_loop.run()?;
    drop(disk_threads);

    let result = verdict::judge(&supervised, &disks)
        .and_then(|()| files.output.commit().map_err(RunError::from));
    finish(config, supervised, &files, &disks, result, started)
}

fn open_files(config: &Config) -> Result<Files, RunError> {
    let input = Arc::new(InputFile::open(&config.input, config.direct)?);
    let options = OutputOptions {
        direct: config.direct,
        fsync: config.fsync,
    };
    let output = Arc::new(OutputFile::create(&config.output, &input, options)?);
    let stats = config.stats_file.as_ref().map(File::create).transpose();
    Ok(Files {
        input,
        output,
        stats: stats.map_err(RunError::host("create the file for the statistics"))?,
    })
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
    let idle =
        IdlePort::new(disks.line.clone(), disks.devices().into()).helping(disks.input.clone());
    Ok(machine.boot(image, idle)?)
}

/// Starts all threads, confines each, and lets the guest go.
fn start(
    config: &Config,
    files: &Files,
    disks: &Disks,
    vcpu: Vcpu,
    ports: GuestPorts,
    console: Console,
    signals: Signals,
) -> Result<(MainLoop<impl Fn() -> u64 + use<>>, [DiskThread; 2]), RunError> {
    let filter = |role| config.sandbox.then(|| Filter::new(role)).transpose();
    let own_filter = filter(Role::Main)?;
    let gate = Gate::new();
    let disk_threads = [
        DiskThread::spawn(
            "input",
            disks.input.clone(),
            gate.entrance(),
            filter(Role::Input)?,
        )?,
        DiskThread::spawn(
            "output",
            disks.output.clone(),
            gate.entrance(),
            filter(Role::Output)?,
        )?,
    ];
    let vcpu = VcpuThread::spawn(vcpu, gate.entrance(), filter(Role::Vcpu)?)?;
    let sector_size = u64::from(config.input_sector_size.bytes());
    let session = Session::new(config.protocol, files.input.len().div_ceil(sector_size));
    let output = files.output.clone();
    let progress = move || output.bytes_written();
    let main_loop = Supervisor::new(
        signals,
        vcpu,
        ports,
        console,
        session,
        progress,
        config.timeout,
    )?
    .into_loop()?;
    gate.wait_for(3)?;
    install(own_filter)?;
    gate.open();
    Ok((main_loop, disk_threads))
}

/// Shows what is left to show.
fn finish(
    config: &Config,
    mut run: Supervised,
    files: &Files,
    disks: &Disks,
    result: Result<(), RunError>,
    started: Instant,
) -> Result<u8, RunError> {
    let console = &mut run.console;
    console.finish_bar(result.is_ok(), started.elapsed());
    if result.is_err() {
        console.explain(&run.debug);
    } else if let Some(note) = files.input.check_unchanged() {
        console.warn(&note);
    }
    let stats = Stats::new(
        result.is_ok(),
        files.input.len(),
        started.elapsed(),
        &run.report.exits,
        disks.counters(),
    );
    if config.stats {
        let text = match config.format {
            StatsFormat::Text => stats.to_string(),
            StatsFormat::Json => stats.to_json(),
        };
        console.notice(&text);
    }
    let written = files.stats.as_ref().map_or(Ok(()), |mut file| {
        file.write_all(stats.to_json().as_bytes())
    });
    if let Err(error) = written {
        console.warn(&format!("cannot write the statistics: {error}"));
    }
    if let Err(error) = &result {
        console.error(&error.to_string());
    }
    if let Err(error) = drain(console, &run.signals) {
        console.error(&error.to_string());
        console.flush();
        return Ok(error.exit_code());
    }
    Ok(result.map_or_else(|error| error.exit_code(), |()| 0))
}
