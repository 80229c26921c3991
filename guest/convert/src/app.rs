//! A conversion from beginning to end: it takes the configuration, sets up the disks, opens the
//! images, converts, and reports each of these steps.

use alloc::vec;
use alloc::vec::Vec;

use guest_abi::layout::BACKING_SLOT;
use guest_abi::ports::COM1;
use guest_formats::{Finding, Reason};
use guest_kit::digest::{Hasher, LEN};
use guest_kit::dma::DmaRegion;
use guest_kit::failure::{Failure, Op};
use guest_kit::hardware::{Attached, Ports, Registers};
use guest_kit::program::{self, EXIT_FAILURE, EXIT_SUCCESS, VMM};
use guest_kit::progress::{Schedule, Scheduled};
use guest_kit::report::Reporter;
use guest_kit::serial::debug;
use guest_kit::virtio::block::{BlockDevice, Purpose};
use guest_protocol::{ConvertFormat, FindingMessage, Payload, info_message};

use crate::SECTOR;
use crate::backing_chain::{BackingChain, Wish};
use crate::config::Config;
use crate::disks::{Disks, OUTPUT, Source, source_name};
use crate::engine::{Engine, LONGEST_REQUEST, Output, SLOTS, no_room};
use crate::failure::refused;
use crate::holes::FileHoles;
use crate::pool::{PAGE, Pool};

/// The name that messages have for a conversion.
const CONVERT: &str = "convert";
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
    let mut reporter = Reporter::new(ports, CONVERT);
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

/// Reports that zeros stand for what the last image takes from a file that was not given.
fn report_short<P: Ports, R: Registers>(reporter: &mut Reporter<'_, P, R>) {
    let reason = Reason::BackingFile;
    let finding = FindingMessage {
        name: reason.name().into(),
        text: reason.message().into(),
        allowed: true,
        ..FindingMessage::default()
    };
    let message = info_message(Payload::Finding(finding));
    reporter.channel.message(&message);
    reporter.channel.flush();
}

/// Reports how the run has ended.
fn conclude<P: Ports, R: Registers>(reporter: &mut Reporter<'_, P, R>, outcome: &ConversionEnd) {
    match &outcome.result {
        Ok(Some(digest)) => reporter.complete_with(outcome.count, digest, 0),
        Ok(None) => reporter.complete(outcome.count, true),
        Err(failure) => {
            reporter.error(failure);
            reporter.complete(outcome.count, false);
        }
    }
    reporter.channel.finish();
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
    let config = program::configure(ports, Config::decode)?;
    reporter.init("config", VMM, u64::from(COM1));
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
    tell_capacity(source_name(0), size, reporter);
    let is_raw = config.output_format == ConvertFormat::Raw;
    // The VMM compares this, as the length of the output, with its limit. The length of an image
    // with tables is known only at the end.
    if is_raw {
        tell_capacity(OUTPUT, size, reporter);
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
        tell_capacity(OUTPUT, outcome.length, reporter);
    }
    if chain.is_short() {
        report_short(reporter);
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

/// Starts one disk, and reports each stage.
fn attach<P: Ports, R: Registers>(
    name: &'static str,
    place: Attached<R>,
    purpose: Purpose,
    reporter: &mut Reporter<'_, P, R>,
) -> Result<BlockDevice<R>, Failure> {
    let device = program::attach(name, place, purpose, SLOTS, |stage, number| {
        reporter.init(stage, name, number);
    })?;
    let sector = device.config().sector_size;
    if u64::from(sector) != SECTOR {
        let detail = "the disk has sectors of another size than 512 bytes";
        return Err(Failure::new(Op::Init, name, &detail));
    }
    let (slots, most) = (device.slots(), device.config().size_max);
    if slots < SLOTS || most < LONGEST_REQUEST {
        let detail = format_args!(
            "the disk takes {slots} requests of {most} bytes at once; {SLOTS} of {LONGEST_REQUEST} \
             are needed"
        );
        return Err(Failure::new(Op::Init, name, &detail));
    }
    Ok(device)
}

/// Reports at once that `device` has `bytes` bytes, or will have them once it is written.
fn tell_capacity<P: Ports, R: Registers>(
    device: &str,
    bytes: u64,
    reporter: &mut Reporter<'_, P, R>,
) {
    reporter.capacity(device, bytes.div_ceil(SECTOR), bytes);
    reporter.channel.flush();
}

#[cfg(test)]
#[path = "app_tests.rs"]
mod tests;
