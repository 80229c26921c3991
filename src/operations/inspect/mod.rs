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

use guest_protocol::{InspectConfig, InspectTask};

pub use super::session::ProtocolError;
pub use answer::{Answer, FileSize, Verdict};
pub use session::Session;

use crate::config::{ImageConfig, ImageTask};
use crate::files::{InputFile, Role, check_distinct, check_streams_of};
use crate::machine::{self, Machine};
use crate::operations::beginning::{self, Beginning};
use crate::operations::disk::{DiskShape, INPUT};
use crate::operations::ending;
use crate::operations::ports::{SerialPorts, configuration_frame, does_not_fit};
use crate::report::{Console, ConsoleOptions};
use crate::runtime::{GuestEnd, Operation, Outcome, ReportSource, RunError, Watched, Worker};
use crate::sandbox::calls;
use crate::virtio::block::Block;

/// The guest that looks into images, built with the VMM.
pub static GUEST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/inspect.elf"));

/// The sector size of the disk that an image is for its guest.
const SECTOR_SIZE: u32 = 512;

/// A run, and what has to be read when it has ended.
struct Look<'a> {
    config: &'a ImageConfig,
    image: Arc<InputFile>,
    disk: Arc<Block<InputFile>>,
    session: Session,
}

/// Looks into an image as `config` says, prints what was found, and returns the exit status.
#[must_use]
pub fn run(config: &ImageConfig) -> u8 {
    let watched = Watched {
        confined: config.sandbox,
        last_object: ending::for_programs(config.format),
        ..Watched::default()
    };
    let finish =
        |(look, outcome): (Look<'_>, Outcome), elapsed| end::finish(&look, outcome, elapsed);
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
fn start<'a>(
    config: &'a ImageConfig,
    beginning: &Beginning,
) -> Result<(Look<'a>, Outcome), RunError> {
    check_streams_of([(Role::Input, config.image.as_path())], [])?;
    let image = InputFile::open(&config.image, false)?;
    check_distinct(&[image.known()], &[])?;
    let signals = beginning.take_over_signals()?;
    let console = beginning.open_console(console_options(config), &image.notes(), config.sandbox);
    let image = Arc::new(image);

    let mut machine = Machine::with_heap(machine::open_kvm()?, 1)?;
    let shape = DiskShape {
        name: INPUT,
        length: image.len(),
        sector_size: SECTOR_SIZE,
        read_only: true,
        zeroes: false,
    };
    let disk = shape.disk(&image, &machine)?;
    let helped = machine.add_virtio(disk.clone())?;
    let ports = SerialPorts::new(&frame(config, image.len())?)?;
    let vcpu = ports.boot(machine, Some(helped), GUEST)?;

    let mut look = Look {
        config,
        image,
        disk,
        session: Session::new(config.task),
    };
    let worker = Worker {
        name: INPUT,
        subscriber: look.disk.clone(),
        calls: calls::read_file(),
    };
    let runner = beginning
        .runner(vcpu, &[], [worker])
        .vcpu_calls(&calls::read_file())
        .signals(signals)
        .confined(config.sandbox);
    let outcome = ports.listen(runner).run(&mut look, console)?;
    Ok((look, outcome))
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
    configuration_frame(&message).map_err(does_not_fit)
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
        self.image.cancel().cancel();
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
