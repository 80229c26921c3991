//! Images that lie, through the whole machine: each is refused for a reason that it has, or converted
//! right, and no output is left. The tables of lies are those of the parsers' own tests.

#[path = "../../guest/formats/tests/hostile/others.rs"]
mod others;
#[path = "../../guest/formats/tests/hostile/polyglots.rs"]
mod polyglots;
#[path = "../../guest/formats/tests/hostile/qcow2.rs"]
mod qcow2;

use std::time::{Duration, Instant};

use guest_formats::{Image, Options, Reason, inspect};

use crate::common::{kvm_is_usable, needs_kvm, test};
use crate::support::Put::{Compressed, Data};
use crate::support::mutate::{images, place, seal};
use crate::support::qcow2::Qcow2;
use crate::support::{disk, pattern};
use crate::{Conversion, REFUSED, assert_same};

/// The longest that one image may take, on a machine that has other things to do.
const LONGEST: Duration = Duration::from_secs(20);

/// All reasons that the parsers have against an image, those of its tables too.
fn reasons(bytes: &[u8], options: &Options) -> Vec<Reason> {
    let mut source = bytes;
    let info = inspect(&mut source, options).unwrap();
    let mut reasons: Vec<_> = info.findings.iter().map(|finding| finding.reason).collect();
    let Ok((mut image, _)) = Image::open(&mut source, options) else {
        return reasons;
    };
    let mut at = 0;
    for _ in 0..5000 {
        if at >= image.virtual_size() {
            break;
        }
        match image.map(&mut source, at) {
            Ok(extent) => at += extent.length,
            Err(error) => {
                reasons.push(error.reason().unwrap());
                break;
            }
        }
    }
    reasons
}

/// Converts the image, and compares what comes of it with what the parsers say.
fn judge(name: &str, bytes: &[u8], options: &Options, expected: Option<Reason>) {
    if !kvm_is_usable() {
        return;
    }
    let started = Instant::now();
    let conversion = Conversion::of(bytes).with(options);
    let finished = conversion.run();
    assert!(
        started.elapsed() < LONGEST,
        "{name}: {:?}",
        started.elapsed()
    );
    let said = &finished.stderr;
    if finished.code() == Some(0) {
        // A disk of which nobody knows what is in it cannot have been converted.
        let expected = disk(bytes, options).unwrap();
        assert_same(&crate::read(&conversion.disk()), &expected, name);
        return;
    }
    assert!(
        finished.code().is_some_and(|code| REFUSED.contains(&code)),
        "{name}: {said}"
    );
    let mut against = reasons(bytes, options);
    against.extend(expected);
    // What is found only where data is inflated or counted.
    against.extend([
        Reason::BadMarker,
        Reason::BadCompressedData,
        Reason::TooMuchWork,
    ]);
    // The limit of a conversion is lower than the one that a look has.
    against.push(Reason::VirtualSize);
    let named = against
        .iter()
        .any(|reason| said.contains(&format!("{}: ", reason.name())));
    assert!(named, "{name}: {said} is none of {against:?}");
}

/// `bytes` after `change`.
fn spoilt(bytes: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    change(&mut bytes);
    bytes
}

/// A change to an image, and the reason for which it is refused then.
type Case = (&'static str, fn(&mut Vec<u8>), Reason);

/// Each case, applied to `good`, is refused; `good` itself is not.
fn judge_all(good: &[u8], cases: &[Case]) {
    judge("the good image", good, &Options::default(), None);
    for (name, change, reason) in cases {
        let bytes = spoilt(good, change);
        judge(name, &bytes, &Options::default(), Some(*reason));
    }
}

#[test]
fn good_images_with_a_few_bytes_changed_are_converted_right_or_refused() {
    needs_kvm!();
    for (index, image) in images(false).iter().enumerate() {
        for round in 0..20_usize {
            let noise = pattern((index * 100 + round + 1) as u64, 64);
            let mut bytes = image.clone();
            for change in noise.chunks_exact(8).take(1 + round % 4) {
                let at = u32::from_le_bytes([change[0], change[1], change[2], 0]);
                let at = place(at, change[3], bytes.len());
                bytes[at] ^= change[4] | 1;
            }
            if round % 2 == 0 {
                seal(&mut bytes);
            }
            let name = format!("image {index}, round {round}");
            judge(&name, &bytes, &Options::default(), None);
        }
    }
}

#[test]
fn one_cluster_shown_everywhere_is_not_written_without_end() {
    needs_kvm!();
    let built = Qcow2::new(16, &[Data; 600]).build();
    let mut bytes = built.bytes;
    let entry = bytes[built.first_l2..built.first_l2 + 8].to_vec();
    for index in 1..600 {
        let at = built.first_l2 + index * 8;
        bytes[at..at + 8].copy_from_slice(&entry);
    }
    // Nothing of the file is left but what is shown.
    let data = (u64::from_be_bytes(entry.try_into().unwrap()) & 0x00ff_ffff_ffff_fe00) as usize;
    bytes.truncate(data + 65536);
    let finished = Conversion::of(&bytes).run();
    assert!(
        finished.code().is_some_and(|code| REFUSED.contains(&code)),
        "{}",
        finished.stderr
    );
    assert!(
        finished.stderr.contains("too-much-work"),
        "{}",
        finished.stderr
    );
}

#[test]
fn compressed_data_that_lies_is_refused() {
    needs_kvm!();
    for zstd in [false, true] {
        for bits in [12, 16, 20] {
            let mut image = Qcow2::new(bits, &[Compressed, Data, Compressed]);
            image.zstd = zstd;
            let built = image.build();
            let at = built.first_l2;
            let entry = u64::from_be_bytes(built.bytes[at..at + 8].try_into().unwrap());
            let offset = (entry & ((1 << (62 - (bits - 8))) - 1)) as usize;
            for (change, position) in [(0xff_u8, 0), (0x55, 1), (0x81, 6), (0x10, 9)] {
                let bytes = spoilt(&built.bytes, |bytes| bytes[offset + position] ^= change);
                let finished = Conversion::of(&bytes).run();
                // A byte may be one of the data: then the disk has it, too.
                if finished.code() != Some(0) {
                    assert_eq!(finished.code(), Some(6), "{}", finished.stderr);
                    assert!(finished.stderr.contains("bad-compressed-data"));
                }
            }
        }
    }
}
