//! Bytes that may be an image, through the parsers that the guest has for them: good images of each
//! format with some bytes changed and their checksums made right again, images of zeros with some
//! bytes in them, and any bytes. Whatever they hold: nothing panics, nothing behind the end is read,
//! and the work for headers, for each answer and for a check is bounded. What must hold is in the
//! parsers' own tests, which this shares with them.

#[path = "../../guest/formats/tests/support/mod.rs"]
mod support;

use std::cell::RefCell;
use std::ops::Range;

use arbitrary::{Result, Unstructured};
use guest_formats::{Format, Options};

use super::Seed;
use super::encoder::Encoder;
use support::exercise::{FORMATS, exercise};
use support::mutate::{images, place, seal};

/// Names of the good images, in their order.
const NAMES: [&str; 10] = [
    "qcow2-small",
    "qcow2",
    "qcow2-extended",
    "vhd-dynamic",
    "vhd-fixed",
    "vdi",
    "vmdk-sparse",
    "vmdk-stream",
    "vhdx",
    "vhdx-log",
];
const MAX_CHANGES: usize = 16;
/// The longest image that is made of zeros.
const MAX_ZEROS: usize = 64 << 10;
/// A VHDX of less has no room for its headers, whose checksums could be made right.
const LEAST_SEALED: usize = 1536;
/// Bits of the first byte, above the number of a format: what is made, and how.
const GOOD: u8 = 0x10;
const ZEROS: u8 = 0x18;
const SEALED: u8 = 0x20;
const CUT: u8 = 0x40;

/// A good image, as it is and with changes.
struct Base {
    good: Vec<u8>,
    changed: Vec<u8>,
}

thread_local! {
    static BASES: RefCell<Vec<Base>> = const { RefCell::new(Vec::new()) };
}

/// Looks at what `bytes` stand for.
///
/// # Panics
///
/// When an invariant does not hold.
pub fn run(bytes: &[u8]) {
    is_read(bytes);
}

/// The same; whether there is a disk in it.
///
/// # Panics
///
/// When an invariant does not hold.
pub fn is_read(bytes: &[u8]) -> bool {
    // Running out of bytes is no more than the end of the input.
    look(&mut Unstructured::new(bytes), exercise).unwrap_or_default()
}

/// The disk of an image that can be opened with `options`, as the parsers' tests read it, with zeros
/// for what it takes from a file that there is not.
///
/// # Panics
///
/// If it cannot be read.
#[allow(dead_code, reason = "the VMM's tests convert nothing")]
pub fn disk(image: &[u8], options: &Options) -> Vec<u8> {
    let mut opened = support::open_with(image, options).unwrap();
    support::contents(&mut opened, image, Some(&[])).unwrap()
}

/// Has `work` look at the image that the bytes stand for, as the format that a user says it has.
pub fn look(
    u: &mut Unstructured<'_>,
    work: impl FnOnce(&[u8], Option<Format>) -> bool,
) -> Result<bool> {
    let setup: u8 = u.arbitrary()?;
    let claimed = FORMATS[usize::from(setup & 7)];
    Ok(match setup & 0x18 {
        0 | 8 => work(u.bytes(u.len())?, claimed),
        GOOD => changed(u, setup, |image| work(image, claimed))?,
        _ => work(&zeros(u, setup)?, claimed),
    })
}

/// A good image with changes, which is good again afterwards: to copy all of it takes longer than to
/// look into it.
fn changed(u: &mut Unstructured<'_>, setup: u8, work: impl FnOnce(&[u8]) -> bool) -> Result<bool> {
    let index = u.int_in_range(0..=NAMES.len() - 1)?;
    let changes = changes(u)?;
    let cut: u32 = if setup & CUT != 0 { u.arbitrary()? } else { 0 };
    BASES.with_borrow_mut(|bases| {
        if bases.is_empty() {
            bases.extend(images(true).into_iter().map(|good| Base {
                changed: good.clone(),
                good,
            }));
        }
        let Base { good, changed } = &mut bases[index];
        let mut places = seals(good.len());
        for (at, kind, value) in changes {
            let at = place(at, kind, good.len());
            let len = value.len().min(good.len() - at);
            changed[at..at + len].copy_from_slice(&value[..len]);
            places.push(at..at + len);
        }
        if setup & SEALED != 0 {
            seal(changed);
        }
        let end = match setup & CUT {
            0 => good.len(),
            _ => cut as usize % good.len(),
        };
        let result = work(&changed[..end]);
        for place in places {
            changed[place.clone()].copy_from_slice(&good[place]);
        }
        Ok(result)
    })
}

/// Where checksums are made right in an image of `len` bytes.
fn seals(len: usize) -> Vec<Range<usize>> {
    const MIB: usize = 1 << 20;
    let headers = [64 << 10, 128 << 10, 192 << 10, MIB, MIB + 8192];
    let fields = headers.map(|at| at..at + 16);
    let footers = [0..LEAST_SEALED, len - 512..len];
    let all = footers.into_iter().chain(fields);
    all.filter(|place| place.end <= len).collect()
}

/// An image of zeros, with some bytes in it.
fn zeros(u: &mut Unstructured<'_>, setup: u8) -> Result<Vec<u8>> {
    let mut image = vec![0; u.int_in_range(1..=MAX_ZEROS)?];
    for (at, _, value) in changes(u)? {
        let at = at as usize % image.len();
        let len = value.len().min(image.len() - at);
        image[at..at + len].copy_from_slice(&value[..len]);
    }
    let is_vhdx = image.starts_with(b"vhdxfile");
    if setup & SEALED != 0 && image.len() >= LEAST_SEALED && !is_vhdx {
        seal(&mut image);
    }
    Ok(image)
}

/// Where something is to be changed, of which kind the place is, and to what.
fn changes(u: &mut Unstructured<'_>) -> Result<Vec<(u32, u8, Vec<u8>)>> {
    let mut changes = Vec::new();
    while !u.is_empty() && changes.len() < MAX_CHANGES {
        let (at, kind) = (u.arbitrary()?, u.arbitrary()?);
        let len = u.int_in_range(1..=64)?.min(u.len());
        changes.push((at, kind, u.bytes(len)?.to_vec()));
    }
    Ok(changes)
}

/// Each good image as it is, and the beginnings of others, which the fuzzer starts from; whether
/// there is a disk in it.
pub fn seeds() -> Vec<(Seed, bool)> {
    let good = NAMES.iter().enumerate().map(|(index, name)| {
        let mut bytes = Encoder::default();
        bytes.byte(GOOD | SEALED);
        bytes.int(index as u64, 0..=NAMES.len() as u64 - 1);
        ((*name, bytes.finish()), true)
    });
    let sector = |signature: &[u8]| {
        let mut bytes = vec![0];
        bytes.extend_from_slice(signature);
        bytes.resize(513, 0);
        bytes
    };
    let mut mbr = sector(b"");
    mbr[511..].copy_from_slice(&[0x55, 0xaa]);
    mbr[451] = 0x83;
    let mut raw = sector(b"any bytes");
    raw[0] = 1;
    let mut zeros = Encoder::default();
    zeros.byte(ZEROS | SEALED);
    zeros.int(8191, 1..=MAX_ZEROS as u64);
    zeros.raw(&[0; 5]);
    zeros.int(12, 1..=64);
    zeros.raw(b"QFI\xfb\0\0\0\x03\0\0\0\0");
    let qcow2_header = ("qcow2-header", zeros.finish());
    // An image of another format that says it is a VHDX has no room for the checksums of one.
    let mut short = Encoder::default();
    short.byte(GOOD | SEALED);
    short.int(0, 0..=NAMES.len() as u64 - 1);
    short.raw(&[0; 4]);
    short.byte(10);
    short.int(8, 1..=64);
    short.raw(b"vhdxfile");
    let vhdx_short = ("vhdx-short", short.finish());
    let others = [
        (("qed", sector(b"QED\0")), false),
        (
            ("descriptor", sector(b"# Disk DescriptorFile\nversion=1\n")),
            false,
        ),
        (("luks", sector(b"LUKS\xba\xbe\0\x01")), false),
        (("mbr", mbr), true),
        (("claimed-raw", raw), true),
        (qcow2_header, false),
        (vhdx_short, false),
    ];
    good.chain(others).collect()
}
