//! The copy: the input's bytes to the output, through a guest that decides what goes where.
//!
//! What can be refused is refused before anything is made; the output gets its name as the last
//! step of all.

mod configuration;
mod disks;
mod end;
mod files;
mod session;

use std::time::Instant;

use guest_abi::ports::{COM1, COM2, EXIT, IDLE, UART_DATA, UART_PORTS};

use guest_protocol::{GuestMessage, Payload};

pub use configuration::{InputFacts, config_frame};
pub use session::{ProtocolError, Session};

use crate::config::{Config, OutputFormat, Protocol};
use crate::machine::{self, Machine, Ports, Slot, Vcpu};
use crate::report::{self, Console, ConsoleOptions};
use crate::runtime::{
    Deadline, GuestEnd, Operation, Outcome, RunError, Runner, SerialPort, Signals, Source,
};
use crate::sandbox::calls;
use disks::Disks;
use files::Files;

/// The guest that copies, built with the VMM.
pub static GUEST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/guest.elf"));

/// What has to be read or written when a run has ended, whatever came of it.
struct Copy {
    files: Files,
    disks: Disks,
    session: Session,
    input: InputFacts,
    /// Whether the user wants to see the digest.
    shows_digest: bool,
}

/// Copies as `config` says, tells the user how it went, and returns the exit status. If there is
/// no copy the output's path is as it was.
pub fn run(config: &Config) -> u8 {
    let started = Instant::now();
    match start(config) {
        Ok((copy, outcome)) => end::finish(config, &copy, outcome, started.elapsed()),
        Err(error) => end::refuse(config, &error, started.elapsed()),
    }
}

/// Goes as far as there is an outcome, good or bad.
fn start(config: &Config) -> Result<(Copy, Outcome), RunError> {
    let deadline = config.timeout.and_then(Deadline::after);
    let alarm = deadline
        .map(Deadline::set_alarm)
        .transpose()
        .map_err(RunError::host("set an alarm"))?;
    let sources = files::Sources::open(config)?;
    // From here on a signal ends the run in order: there may be a file to remove.
    let signals = Signals::take_over().map_err(RunError::host("take over signals"))?;
    drop(alarm);
    let (files, image) = sources.with_outputs(config)?;
    let mut console = Console::open(console_options(config, files.input.len()));
    files.notes().iter().for_each(|note| console.warn(note));
    if !config.sandbox {
        console.warn("the sandbox is off");
    }

    let mut machine = Machine::new(machine::open_kvm()?, Disks::COUNT)?;
    let disks = Disks::new(config, &files, &machine)?;
    let input = InputFacts::of(&files.input, config.sparse);
    let ports = SerialPorts::new(config, &console, &input)?;
    let helped = disks.add_to(&mut machine)?;
    let vcpu = ports.boot(machine, helped, image.as_deref().unwrap_or(GUEST))?;

    let placing = files.placing();
    let runner = placing
        .iter()
        .fold(Runner::new(vcpu), |runner, (folder, calls)| {
            runner.folder(*folder).main_calls(calls)
        });
    let runner = disks
        .workers()
        .into_iter()
        .fold(runner, Runner::worker)
        .main_calls(&calls::find_holes())
        .helping_calls(&calls::read_file())
        .reports(&ports.com1)
        .debug(&ports.com2)
        .signals(signals)
        .deadline(deadline)
        .confined(config.sandbox);
    let sector_size = u64::from(config.input_sector_size.bytes());
    let sectors = files.input.len().div_ceil(sector_size);
    let mut copy = Copy {
        session: Session::new(config.protocol, sectors)
            .wanting_digest(config.digest.is_some() || config.verify),
        input,
        shows_digest: config.digest.is_some(),
        files: files.share(),
        disks,
    };
    let outcome = runner.run(&mut copy, console)?;
    Ok((copy, outcome))
}

/// The serial ports of a copying machine.
struct SerialPorts {
    com1: SerialPort,
    com2: SerialPort,
}

impl SerialPorts {
    /// Ports with the configuration waiting to be received.
    fn new(config: &Config, console: &Console, input: &InputFacts) -> Result<Self, RunError> {
        let ports = Self {
            com1: SerialPort::for_reports().map_err(RunError::host("make an eventfd"))?,
            com2: SerialPort::for_debug().map_err(RunError::host("make an eventfd"))?,
        };
        let frame = config_frame(config, console.wants_reports(), input).map_err(|error| {
            RunError::Guest(format!(
                "the configuration does not fit into a frame: {error}"
            ))
        })?;
        ports.com1.uart.queue_input(&frame);
        Ok(ports)
    }

    /// Completes the machine, whose disks are there, with its ports and its guest.
    fn boot(&self, mut machine: Machine, helped: Slot, image: &[u8]) -> Result<Vcpu, RunError> {
        for (first, port) in [(COM1, &self.com1), (COM2, &self.com2)] {
            let ports = Ports::new(first, UART_PORTS).posting_writes_to(UART_DATA);
            machine.add_pio(ports, port.uart.clone())?;
        }
        machine.add_exit_port(EXIT)?;
        machine.add_idle_port(IDLE, Some(helped))?;
        Ok(machine.boot(image)?)
    }
}

fn console_options(config: &Config, total: u64) -> ConsoleOptions {
    ConsoleOptions {
        quiet: config.quiet,
        verbose: config.verbose,
        debug: config.debug,
        format: match config.format {
            OutputFormat::Text => report::OutputFormat::Text,
            OutputFormat::Json => report::OutputFormat::Json,
        },
        raw_text: config.protocol == Protocol::Text,
        total: Some(total),
        verb: "copied",
    }
}

impl Operation for Copy {
    fn receive(
        &mut self,
        source: Source,
        bytes: &[u8],
        console: &mut Console,
    ) -> Result<(), RunError> {
        if self.session.protocol() == Protocol::Text {
            self.session.take_text(bytes.len())?;
            console.text(bytes);
            return Ok(());
        }
        let shows_digest = self.shows_digest;
        let show = |message: &GuestMessage| {
            console.message(message);
            if let Some(Payload::Complete(complete)) = &message.payload
                && shows_digest
                && !complete.digest.is_empty()
            {
                console.digest("sha256", &complete.digest);
            }
        };
        Ok(self.session.receive(source, bytes, show)?)
    }

    fn progress(&self) -> u64 {
        self.files.output.bytes_written()
    }

    fn cancel(&self) {
        self.files.cancel();
    }

    fn judge(&mut self, end: GuestEnd<'_>) -> Result<(), RunError> {
        end::judge(end, &self.session, &self.disks)
    }

    fn commit(&mut self) -> Result<Vec<String>, RunError> {
        Ok(self.files.commit(&self.input.data)?)
    }
}
