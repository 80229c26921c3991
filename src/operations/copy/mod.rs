//! The copy: the input's bytes to the output, through a guest that decides what goes where.
//!
//! What can be refused is refused before anything is made; the output gets its name as the last
//! step of all.

mod channels;
mod configuration;
mod disks;
mod end;
mod files;
mod session;
mod ticks;

use std::path::{Path, PathBuf};
use std::slice;

use guest_protocol::{GuestMessage, Payload};

pub use super::session::ProtocolError;
pub use configuration::{InputFacts, Reports, config_frame};
pub use session::Session;

use crate::config::{Config, ProgressPercent, Protocol};
use crate::machine::{self, Machine, MachineError};
use crate::operations::beginning::{self, Beginning};
use crate::operations::ending;
use crate::operations::written::Files;
use crate::report::{Console, ConsoleOptions};
use crate::runtime::{
    GuestEnd, Operation, Outcome, Pulse, ReportSource, RunError, SerialInput, Watched,
};
use crate::sandbox::{Calls, calls};
use channels::Channels;
use disks::Disks;
use ticks::Ticks;

/// The guest that copies, built with the VMM.
pub static GUEST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/guest.elf"));

/// What has to be read or written when a run has ended, whatever came of it.
struct Copy {
    files: Files,
    disks: Disks,
    channels: Channels,
    session: Session,
    input: InputFacts,
    /// Whether the user wants to see the digest.
    shows_digest: bool,
    /// Whether the output is read back when it is written.
    verifies: bool,
    /// A guest that may be one by mistake: an argument too many.
    stray: Option<PathBuf>,
}

/// Copies as `config` says, tells the user how it went, and returns the exit status. If there is
/// no copy the output's path is as it was.
pub fn run(config: &Config) -> u8 {
    let ticks = Ticks::now();
    let finish = |(copy, outcome): (Copy, Outcome), elapsed| {
        let digest_ticks = copy.session.digest_ticks();
        let digest_seconds = digest_ticks.map(|digest| ticks.seconds(digest, elapsed));
        end::finish(config, &copy, outcome, elapsed, digest_seconds)
    };
    let start = |beginning: &Beginning| start(config, beginning);
    let options = || console_options(config, 0);
    beginning::run(config.timeout, watched(config), options, start, finish)
}

/// Whether the vCPU's thread may do the work of the disks while the guest waits. It takes longer for a
/// digest than they take for theirs, and would only be kept from it, unless they work in turns anyway.
fn may_be_helped(config: &Config) -> bool {
    let computes = config.digest.is_some() || config.verify;
    !computes || config.requests.depth == 1
}

/// What the watcher has to know.
fn watched(config: &Config) -> Watched {
    Watched {
        confined: config.sandbox,
        makes_output: true,
        last_object: ending::for_programs(config.format),
        last_act: match config.serial_input {
            true => SerialInput::calls_of_stdin(),
            false => Calls::new(),
        },
        ..Watched::default()
    }
}

/// Goes as far as there is an outcome, good or bad.
fn start(config: &Config, beginning: &Beginning) -> Result<(Copy, Outcome), RunError> {
    let sources = files::OpenedInputs::open(config)?;
    let written = [Some(config.output.as_path()), config.stats_file.as_deref()];
    beginning::knock(written.into_iter().flatten());
    let signals = beginning.take_over_signals()?;
    let (files, image) = sources.with_outputs(config)?;
    let notes = [files.notes(), files::sector_notes(&files, config)].concat();
    let options = console_options(config, files.input().len());
    let mut console = beginning.open_console(options, &notes, config.sandbox);

    let sector_size = u64::from(config.input_sector_size.bytes());
    let sectors = files.input().len().div_ceil(sector_size);
    let input_facts = InputFacts::of(files.input(), config);
    let reported = input_facts.reported_sectors(sector_size);
    let usual = match console.is_bare_terminal() {
        true => ProgressPercent::TENTHS,
        false => ProgressPercent::default(),
    };
    let reports = Reports::new(config, reported, console.wants_reports().then_some(usual));
    let slots = Disks::COUNT + usize::from(reports.are_by_console());
    let mut machine = Machine::new(machine::open_kvm()?, slots)?;
    let disks = Disks::new(config, &files, &machine)?;
    let slots = disks.add_to(&mut machine)?;
    let helped = slots.into_iter().filter(|_| may_be_helped(config));
    let channels = Channels::new(config, reports, &input_facts, &mut machine)?;
    let booted = channels.boot(machine, helped, image.as_deref().unwrap_or(GUEST));
    let vcpu = booted.map_err(|error| with_path(error, config.guest.as_deref()))?;

    let input = if config.serial_input {
        let (input, note) = SerialInput::from_stdin(channels.com2())?;
        note.iter().for_each(|note| console.warn(note));
        Some(input)
    } else {
        None
    };
    let placing = files.placing();
    let poller = vcpu.make_poller()?;
    let runner = beginning
        .runner(vcpu, &placing, disks.workers(poller))
        .main_calls(&calls::find_holes().and(&calls::finish_device()))
        .vcpu_calls(&disks::calls())
        .signals(signals)
        .confined(config.sandbox);
    let runner = channels.listen(runner).serial_input(input);
    let mut copy = Copy {
        session: Session::new(config.protocol, sectors)
            .wanting_digest(config.digest.is_some() || config.verify),
        input: input_facts,
        shows_digest: config.digest.is_some(),
        verifies: config.verify,
        stray: config.guest.clone().filter(|_| config.guest_by_place),
        files: files.clone(),
        disks,
        channels,
    };
    let outcome = runner.run(&mut copy, console)?;
    Ok((copy, outcome))
}

/// The same error, with the path of the guest that the user gave if that is what cannot be loaded.
fn with_path(error: RunError, guest: Option<&Path>) -> RunError {
    match (error, guest) {
        (RunError::Machine(MachineError::Load(source)), Some(path)) => RunError::Load {
            path: path.to_owned(),
            source,
        },
        (error, _) => error,
    }
}

fn console_options(config: &Config, total: u64) -> ConsoleOptions {
    ConsoleOptions {
        quiet: config.quiet,
        verbose: config.verbose,
        debug: config.debug,
        format: config.format,
        raw_text: config.protocol == Protocol::Text,
        total: Some(total),
        verb: "copied",
    }
}

impl Operation for Copy {
    fn receive(
        &mut self,
        source: ReportSource,
        bytes: &[u8],
        console: &mut Console,
    ) -> Result<(), RunError> {
        if self.session.protocol() == Protocol::Text {
            let taken = self.session.take_text(bytes.len());
            taken.map_err(session::breach)?;
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
        let received = self.session.receive(source, bytes, show);
        received.map_err(session::breach)
    }

    /// A verification goes over each byte once more, and so it is half of the work.
    fn progress(&self) -> u64 {
        let written = self.files.output.bytes_written();
        match self.verifies {
            true => written.midpoint(self.disks.read_back().min(written)),
            false => written,
        }
    }

    fn cancel(&self) {
        self.files.cancel();
    }

    fn judge(&mut self, end: GuestEnd<'_>) -> Result<(), RunError> {
        let sealed = self.files.output.seal();
        let faulted = matches!(end, GuestEnd::Fault(_) | GuestEnd::Unexpected(_));
        let causes = || {
            let mut causes = self.disks.driver_faults();
            causes.extend(self.channels.driver_fault());
            let stray = self.stray.as_deref().filter(|_| faulted);
            if causes.is_empty() {
                causes.extend(stray.map(end::stray));
            }
            causes
        };
        end::judge(end, &self.session, &self.disks, causes)?;
        Ok(sealed?)
    }

    fn commit(&mut self, pulse: &Pulse<'_>) -> Result<Vec<String>, RunError> {
        let data = slice::from_ref(&self.input.data);
        let committed = self.files.commit(data, ", or with --sparse never", pulse);
        committed.map_err(|error| ending::uncommitted(error, &self.disks.driver_faults()))
    }

    fn make_durable(&mut self) -> Vec<String> {
        self.files.output.sync_name().into_iter().collect()
    }
}
