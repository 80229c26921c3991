//! A copy from beginning to end: it takes the configuration, sets up both disks, copies, and
//! reports each of these steps.

use guest_abi::ports::COM1;
use guest_protocol::{DataList, Sparse, Transport};

use crate::config::{Config, ConfigError, Side};
use crate::copy::CopyEnd;
use crate::copy::disks::Disks;
use crate::copy::engine::{Engine, Extras, buffers};
use crate::copy::plan::{DiskShape, Plan, request_size};
use crate::copy::skip::Selection;
use crate::report::Reporter;
use guest_kit::digest::Hasher;
use guest_kit::dma::DmaRegion;
use guest_kit::failure::{Failure, Op};
use guest_kit::hardware::{Attached, Ports, Registers};
use guest_kit::program::{self, EXIT_FAILURE, EXIT_SUCCESS, VMM};
use guest_kit::progress::{Schedule, Scheduled};
use guest_kit::serial::debug;
use guest_kit::virtio::block::{BlockDevice, Purpose};
use guest_kit::virtio::console::Console;
use guest_kit::virtio::requests::MAX_REQUEST_SLOTS;
use guest_kit::zeros::Search;

/// What the program runs on.
#[derive(Debug)]
pub struct Parts<'a, P, R> {
    /// The I/O ports.
    pub ports: &'a P,
    /// The disk to read.
    pub input: Attached<R>,
    /// The disk to write.
    pub output: Attached<R>,
    /// The console, which is touched only if the configuration wants it.
    pub console: Attached<R>,
    /// Memory for data.
    pub pool: DmaRegion,
}

/// Runs the whole copy, and returns the status for the exit port.
pub fn run<P: Ports, R: Registers>(parts: Parts<'_, P, R>) -> u8 {
    let ports = parts.ports;
    let mut reporter = Reporter::new(ports);
    let mut outcome = execute(parts, &mut reporter).unwrap_or_else(|failure| CopyEnd {
        count: 0,
        result: Err(failure),
        digest: None,
        digest_ticks: 0,
    });
    conclude(&mut reporter, &mut outcome);
    debug(ports, format_args!("done: {} sectors", outcome.count));
    match outcome.result {
        Ok(()) => EXIT_SUCCESS,
        Err(_) => EXIT_FAILURE,
    }
}

/// Reports how the run has ended. If not all reports could be sent, the copy is a failure.
fn conclude<P: Ports, R: Registers>(reporter: &mut Reporter<'_, P, R>, outcome: &mut CopyEnd) {
    let mut had_fault = reporter.fault().is_some();
    loop {
        if let Some(fault) = reporter.fault() {
            outcome.result = Err(Failure::new(Op::Report, "console", fault));
        }
        if let Err(failure) = &outcome.result {
            reporter.error(failure);
        }
        match (&outcome.result, &outcome.digest) {
            (Ok(()), Some(digest)) => {
                reporter.complete_with(outcome.count, digest, outcome.digest_ticks);
            }
            (result, _) => reporter.complete(outcome.count, result.is_ok()),
        }
        reporter.finish();
        // If the console fails at these very messages, they are sent again by COM1, which cannot
        // fail.
        if had_fault || reporter.fault().is_none() {
            return;
        }
        had_fault = true;
    }
}

/// Sets up the copy and runs it. Returns a failure if it could not begin. How a copy that has begun
/// ended is its outcome.
fn execute<P: Ports, R: Registers>(
    parts: Parts<'_, P, R>,
    reporter: &mut Reporter<'_, P, R>,
) -> Result<CopyEnd, Failure> {
    let Parts {
        ports,
        input,
        output,
        console,
        mut pool,
    } = parts;
    let config = configure(ports, console, reporter)?;
    let slots = slots(&config, &pool);
    let (input, source) = attach(Side::Input, input, &config, slots, reporter)?;
    let (output, target) = attach(Side::Output, output, &config, slots, reporter)?;
    let plan = request_size(&config, input.config(), output.config())
        .and_then(|size| Plan::new(source, target, size))
        .map_err(|error| Failure::new(Op::Init, error.disk().name(), &error))?;
    let selection = select(plan, &config, &mut pool)?;
    let extras = Extras {
        zeros: match config.sparse {
            Sparse::Always => {
                Search::new(plan.block(), plan.request_size(), output.config().zeroes)
            }
            Sparse::Auto | Sparse::Never => None,
        },
        // The bytes that fill up the last sector do not belong to the input.
        digest: config.digest.map(|len| Hasher::new(len.min(source.len))),
        verify: config.verify,
    };
    let mut disks = Disks::new(ports, input, output);
    let schedule = Schedule::new(source.sectors(), config.progress_percent);
    let mut progress = Scheduled::new(schedule, reporter);
    let depth = config.queue_depth;
    let copy = (plan, selection);
    let engine = Engine::new(copy, extras, &mut disks, &mut pool, &mut progress, depth);
    debug(
        ports,
        format_args!(
            "copying in {} slots of {} bytes",
            engine.depth(),
            plan.request_size()
        ),
    );
    Ok(engine.run())
}

/// The parts of the input that are to be read. A list of them in the pool is read before the pool
/// is used for anything else.
fn select(plan: Plan, config: &Config, pool: &mut DmaRegion) -> Result<Selection, Failure> {
    if config.sparse == Sparse::Never {
        return Ok(Selection::everything(plan));
    }
    if config.data_in_pool == 0 {
        return Ok(Selection::new(plan, &config.data));
    }
    let len = usize::try_from(config.data_in_pool).unwrap_or(usize::MAX);
    let list = (len <= pool.len()).then(|| DataList::from_bytes(pool.bytes(0, len)));
    let list = list.flatten().ok_or_else(|| {
        let error = ConfigError::DataList(config.data_in_pool);
        Failure::new(Op::Config, VMM, &error)
    })?;
    Ok(Selection::new(plan, &list))
}

/// Waits for the configuration, takes it, and starts the console if it is to be used.
fn configure<P: Ports, R: Registers>(
    ports: &P,
    console: Attached<R>,
    reporter: &mut Reporter<'_, P, R>,
) -> Result<Config, Failure> {
    let config = program::configure(ports, Config::decode)?;
    reporter.speak(config.protocol);
    if config.transport == Transport::Console {
        let console = Console::init(console.registers, console.queue)
            .map_err(|error| Failure::new(Op::Init, "console", &error))?;
        reporter.use_console(console);
    }
    reporter.init("config", VMM, u64::from(COM1));
    debug(
        ports,
        format_args!(
            "configured: sectors {} to {}, requests of {}",
            config.input_sector, config.output_sector, config.request_size
        ),
    );
    Ok(config)
}

/// For how many requests at once there is to be room.
fn slots(config: &Config, pool: &DmaRegion) -> u16 {
    let depth = usize::try_from(config.queue_depth).unwrap_or(usize::MAX);
    let slots = depth
        .min(buffers(pool, config.request_size))
        .min(MAX_REQUEST_SLOTS);
    u16::try_from(slots).unwrap_or(u16::MAX)
}

/// Starts one disk, and reports each stage.
fn attach<P: Ports, R: Registers>(
    disk: Side,
    place: Attached<R>,
    config: &Config,
    slots: u16,
    reporter: &mut Reporter<'_, P, R>,
) -> Result<(BlockDevice<R>, DiskShape), Failure> {
    let name = disk.name();
    let (purpose, sector) = match disk {
        Side::Input => (Purpose::Read, config.input_sector),
        Side::Output => (Purpose::Write, config.output_sector),
    };
    let device = program::attach(name, place, purpose, slots, |stage, number| {
        reporter.init(stage, name, number);
    })?;
    let shape = DiskShape::new(disk, device.config(), sector)
        .map_err(|error| Failure::new(Op::Init, name, &error))?;
    reporter.capacity(disk, shape.sectors(), shape.len);
    Ok((device, shape))
}

#[cfg(test)]
#[path = "app_tests.rs"]
mod tests;
