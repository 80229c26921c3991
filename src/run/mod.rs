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

use std::sync::Arc;
use std::time::Instant;

use guest_abi::ports::{COM1, COM2};

pub use error::{EXIT_USAGE, RunError};

use crate::config::{Config, StatsFormat};
use crate::devices::{ByteQueue, Overflow, Uart};
use crate::files::{
    self, ImageFile, InputFile, NewFile, OutputFile, OutputOptions, check_distinct, open_image,
};
use crate::job::{self, Session};
use crate::machine::{self, GuestRam, IdlePort, Machine, Vcpu};
use crate::sandbox::{self, Filter, Role};
use crate::stats::Stats;
use console::{drain, open_console};
use disks::Disks;
use gate::Gate;
use signals::Signals;
use supervisor::{Console, GuestPorts, MainLoop, Supervised, Supervisor};
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
    image: Option<ImageFile>,
    stats: Option<NewFile>,
}

/// Copies as `config` says.
///
/// # Errors
///
/// Why there is no copy; the output's path is as it was then.
pub fn run(config: &Config) -> Result<(), RunError> {
    let started = Instant::now();
    let files = open_files(config)?;
    let image = files.image.as_ref();
    let image = image.map(|image| machine::read_image(image.path(), image.file()));
    let image = image.transpose()?;
    let mut console = open_console(config, files.input.len());
    let stats_notes = files.stats.as_ref().map(NewFile::notes).unwrap_or_default();
    let notes = [files.input.notes(), files.output.notes(), stats_notes];
    console.warn(&notes.concat());

    let ram = GuestRam::new(2)?;
    let disks = Disks::new(config, &files.input, &files.output, &ram)?;
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
    if config.sandbox {
        let stats_folder = files.stats.as_ref().and_then(NewFile::folder);
        sandbox::confine_process(files.output.folder().into_iter().chain(stats_folder))?;
    } else {
        console.warn(&["the sandbox is off".to_owned()]);
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
    let image = config.guest.as_deref().map(open_image).transpose()?;
    let stats_file = config.stats_file.as_deref();
    let stats = stats_file
        .map(|path| NewFile::create(files::Role::Statistics, path))
        .transpose()?;
    let mut reads = vec![input.known()];
    reads.extend(image.as_ref().map(ImageFile::known));
    let mut writes = vec![output.known()];
    writes.extend(stats.as_ref().map(NewFile::known));
    check_distinct(&reads, &writes)?;
    Ok(Files {
        input,
        output,
        image,
        stats,
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
    result: Result<Vec<String>, RunError>,
    started: Instant,
) -> Result<(), RunError> {
    let console = &mut run.console;
    if console.bar.finish(result.is_ok()) {
        console.err.print(b"\n");
    }
    if let Ok(warnings) = &result {
        console.warn(warnings);
        console.warn(files.input.check_unchanged().as_slice());
    } else if !config.debug {
        for line in run.debug.last() {
            console.err.print(format!("[DEBUG] {line}\n").as_bytes());
        }
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
        console.err.print(text.as_bytes());
    }
    if let Some(Err(error)) = files
        .stats
        .as_ref()
        .map(|file| file.save(stats.to_json().as_bytes()))
    {
        console.warn(&[error.to_string()]);
    }
    drain(console, &run.signals).and(result.map(|_| ()))
}
