//! A look into an image from beginning to end: it takes the configuration, sets up the disk, looks
//! into the image, and reports what it finds.

use guest_formats::{Error, examine};
use guest_kit::disk::ReadDisk;
use guest_kit::dma::DmaRegion;
use guest_kit::failure::{Failure, Op};
use guest_kit::hardware::{Attached, Ports, Registers};
use guest_kit::program::{EXIT_FAILURE, EXIT_SUCCESS, configure};
use guest_protocol::InspectTask;

use crate::config::Config;
use crate::report::{Reporter, failure, read_failure};
use crate::source::Source;
use crate::{check, info};

/// What the program runs on.
#[derive(Debug)]
pub struct Parts<'a, P, R> {
    /// The I/O ports.
    pub ports: &'a P,
    /// The disk that the image is on.
    pub image: Attached<R>,
    /// Memory for data.
    pub pool: DmaRegion,
}

/// Runs the whole of it, and returns the status for the exit port: that of success whatever is found.
pub fn run<P: Ports, R: Registers>(parts: Parts<'_, P, R>) -> u8 {
    let mut reporter = Reporter::new(parts.ports);
    let config = configure(parts.ports, Config::decode);
    let operation = match &config {
        Ok(config) if config.task == InspectTask::Check => "check",
        _ => "info",
    };
    let result = config.and_then(|config| look(parts, &config, &mut reporter));
    reporter.end(operation, &result);
    match result {
        Ok(()) => EXIT_SUCCESS,
        Err(_) => EXIT_FAILURE,
    }
}

fn look<P: Ports, R: Registers>(
    parts: Parts<'_, P, R>,
    config: &Config,
    reporter: &mut Reporter<'_, P>,
) -> Result<(), Failure> {
    let disk = ReadDisk::start(parts.ports, parts.image, parts.pool);
    let disk = disk.map_err(|error| failure(Op::Init, &error))?;
    let mut source = Source::new(disk, config.length);
    let looked = look_into(&mut source, config, reporter);
    looked.map_err(|error| match (error, source.failure()) {
        (Error::Read { offset }, Some(cause)) => read_failure(offset, cause),
        (error, _) => failure(Op::Read, &error),
    })
}

fn look_into<P: Ports, R: Registers>(
    source: &mut Source<'_, P, R>,
    config: &Config,
    reporter: &mut Reporter<'_, P>,
) -> Result<(), Error> {
    let options = &config.options;
    let (found, image) = examine(source, options)?;
    info::report(&found, image.as_ref(), source, options, reporter)?;
    if config.task == InspectTask::Info {
        return Ok(());
    }
    match check::report(&found, image, source, options, reporter) {
        // A check that was given up is a reason for a refusal, and no failure of the run.
        Err(Error::Refused(finding)) => {
            reporter.finding(&finding, false);
            Ok(())
        }
        other => other,
    }
}

#[cfg(test)]
#[path = "app_tests.rs"]
mod tests;
