//! What the tests share: a source that counts, a reader of whole disks, and a writer for each
//! format that owes nothing to the parsers.
#![allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "each test binary uses a part of this, and a failure in a test is to panic"
)]

pub(crate) mod bytes;
pub(crate) mod exercise;
pub(crate) mod mutate;
pub(crate) mod qcow2;
pub(crate) mod vdi;
pub(crate) mod vhd;
pub(crate) mod vhdx;
pub(crate) mod vmdk;

use std::io::{Read, Write};

use guest_formats::qcow2::Qcow2;
use guest_formats::{
    Codec, Compressed, Content, Error, Image, Info, Mapping, Options, ReadAt, ReadError, Reason,
    ReasonSet, examine, inspect,
};

/// An image in memory that counts what is read of it.
pub(crate) struct Counting<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) reads: u64,
    pub(crate) read_bytes: u64,
}

impl<'a> Counting<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            reads: 0,
            read_bytes: 0,
        }
    }
}

impl ReadAt for Counting<'_> {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        self.reads += 1;
        self.read_bytes += buffer.len() as u64;
        let mut bytes = self.bytes;
        let result = bytes.read_at(offset, buffer);
        assert!(
            result.is_ok(),
            "a read of {} bytes at {offset} is outside",
            buffer.len()
        );
        result
    }
}

/// Options that allow `reasons`.
pub(crate) fn allowing(reasons: &[Reason]) -> Options {
    let all = reasons
        .iter()
        .fold(ReasonSet::EMPTY, |set, reason| set.with(*reason));
    Options {
        allowed: all,
        ..Options::default()
    }
}

/// Options that claim raw.
pub(crate) fn raw() -> Options {
    Options {
        claimed: Some(guest_formats::Format::Raw),
        ..Options::default()
    }
}

pub(crate) fn info(image: &[u8]) -> Info {
    inspect(&mut { image }, &Options::default()).unwrap()
}

pub(crate) fn open(image: &[u8]) -> Result<Image, Error> {
    open_with(image, &Options::default())
}

/// An image that has to be one of qcow2.
pub(crate) fn open_qcow2(image: &[u8]) -> Qcow2 {
    match open(image).unwrap() {
        Image::Qcow2(image) => image,
        other => panic!("{other:?} is no qcow2"),
    }
}

/// A qcow2 image for a check, whatever speaks against using it.
pub(crate) fn examine_qcow2(image: &[u8]) -> Qcow2 {
    match examine(&mut { image }, &Options::default()).unwrap() {
        (_, Some(Image::Qcow2(image))) => image,
        (info, _) => panic!("{info:?} cannot be checked"),
    }
}

pub(crate) fn open_with(image: &[u8], options: &Options) -> Result<Image, Error> {
    Image::open(&mut { image }, options).map(|(image, _)| image)
}

/// The whole disk of an image that is opened with `options`.
pub(crate) fn disk(bytes: &[u8], options: &Options) -> Result<Vec<u8>, Error> {
    let mut image = open_with(bytes, options)?;
    contents(&mut image, bytes, None)
}

/// The whole disk, with what the image lacks from `backing`.
pub(crate) fn contents(
    image: &mut Image,
    bytes: &[u8],
    backing: Option<&[u8]>,
) -> Result<Vec<u8>, Error> {
    let mut source = bytes;
    let mut disk = vec![0; image.virtual_size() as usize];
    let mut at = 0;
    while at < disk.len() {
        let mapping = image.map(&mut source, at as u64)?;
        assert!(mapping.length > 0 && mapping.length <= (disk.len() - at) as u64);
        let target = &mut disk[at..at + mapping.length as usize];
        match mapping.content {
            Content::Data { offset } => source.read_at(offset, target).unwrap(),
            Content::Zero => {}
            Content::Unwritten { offset } => {
                source.read_at(offset, target).unwrap();
                Mapping::unwritten(offset, target)?;
            }
            Content::Compressed(compressed) => {
                let whole = inflate(&compressed, bytes)?;
                let skip = compressed.skip as usize;
                target.copy_from_slice(&whole[skip..skip + target.len()]);
            }
            Content::Backing => {
                let backing = backing.expect("there is a backing file");
                let rest = backing.get(at..).unwrap_or_default();
                let there = rest.len().min(target.len());
                target[..there].copy_from_slice(&rest[..there]);
            }
        }
        at += mapping.length as usize;
    }
    Ok(disk)
}

/// A cluster, inflated: exactly as long as it has to be, or an error as of a bad read.
fn inflate(compressed: &Compressed, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let start = compressed.offset as usize;
    let frame = &bytes[start..start + compressed.length as usize];
    let payload = &frame[compressed.payload(frame)?];
    let size = compressed.size as usize;
    let offset = compressed.offset;
    let good = |good: bool| {
        if good {
            Ok(())
        } else {
            Err(Error::Read { offset })
        }
    };
    let mut out = vec![0; size];
    match compressed.codec {
        Codec::Deflate => {
            let written = inflate_with(payload, &mut out, 0);
            good(written == Some(size))?;
        }
        Codec::Zlib => {
            let flags = miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_PARSE_ZLIB_HEADER;
            let written = inflate_with(payload, &mut out, flags);
            good(written.is_some_and(|written| written >= compressed.least as usize))?;
        }
        Codec::Zstd => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(payload);
            let read = decoder.ok().map(|mut decoder| decoder.read_exact(&mut out));
            good(matches!(read, Some(Ok(()))))?;
        }
    }
    Ok(out)
}

fn inflate_with(payload: &[u8], out: &mut [u8], flags: u32) -> Option<usize> {
    use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};
    let whole = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let mut state = Box::new(DecompressorOxide::new());
    let (status, _, written) = decompress(&mut state, payload, out, 0, flags | whole);
    let done = miniz_oxide::inflate::TINFLStatus::Done;
    (status == done).then_some(written)
}

/// A Zstandard frame that holds `data` in raw blocks (RFC 8878, section 3.1.1).
pub(crate) fn zstd(data: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0b1010_0000];
    frame.extend((data.len() as u32).to_le_bytes());
    let blocks = data.chunks(128 << 10);
    let last = blocks.len() - 1;
    for (index, block) in blocks.enumerate() {
        let header = (block.len() as u32) << 3 | u32::from(index == last);
        frame.extend(&header.to_le_bytes()[..3]);
        frame.extend(block);
    }
    frame
}

/// The reason for which an image is refused: when it is opened, or when its disk is read.
pub(crate) fn refusal(image: &[u8], options: &Options) -> Option<Reason> {
    let opened = open_with(image, options);
    let mut image_open = match opened {
        Ok(image) => image,
        Err(error) => return error.reason(),
    };
    let mut source = image;
    let mut at = 0;
    for _ in 0..100_000 {
        if at >= image_open.virtual_size() {
            return None;
        }
        match image_open.map(&mut source, at) {
            Ok(mapping) => at += mapping.length,
            Err(error) => return error.reason(),
        }
    }
    panic!("the disk has too many pieces for a test");
}

/// Says that the current test is skipped. Not with `eprintln!`, which the test runner captures; and to the
/// list of whoever sums up several targets (`TESTS_IGNORED`).
pub(crate) fn skip(reason: &str) {
    let thread = std::thread::current();
    let line = format!("skipped {}: {reason}\n", thread.name().unwrap_or("a test"));
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("TESTS_IGNORED") {
        let list = std::fs::File::options()
            .append(true)
            .create(true)
            .open(path);
        list.unwrap()
            .write_all(format!("{reason}\n").as_bytes())
            .unwrap();
    }
}

/// Bytes that look random and are the same each time.
pub(crate) fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// How the unit of a format (a cluster, grain or block) is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    Hole,
    Zero,
    /// Zero, although a cluster with other bytes is allocated for it.
    ZeroAllocated,
    Data,
    Compressed,
}

/// A disk with a unit for each of `puts`, whose last may be short.
pub(crate) fn disk_of(puts: &[Put], unit: usize, size: usize) -> Vec<u8> {
    let mut disk = Vec::with_capacity(size);
    for (index, put) in puts.iter().enumerate() {
        match put {
            Put::Data => disk.extend(pattern(index as u64 + 1, unit)),
            Put::Compressed => disk.extend((0..unit).map(|at| (at / 64 + index + 1) as u8)),
            Put::Hole | Put::Zero | Put::ZeroAllocated => disk.resize(disk.len() + unit, 0),
        }
    }
    disk.truncate(size);
    disk
}
