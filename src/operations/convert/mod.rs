//! The conversion: the disk in an image that nobody need trust, written as it is.
//!
//! All parsing and inflating is done by the guest. The host opens the files that the user named,
//! and nothing that an image names; it holds the guest to the limit of the output's length, and
//! puts the output in place only if every byte of it was written or declared zero, and if the header
//! of an image names no other file, and no larger disk than it may. Of a raw disk that looks like an image
//! it warns.

mod advice;
mod configuration;
mod disks;
mod end;
mod files;
mod header;
mod session;
mod signature;

use guest_protocol::{DataList, Payload};

pub use super::session::ProtocolError;
pub use session::{Complaint, ComplaintKind, Session};

use crate::config::{ConvertConfig, DiskFormat, ProgressPercent};
use crate::machine::{self, Machine};
use crate::operations::beginning::{self, Beginning};
use crate::operations::ending;
use crate::operations::ports::SerialPorts;
use crate::operations::written::Files;
use crate::report::{Console, ConsoleOptions};
use crate::runtime::{GuestEnd, Operation, Outcome, Pulse, ReportSource, RunError, Watched};
use crate::sandbox::calls;
use configuration::Configuration;
use disks::Disks;

/// The guest that converts, built with the VMM.
pub static GUEST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/convert.elf"));

/// What has to be read or written when a run has ended, whatever came of it.
struct Conversion {
    files: Files,
    /// Where the files that are read were said to have data.
    data: Vec<DataList<'static>>,
    disks: Disks,
    session: Session,
    /// Whether the output has as many bytes as the disk, so that those written tell how much is done.
    is_raw: bool,
    /// How many bytes the user allows the output.
    limit: u64,
    /// How many bytes the user allows the disk.
    largest_disk: u64,
    reports: Reports,
    shows_total: bool,
    /// Whether the output has been told how long it is to be.
    knows_length: bool,
    /// What the user should know of a disk that was written.
    warnings: Vec<String>,
}

/// What the guest is to report of its progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reports {
    progress: ProgressPercent,
    /// Whether the reports of progress only move the bar, and are not shown.
    hidden: bool,
}

impl Reports {
    fn new(config: &ConvertConfig, console: &Console) -> Self {
        let progress = match console.wants_reports() {
            true => config.progress,
            false => ProgressPercent::NEVER,
        };
        // Zeros are no bytes of an image with tables: the guest alone knows how much is done.
        let hidden = config.output_format == DiskFormat::Qcow2
            && console.has_bar()
            && progress == ProgressPercent::NEVER;
        Self {
            progress: if hidden {
                ProgressPercent::EACH
            } else {
                progress
            },
            hidden,
        }
    }
}

/// Converts as `config` says, tells the user how it went, and returns the exit status. If there is
/// no result the output's path is as it was.
#[must_use]
pub fn run(config: &ConvertConfig) -> u8 {
    let watched = Watched {
        confined: config.sandbox,
        makes_output: true,
        last_object: ending::for_programs(config.format),
        ..Watched::default()
    };
    let finish = |(conversion, outcome): (Conversion, Outcome), elapsed| {
        end::finish(config, &conversion, outcome, elapsed)
    };
    let start = |beginning: &Beginning| start(config, beginning);
    beginning::run(
        config.timeout,
        watched,
        || console_options(config),
        start,
        finish,
    )
}

/// Goes as far as there is an outcome, good or bad.
fn start(config: &ConvertConfig, beginning: &Beginning) -> Result<(Conversion, Outcome), RunError> {
    let inputs = files::sources(config)?;
    let written = [Some(config.output.as_path()), config.stats_file.as_deref()];
    beginning::knock(written.into_iter().flatten());
    let signals = beginning.take_over_signals()?;
    let files = files::with_output(config, inputs)?;
    let console = beginning.open_console(console_options(config), &files.notes(), config.sandbox);

    let slots = files.inputs.len() + 1;
    let mut machine = Machine::with_heap(machine::open_kvm()?, slots)?;
    let disks = Disks::new(&files, &machine)?;
    let helped = disks.add_to(&mut machine)?;
    let reports = Reports::new(config, &console);
    let Configuration { frame, data } = Configuration::new(config, &files.inputs, reports)?;
    let ports = SerialPorts::new(&frame)?;
    let vcpu = ports.boot(machine, Some(helped), GUEST)?;

    let placing = files.placing();
    let runner = beginning
        .runner(vcpu, &placing, disks.workers())
        .main_calls(&calls::find_holes().and(&calls::finish_device()))
        .vcpu_calls(&calls::read_file())
        // The head of what was written is looked at.
        .main_calls(&calls::read_file())
        .signals(signals)
        .confined(config.sandbox);
    let mut conversion = Conversion {
        data,
        session: Session::new(config.digest.is_some(), config.largest_disk()),
        files: files.clone(),
        disks,
        is_raw: config.output_format == DiskFormat::Raw,
        limit: config.max_output_size,
        largest_disk: config.largest_disk(),
        reports,
        shows_total: false,
        knows_length: false,
        warnings: Vec::new(),
    };
    let outcome = ports.listen(runner).run(&mut conversion, console)?;
    Ok((conversion, outcome))
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

fn storage(error: std::io::Error) -> RunError {
    RunError::Storage(error.into())
}

impl Operation for Conversion {
    fn receive(
        &mut self,
        _: ReportSource,
        bytes: &[u8],
        console: &mut Console,
    ) -> Result<(), RunError> {
        let hidden = self.reports.hidden;
        let show = |message: &guest_protocol::GuestMessage| {
            match message.payload {
                // What is wrong with an image is said once, at the end.
                Some(Payload::Error(_) | Payload::Finding(_)) => {}
                Some(Payload::Progress(_)) if hidden => {}
                _ => console.message(message),
            }
            if let Some(Payload::Complete(complete)) = &message.payload
                && !complete.digest.is_empty()
            {
                console.digest("sha256", &complete.digest);
            }
        };
        let received = self.session.receive(bytes, show);
        received.map_err(|error| RunError::Guest(format!("the conversion failed: {error}")))?;
        if let Some(length) = self.session.length().filter(|_| !self.knows_length) {
            self.knows_length = true;
            // An image with tables is as long as it becomes; the guest says so in the end.
            if self.is_raw {
                self.files.output.expect_length(length)?;
            }
        }
        if let Some(size) = self.session.disk().filter(|_| !self.shows_total) {
            self.shows_total = true;
            console.set_total(size);
        }
        Ok(())
    }

    fn progress(&self) -> u64 {
        match self.is_raw {
            true => self.files.output.bytes_written(),
            false => self.session.reported(),
        }
    }

    fn cancel(&self) {
        self.files.cancel();
    }

    fn judge(&mut self, end: GuestEnd<'_>) -> Result<(), RunError> {
        let sealed = self.files.output.seal();
        let length = end::judge(end, self)?;
        sealed?;
        // It was told how long the output may be, and has a disk that ends there.
        let declared = self.files.output.declare_length(length);
        declared.map_err(|error| RunError::Guest(format!("the conversion failed: {error}")))?;
        self.warnings.extend(end::shortness(self));
        if self.is_raw {
            let warning = signature::warning(&*self.files.output, length);
            self.warnings.extend(warning);
            return Ok(());
        }
        // A few bytes can be the image of a disk of any size.
        let size = self.session.disk().unwrap_or(0);
        let wrong = if size > self.largest_disk {
            let limit = self.largest_disk;
            format!(
                "of a disk of {size} bytes, more than the {limit} that --max-output-size allows"
            )
        } else if header::is_harmless(&*self.files.output, size).map_err(storage)? {
            return Ok(());
        } else {
            "with a header that it may not have".to_owned()
        };
        let text = format!("the conversion failed: the guest wrote an image {wrong}");
        Err(RunError::Guest(text))
    }

    fn commit(&mut self, pulse: &Pulse<'_>) -> Result<Vec<String>, RunError> {
        let committed = self
            .files
            .commit(&self.data, ", or with --read-holes", pulse);
        let blame = |error| ending::uncommitted(error, &self.disks.driver_faults());
        let mut warnings = committed.map_err(blame)?;
        warnings.append(&mut self.warnings);
        Ok(warnings)
    }

    fn make_durable(&mut self) -> Vec<String> {
        self.files.output.sync_name().into_iter().collect()
    }
}
