//! A look into an image: what it says of itself, what speaks against using it, and whether its
//! tables are sound.
//!
//! The image is a read-only disk, and all parsing is done by the guest. The host opens this one
//! file and nothing that the image names; what the guest says is bounded, and quoted where it is
//! shown.

mod answer;
mod end;
mod json;
mod session;
mod text;

use std::sync::Arc;
use std::time::Instant;

use guest_abi::ports::{COM1, COM2, EXIT, IDLE, UART_DATA, UART_PORTS};
use guest_protocol::{FrameError, InspectConfig, InspectTask, encode_framed};

pub use answer::{Answer, EXIT_BROKEN, EXIT_LEAKS, EXIT_REFUSED, FileSize, Verdict};
pub use session::{ProtocolError, Session};

use crate::config::{ImageConfig, ImageTask};
use crate::files::{InputFile, padded_length};
use crate::machine::{self, Machine, Ports, Vcpu};
use crate::report::{Console, ConsoleOptions};
use crate::runtime::{
    Deadline, GuestEnd, Operation, Outcome, ReportSource, RunError, Runner, SerialPort, Signals,
    Worker,
};
use crate::sandbox::calls;
use crate::storage::Cancel;
use crate::virtio::block::{Block, BlockConfig, ID_BYTES};

/// The guest that looks into images, built with the VMM.
pub static GUEST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/inspect.elf"));

/// The sector size of the disk that an image is for its guest.
const SECTOR_SIZE: u32 = 512;
/// What the disk and its thread are called.
const DISK: &str = "input";

/// A run, and what has to be read when it has ended.
struct Look<'a> {
    config: &'a ImageConfig,
    image: Arc<InputFile>,
    disk: Arc<Block<Arc<InputFile>>>,
    cancel: Cancel,
    session: Session,
}

/// Looks into an image as `config` says, prints what was found, and returns the exit status.
#[must_use]
pub fn run(config: &ImageConfig) -> u8 {
    let started = Instant::now();
    match start(config) {
        Ok((look, outcome)) => end::finish(&look, outcome, started.elapsed()),
        Err(error) => end::refuse(config, &error, started.elapsed()),
    }
}

/// Goes as far as there is an outcome, good or bad.
fn start(config: &ImageConfig) -> Result<(Look<'_>, Outcome), RunError> {
    let deadline = config.timeout.and_then(Deadline::after);
    let set_alarm = |deadline: Deadline| {
        let config = config.clone();
        deadline.set_alarm(move |error| end::refuse(&config, error, deadline.limit()))
    };
    let alarm = deadline.map(set_alarm).transpose();
    let alarm = alarm.map_err(RunError::host("set an alarm"))?;
    let cancel = Cancel::new();
    let image = InputFile::open_for(&config.image, false, cancel.clone())?;
    let signals = Signals::take_over().map_err(RunError::host("take over signals"))?;
    drop(alarm);
    let mut console = Console::open(console_options(config));
    image.notes().iter().for_each(|note| console.warn(note));
    if !config.sandbox {
        console.warn("the sandbox is off");
    }
    let image = Arc::new(image);

    let mut machine = Machine::with_heap(machine::open_kvm()?, 1)?;
    let disk = Arc::new(new_disk(&image, &machine)?);
    let com1 = SerialPort::for_reports().map_err(RunError::host("make an eventfd"))?;
    let com2 = SerialPort::for_debug().map_err(RunError::host("make an eventfd"))?;
    com1.uart.queue_input(&frame(config, image.len())?);
    let helped = machine.add_virtio(disk.clone())?;
    for (first, port) in [(COM1, &com1), (COM2, &com2)] {
        let ports = Ports::new(first, UART_PORTS).posting_writes_to(UART_DATA);
        machine.add_pio(ports, port.uart.clone())?;
    }
    machine.add_exit_port(EXIT)?;
    machine.add_idle_port(IDLE, Some(helped))?;
    let vcpu: Vcpu = machine.boot(GUEST)?;

    let mut look = Look {
        config,
        image,
        disk,
        cancel,
        session: Session::new(config.task),
    };
    let outcome = Runner::new(vcpu)
        .worker(Worker {
            name: DISK,
            subscriber: look.disk.clone(),
            calls: calls::read_file(),
        })
        .helping_calls(&calls::read_file())
        .reports(&com1)
        .debug(&com2)
        .signals(signals)
        .deadline(deadline)
        .confined(config.sandbox)
        .run(&mut look, console)?;
    Ok((look, outcome))
}

fn new_disk(image: &Arc<InputFile>, machine: &Machine) -> Result<Block<Arc<InputFile>>, RunError> {
    let mut id = [0; ID_BYTES];
    id.iter_mut()
        .zip(DISK.bytes())
        .for_each(|(byte, from)| *byte = from);
    let config = BlockConfig {
        capacity: padded_length(image.len(), SECTOR_SIZE),
        sector_size: SECTOR_SIZE,
        read_only: true,
        zeroes: false,
        id,
    };
    let (memory, line) = (machine.memory().clone(), machine.line());
    Block::new(&config, image.clone(), memory, line).map_err(|error| RunError::Host {
        what: "make a disk",
        source: std::io::Error::other(error),
    })
}

/// What the guest is told.
fn frame(config: &ImageConfig, length: u64) -> Result<Vec<u8>, RunError> {
    let message = InspectConfig {
        task: match config.task {
            ImageTask::Info => InspectTask::Info,
            ImageTask::Check => InspectTask::Check,
        }
        .into(),
        length,
        format: config.claimed.map_or("", |format| format.name()).to_owned(),
        allowed: config
            .allowed
            .iter()
            .map(|reason| reason.name().to_owned())
            .collect(),
        largest_disk: config.largest_disk.unwrap_or(0),
    };
    let mut frame = vec![0; guest_protocol::HEADER_LEN + guest_protocol::MAX_MESSAGE_LEN];
    let len = encode_framed(&message, &mut frame).map_err(|error: FrameError| {
        RunError::Guest(format!(
            "the configuration does not fit into a frame: {error}"
        ))
    })?;
    frame.truncate(len);
    Ok(frame)
}

fn console_options(config: &ImageConfig) -> ConsoleOptions {
    ConsoleOptions {
        quiet: false,
        verbose: false,
        debug: config.debug,
        format: config.format,
        // There is nothing whose progress could be shown.
        raw_text: true,
        total: None,
        verb: "read",
    }
}

impl Operation for Look<'_> {
    fn receive(&mut self, _: ReportSource, bytes: &[u8], _: &mut Console) -> Result<(), RunError> {
        self.session
            .receive(bytes)
            .map_err(|error| RunError::Guest(format!("the look into the image failed: {error}")))
    }

    fn cancel(&self) {
        self.cancel.cancel();
    }

    fn judge(&mut self, end: GuestEnd<'_>) -> Result<(), RunError> {
        end::judge(end, &self.session, &self.disk)
    }

    fn answer(&self) -> String {
        let file = FileSize {
            length: self.image.len(),
            allocated: self.image.allocated(),
        };
        let answer = self.session.answer();
        answer.map_or_else(String::new, |answer| answer.shown(self.config, file))
    }
}
