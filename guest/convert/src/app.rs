//! A conversion from beginning to end: it takes the configuration, sets up the disks, opens the
//! images, converts, and reports each of these steps.

use alloc::vec;
use alloc::vec::Vec;

use guest_abi::layout::BACKING_SLOT;
use guest_abi::ports::COM1;
use guest_copy::copy::digest::{Hasher, LEN};
use guest_copy::progress::{Schedule, Scheduled};
use guest_formats::{Finding, Reason};
use guest_kit::dma::DmaRegion;
use guest_kit::hardware::{Attached, Ports, Registers};
use guest_kit::serial::{Uart, debug};
use guest_kit::virtio::block::{BlockDevice, Purpose, Stage};
use guest_protocol::{ConvertFormat, MAX_MESSAGE_LEN};

use crate::SECTOR;
use crate::backing_chain::{BackingChain, Wish};
use crate::config::Config;
use crate::disks::{Disks, OUTPUT, Source, source_name};
use crate::engine::{Engine, Output, SLOTS, no_room};
use crate::failure::{Failure, Op, refused};
use crate::holes::FileHoles;
use crate::pool::{PAGE, Pool};
use crate::report::Reporter;

/// Exit status of a run that ended well.
pub const EXIT_SUCCESS: u8 = 0;
/// Exit status of a run that failed and said so.
pub const EXIT_FAILURE: u8 = 1;

/// How many bytes of the pool are for what parsers read. The rest is for the data of the pipeline.
const PARSER_MEMORY: usize = PAGE;

/// What the program runs on.
#[derive(Debug)]
pub struct Parts<'a, P, R, F> {
    /// The I/O ports.
    pub ports: &'a P,
    /// The disk with the image.
    pub input: Attached<R>,
    /// The disk to write.
    pub output: Attached<R>,
    /// Memory for data.
    pub pool: DmaRegion,
    /// Returns the device in any other slot, each of them once. The configuration says for how many
    /// backing files there is one.
    pub others: F,
}

/// How a conversion ended.
#[derive(Debug, PartialEq, Eq)]
pub struct ConversionEnd {
    /// How many sectors of the disk were converted, counted from the first one without a gap.
    pub count: u64,
    /// The length of the output in bytes.
    pub length: u64,
    /// The digest of the disk, if one was wanted, or the reason why the disk is not converted.
    pub result: Result<Option<[u8; LEN]>, Failure>,
}

/// Runs the whole conversion, and returns the status for the exit port.
pub fn run<P, R, F>(parts: Parts<'_, P, R, F>) -> u8
where
    P: Ports,
    R: Registers,
    F: FnMut(usize) -> Attached<R>,
{
    let ports = parts.ports;
    let mut reporter = Reporter::new(ports);
    let outcome = execute(parts, &mut reporter).unwrap_or_else(|failure| ConversionEnd {
        count: 0,
        length: 0,
        result: Err(failure),
    });
    conclude(&mut reporter, &outcome);
    debug(ports, format_args!("done: {} sectors", outcome.count));
    match outcome.result {
        Ok(_) => EXIT_SUCCESS,
        Err(_) => EXIT_FAILURE,
    }
}

/// Reports how the run has ended.
fn conclude<P: Ports, R: Registers>(reporter: &mut Reporter<'_, P, R>, outcome: &ConversionEnd) {
    match &outcome.result {
        Ok(digest) => {
            let digest = digest.as_ref().map(<[u8; LEN]>::as_slice);
            reporter.complete(outcome.count, true, digest);
        }
        Err(failure) => {
            reporter.error(failure);
            reporter.complete(outcome.count, false, None);
        }
    }
    reporter.finish();
}

/// Sets up the conversion and runs it. Returns a failure if it could not begin. How a conversion
/// that has begun ended is its outcome.
fn execute<P, R, F>(
    parts: Parts<'_, P, R, F>,
    reporter: &mut Reporter<'_, P, R>,
) -> Result<ConversionEnd, Failure>
where
    P: Ports,
    R: Registers,
    F: FnMut(usize) -> Attached<R>,
{
    let Parts {
        ports,
        input,
        output,
        pool,
        others,
    } = parts;
    let config = configure(ports, reporter)?;
    let (parser_memory, pool) = pool.split_at(PARSER_MEMORY);
    let mut places = vec![input];
    let backings = BACKING_SLOT..BACKING_SLOT + config.backing_lengths.len();
    places.extend(backings.map(others));
    let mut lengths = vec![config.input_length];
    lengths.extend(&config.backing_lengths);
    let mut sources = Vec::new();
    for (index, (place, length)) in places.into_iter().zip(lengths).enumerate() {
        let device = attach(source_name(index), place, Purpose::Read, reporter)?;
        let list = config.data.get(index);
        let holes = list.map(|list| FileHoles::new(list, length));
        sources.push(Source::new(device, length, holes.unwrap_or_default()));
    }
    let output = attach(OUTPUT, output, Purpose::Write, reporter)?;
    let mut disks = Disks::new(ports, sources, output, parser_memory);
    let wish = Wish {
        options: config.options,
        snapshot: &config.snapshot,
    };
    let mut chain = BackingChain::open(&mut disks, &wish)?;
    let size = chain.size();
    reporter.capacity(source_name(0), size);
    let is_raw = config.output_format == ConvertFormat::Raw;
    // The VMM compares this, as the length of the output, with its limit. The length of an image
    // with tables is known only at the end.
    if is_raw {
        reporter.capacity(OUTPUT, size);
    }
    let limit = config.options.largest_disk;
    let room = disks.output.config().capacity.saturating_mul(SECTOR);
    if is_raw && size > limit {
        // A raw output is as long as the disk, so that the limit of the one is that of the other.
        return Err(too_large(size));
    }
    if is_raw && size > room {
        return Err(no_room(size));
    }
    let schedule = Schedule::new(size.div_ceil(SECTOR), config.progress_percent);
    let mut progress = Scheduled::new(schedule, reporter);
    let mut pool = Pool::new(pool);
    let hasher = config.digest.then(|| Hasher::new(size));
    let output = Output {
        format: config.output_format,
        room: room.min(limit),
    };
    let (chain, disks, pool) = (&mut chain, &mut disks, &mut pool);
    let outcome = Engine::new(chain, disks, pool, &mut progress, hasher, output)?.run();
    if outcome.result.is_ok() && !is_raw {
        reporter.capacity(OUTPUT, outcome.length);
    }
    if chain.is_short() {
        reporter.short();
    }
    Ok(outcome)
}

/// The failure of a disk of `size` bytes that is larger than it may be, though the image was opened.
fn too_large(size: u64) -> Failure {
    let reason = Reason::VirtualSize;
    let finding = Finding {
        reason,
        at: 0,
        value: size,
    };
    Failure {
        remedies: vec![reason.name()],
        ..refused(0, &finding)
    }
}

/// Waits for the configuration, and takes it.
fn configure<P: Ports, R: Registers>(
    ports: &P,
    reporter: &mut Reporter<'_, P, R>,
) -> Result<Config, Failure> {
    let mut buffer = [0; MAX_MESSAGE_LEN];
    let message = Uart::new(ports, COM1).receive_frame(&mut buffer);
    let message = message.map_err(|error| Failure::new(Op::Config, "vmm", &error))?;
    let config = Config::decode(message);
    let config = config.map_err(|error| Failure::new(Op::Config, "vmm", &error))?;
    reporter.init("config", "vmm", u64::from(COM1));
    Ok(config)
}

/// Initialises one disk, and reports each stage.
fn attach<P: Ports, R: Registers>(
    name: &'static str,
    place: Attached<R>,
    purpose: Purpose,
    reporter: &mut Reporter<'_, P, R>,
) -> Result<BlockDevice<R>, Failure> {
    let on_stage = |stage| match stage {
        Stage::Probe => reporter.init("probe", name, place.address),
        Stage::Features(features) => reporter.init("features", name, features),
        Stage::Queue(size) => reporter.init("queue", name, u64::from(size)),
    };
    let device = BlockDevice::init(place.registers, place.queue, purpose, SLOTS, on_stage)
        .map_err(|error| Failure::new(Op::Init, name, &error))?;
    let sector = device.config().sector_size;
    if u64::from(sector) != SECTOR {
        let detail = "the disk has sectors of another size than 512 bytes";
        return Err(Failure::new(Op::Init, name, &detail));
    }
    Ok(device)
}

#[cfg(test)]
#[path = "app_tests.rs"]
mod tests;
