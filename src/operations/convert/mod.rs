//! The conversion: the disk in an image that nobody need trust, written as it is.
//!
//! All parsing and inflating is done by the guest. The host opens the files that the user named, and
//! nothing that an image names; it holds the guest to the limit of the output's length, and puts the
//! output in place only if every byte of it was written or declared zero.

mod disks;
mod end;
mod files;
mod session;

use std::time::Instant;

use guest_abi::ports::{COM1, COM2, EXIT, IDLE, UART_DATA, UART_PORTS};
use guest_protocol::{HEADER_LEN, MAX_MESSAGE_LEN, Payload, encode_framed};

pub use session::{Complaint, ProtocolError, Session};

use crate::config::{ConvertConfig, DiskFormat, ProgressPercent};
use crate::machine::{self, Machine, Ports};
use crate::report::{Console, ConsoleOptions};
use crate::runtime::{
    Deadline, GuestEnd, Operation, Outcome, ReportSource, RunError, Runner, SerialPort, Signals,
};
use crate::sandbox::calls;
use disks::Disks;
use files::Files;

/// The guest that converts, built with the VMM.
pub static GUEST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/convert.elf"));

/// What has to be read or written when a run has ended, whatever came of it.
struct Conversion {
    files: Files,
    disks: Disks,
    session: Session,
    shows_total: bool,
}

/// Converts as `config` says, tells the user how it went, and returns the exit status. If there is
/// no result the output's path is as it was.
#[must_use]
pub fn run(config: &ConvertConfig) -> u8 {
    let started = Instant::now();
    match start(config) {
        Ok((conversion, outcome)) => end::finish(config, &conversion, outcome, started.elapsed()),
        Err(error) => end::refuse(config, &error, started.elapsed()),
    }
}

/// Goes as far as there is an outcome, good or bad.
fn start(config: &ConvertConfig) -> Result<(Conversion, Outcome), RunError> {
    let deadline = config.timeout.and_then(Deadline::after);
    let set_alarm = |deadline: Deadline| {
        let config = config.clone();
        deadline.set_alarm(move |error| end::refuse(&config, error, deadline.limit()))
    };
    let alarm = deadline.map(set_alarm).transpose();
    let alarm = alarm.map_err(RunError::host("set an alarm"))?;
    let (inputs, cancel) = Files::sources(config)?;
    // From here on a signal ends the run in order: there may be a file to remove.
    let signals = Signals::take_over().map_err(RunError::host("take over signals"))?;
    drop(alarm);
    let files = Files::new(config, inputs, cancel)?;
    let mut console = Console::open(console_options(config));
    files.notes().iter().for_each(|note| console.warn(note));
    if !config.sandbox {
        console.warn("the sandbox is off");
    }

    let slots = files.inputs.len() + 1;
    let mut machine = Machine::with_heap(machine::open_kvm()?, slots)?;
    let disks = Disks::new(&files, &machine)?;
    let helped = disks.add_to(&mut machine)?;
    let com1 = SerialPort::for_reports().map_err(RunError::host("make an eventfd"))?;
    let com2 = SerialPort::for_debug().map_err(RunError::host("make an eventfd"))?;
    com1.uart
        .queue_input(&frame(config, &files, console.wants_reports())?);
    for (first, port) in [(COM1, &com1), (COM2, &com2)] {
        let ports = Ports::new(first, UART_PORTS).posting_writes_to(UART_DATA);
        machine.add_pio(ports, port.uart.clone())?;
    }
    machine.add_exit_port(EXIT)?;
    machine.add_idle_port(IDLE, Some(helped))?;
    let vcpu = machine.boot(GUEST)?;

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
        .main_calls(&calls::sync_file())
        .helping_calls(&calls::read_file())
        .reports(&com1)
        .debug(&com2)
        .signals(signals)
        .deadline(deadline)
        .confined(config.sandbox);
    let mut conversion = Conversion {
        session: Session::new(config.digest.is_some()),
        files: files.share(),
        disks,
        shows_total: false,
    };
    let outcome = runner.run(&mut conversion, console)?;
    Ok((conversion, outcome))
}

/// What the guest is told.
fn frame(config: &ConvertConfig, files: &Files, reports: bool) -> Result<Vec<u8>, RunError> {
    let progress = if reports {
        config.progress
    } else {
        ProgressPercent::NEVER
    };
    let mut lengths = files.inputs.iter().map(|input| input.len());
    let message = guest_protocol::ConvertConfig {
        transport: guest_protocol::Transport::Serial.into(),
        progress_percent: progress.percent().into(),
        input_length: lengths.next().unwrap_or(0),
        backing_lengths: lengths.collect(),
        input_format: config.claimed.map_or("", |format| format.name()).to_owned(),
        allow: config
            .allowed
            .iter()
            .map(|reason| reason.name().to_owned())
            .collect(),
        largest_disk: config.max_output_size,
        snapshot: config.snapshot.clone().unwrap_or_default(),
        output_format: match config.output_format {
            DiskFormat::Raw => guest_protocol::ConvertFormat::Raw,
        }
        .into(),
        digest: match config.digest {
            Some(_) => guest_protocol::Digest::Sha256,
            None => guest_protocol::Digest::None,
        }
        .into(),
    };
    let mut frame = vec![0; HEADER_LEN + MAX_MESSAGE_LEN];
    let len = encode_framed(&message, &mut frame).map_err(|error| {
        RunError::Guest(format!(
            "the configuration does not fit into a frame: {error}"
        ))
    })?;
    frame.truncate(len);
    Ok(frame)
}

fn console_options(config: &ConvertConfig) -> ConsoleOptions {
    ConsoleOptions {
        quiet: config.quiet,
        verbose: config.verbose,
        debug: config.debug,
        format: config.format,
        raw_text: false,
        total: None,
        verb: "converted",
    }
}

impl Operation for Conversion {
    fn receive(
        &mut self,
        _: ReportSource,
        bytes: &[u8],
        console: &mut Console,
    ) -> Result<(), RunError> {
        let show = |message: &guest_protocol::GuestMessage| {
            // What is wrong with an image is said once, at the end.
            if !matches!(message.payload, Some(Payload::Error(_))) {
                console.message(message);
            }
            if let Some(Payload::Complete(complete)) = &message.payload
                && !complete.digest.is_empty()
            {
                console.digest("sha256", &complete.digest);
            }
        };
        let received = self.session.receive(bytes, show);
        received.map_err(|error| RunError::Guest(format!("the conversion failed: {error}")))?;
        if let Some(length) = self.session.length().filter(|_| !self.shows_total) {
            self.shows_total = true;
            console.set_total(length);
        }
        Ok(())
    }

    fn progress(&self) -> u64 {
        self.files.output.bytes_written()
    }

    fn cancel(&self) {
        self.files.cancel();
    }

    fn judge(&mut self, end: GuestEnd<'_>) -> Result<(), RunError> {
        let length = end::judge(end, &self.session, &self.disks)?;
        Ok(self.files.output.declare_length(length)?)
    }

    fn commit(&mut self) -> Result<Vec<String>, RunError> {
        self.files.commit()
    }
}
