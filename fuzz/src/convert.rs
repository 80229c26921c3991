//! The guest that converts an image, on images made as those of [`formats`](super::formats), with disks
//! that answer in any order. Whatever an image holds: nothing panics or hangs, the raw disk that is written
//! is what the parsers' tests read by themselves, with its digest, or the end is a refusal that says why;
//! and behind the disk nothing is written.
//!
//! The target and the guest's own tests include this file, so that the VMM's tests need no codecs.

use std::rc::Rc;

use arbitrary::Unstructured;
use guest_abi::layout::{INPUT_SLOT, OUTPUT_SLOT, registers};
use guest_convert::app::{Parts, run as run_guest};
use guest_formats::{Format, Options, Reason};
use guest_kit::digest::Hasher;
use guest_kit::hardware::Attached;
use guest_kit::program::EXIT_SUCCESS;
use guest_kit::testing::disk::FakeDisk;
use guest_kit::testing::memory::lend;
use guest_kit::testing::{Device, ports_with};
use guest_kit::virtio::block::{F_RO, F_WRITE_ZEROES};
use guest_protocol::{
    ConvertConfig, ConvertFormat, Digest, FrameDecoder, GuestMessage, Message, Payload,
    complete_with_digest,
};

use super::formats;

/// The largest disk that is converted. The output has more room.
const LARGEST_DISK: u64 = 2 << 20;
const ROOM: usize = (2 << 20) + 4096;
/// What the output holds before.
const OLD: u8 = 0xee;
/// What lies behind the end of an image, up to the end of its last sector.
const FILLING: u8 = 0xaa;
const QUEUE: usize = 0x1_0000;
const POOL: usize = 1 << 20;
/// Bits of the first byte: that the output takes declarations of zeros, and that the user allows all
/// that can be allowed. The others choose the order of answers.
pub const ZEROES: u8 = 0x80;
pub const ALLOWED: u8 = 0x40;

/// Converts what `bytes` stand for.
///
/// # Panics
///
/// When an invariant does not hold.
pub fn run(bytes: &[u8]) {
    is_converted(bytes);
}

/// The same; whether there was a disk to be written.
///
/// # Panics
///
/// When an invariant does not hold.
pub fn is_converted(bytes: &[u8]) -> bool {
    let Some((&order, rest)) = bytes.split_first() else {
        return false;
    };
    let work = |image: &[u8], claimed: Option<Format>| converted(image, claimed, order);
    // Running out of bytes is no more than the end of the input.
    formats::look(&mut Unstructured::new(rest), work).unwrap_or_default()
}

fn converted(image: &[u8], claimed: Option<Format>, order: u8) -> bool {
    let reasons = Reason::ALL.iter();
    let reasons = reasons.filter(|reason| order & ALLOWED != 0 && reason.may_be_allowed());
    let allow: Vec<_> = reasons.map(|reason| reason.name().to_string()).collect();
    let format = claimed.map_or("", Format::name);
    let options = Options::named(format, &allow).unwrap();
    let config = ConvertConfig {
        input_length: image.len() as u64,
        input_format: format.to_string(),
        output_format: ConvertFormat::Raw.into(),
        allow,
        progress_percent: 100,
        largest_disk: LARGEST_DISK,
        digest: Digest::Sha256.into(),
        ..ConvertConfig::default()
    };
    let mut file = image.to_vec();
    file.resize(image.len().next_multiple_of(512), FILLING);
    let input = FakeDisk::new(file, 512, order.into());
    input.get().features |= F_RO;
    let output = FakeDisk::new(vec![OLD; ROOM], 512, u64::from(order) + 1);
    if order & ZEROES != 0 {
        output.get().features |= F_WRITE_ZEROES;
    }
    let (status, said) = convert(&config, [&input, &output], order);
    let mut messages: Vec<GuestMessage> = Vec::new();
    let mut decoder = FrameDecoder::new();
    decoder
        .push(&said, |message| messages.push(message))
        .unwrap();
    assert!(!decoder.is_mid_frame());
    let end = messages.pop();
    let written = &output.get().data;
    if status != EXIT_SUCCESS {
        let reason = messages.pop().and_then(|message| message.payload);
        assert!(matches!(reason, Some(Payload::Error(_))), "{reason:?}");
        let Some(Payload::Complete(complete)) = end.and_then(|end| end.payload) else {
            panic!("a failure without an end");
        };
        assert!(!complete.success);
        return false;
    }
    let disk = formats::disk(image, &options);
    let sectors = disk.len().div_ceil(512);
    let mut hasher = Hasher::new(disk.len() as u64);
    hasher.data(0, &disk);
    let expected = complete_with_digest("convert", sectors as u64, &hasher.finish(), 0);
    assert_eq!(end, Some(expected));
    let (whole, rest) = written.split_at(sectors * 512);
    let (content, filling) = whole.split_at(disk.len());
    assert!(*content == disk, "another disk was written");
    assert!(filling.iter().all(|&byte| byte == 0));
    assert!(rest.iter().all(|&byte| byte == OLD), "more was written");
    true
}

/// Runs the guest with this configuration. Returns its exit status and what it said over COM1.
fn convert(
    config: &ConvertConfig,
    [input, output]: [&Rc<FakeDisk>; 2],
    order: u8,
) -> (u8, Vec<u8>) {
    let message = config.encode_to_vec();
    let len = u16::try_from(message.len()).unwrap().to_le_bytes();
    let devices = [input, output].map(|disk| Rc::clone(disk) as Rc<dyn Device>);
    let ports = ports_with(&[&len, &message[..]].concat(), devices, order.into());
    let attached = |disk, slot, queue| Attached {
        registers: disk,
        address: registers(slot),
        queue,
    };
    let status = lend([QUEUE, QUEUE, POOL], |[first, second, pool]| {
        run_guest(Parts {
            ports: &ports,
            input: attached(input, INPUT_SLOT, first),
            output: attached(output, OUTPUT_SLOT, second),
            pool,
            others: |slot| panic!("there is no device in slot {slot}"),
        })
    });
    (status, ports.com1())
}
