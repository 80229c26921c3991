//! Images that lie, through the whole machine: each is refused for a reason that it has, or converted
//! right, and no output is left. The tables of lies are those of the parsers' own tests.

#[path = "../../guest/formats/tests/hostile/mod.rs"]
mod cases;

use std::time::Duration;

use guest_formats::{Options, Reason};

use crate::common::{kvm_is_usable, needs_kvm, test};
use crate::support::Put::{Compressed, Data, Zero};
use crate::support::bytes::{be32, be64, le64, put};
use crate::support::mutate::{images, place, seal};
use crate::support::qcow2::Qcow2;
use crate::support::vmdk::{Vmdk, descriptor};
use crate::support::{disk, pattern};
use crate::{Conversion, REFUSED, assert_same};

/// The longest that one image may take on processors: others may use the host as well.
const LONGEST: Duration = Duration::from_secs(2);

/// Converts the image, and compares what comes of it with what the parsers say.
fn judge(name: &str, bytes: &[u8], options: &Options, expected: Option<Reason>) {
    if !kvm_is_usable() {
        return;
    }
    let conversion = Conversion::of(bytes).with(options);
    let finished = conversion.run();
    assert!(finished.cpu < LONGEST, "{name}: {:?}", finished.cpu);
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
    let mut against = cases::reasons(bytes, options);
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

/// What only a check finds does not keep the disk from being read, unless it is where data is inflated.
fn judge_check(name: &str, bytes: &[u8], _problem: &str) {
    judge(name, bytes, &Options::default(), None);
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

/// CVE-2014-0143, 0145 and 0146: numbers of a snapshot that send a reader astray. They are looked at when
/// the snapshot is to be read.
#[test]
fn a_snapshot_that_lies_is_refused_when_it_is_to_be_converted() {
    needs_kvm!();
    let mut image = Qcow2::new(16, &[Data, Zero]);
    image.snapshots = vec![("1", "one"), ("2", "two")];
    let good = image.build();
    let convert = |bytes: &[u8]| Conversion::of(bytes).arg("--snapshot=one").run();
    assert_eq!(convert(&good.bytes).code(), Some(0));
    // An entry: where its L1 table is, how many entries that has, lengths of the id and the name,
    // seconds, the state of a VM, the length of what follows, and behind that the disk's size.
    type Change = fn(&mut Vec<u8>, usize);
    let changes: [(&str, Change); 16] = [
        ("an L1 table at 513", |b, at| be64(b, at, 513)),
        ("an L1 table in the header", |b, at| be64(b, at, 0)),
        ("an L1 table behind the end", |b, at| be64(b, at, 1 << 40)),
        ("an L1 table at 2^64", |b, at| be64(b, at, !0xffff)),
        ("the L1 table of snapshots", |b, at| be64(b, at, at as u64)),
        ("no entries", |b, at| be32(b, at + 8, 0)),
        ("2^32 - 1 entries", |b, at| be32(b, at + 8, u32::MAX)),
        ("2^25 entries", |b, at| be32(b, at + 8, 1 << 25)),
        ("a long id", |b, at| put(b, at + 12, &[0xff; 2])),
        ("a long name", |b, at| put(b, at + 14, &[0xff; 2])),
        ("4 GiB more", |b, at| be32(b, at + 36, u32::MAX)),
        ("2 GiB more", |b, at| be32(b, at + 36, 1 << 31)),
        ("a disk of 2^64 bytes", |b, at| be64(b, at + 48, u64::MAX)),
        ("a disk of 2^63 bytes", |b, at| be64(b, at + 48, 1 << 63)),
        ("a disk of 1 PiB", |b, at| be64(b, at + 48, 1 << 50)),
        ("a larger disk", |b, at| be64(b, at + 48, 1 << 40)),
    ];
    for (name, change) in changes {
        let mut bytes = good.bytes.clone();
        change(&mut bytes, good.snapshots);
        let finished = convert(&bytes);
        let refused = finished.code().is_some_and(|code| REFUSED.contains(&code));
        assert!(refused, "{name}: {finished:?}");
        assert!(finished.cpu < LONGEST, "{name}: {:?}", finished.cpu);
        let reasons = Reason::ALL.iter();
        let mut named = reasons.filter(|reason| finished.stderr.contains(reason.name()));
        assert!(named.next().is_some(), "{name}: {finished:?}");
    }
}

/// Conversions of these are given up in time, and say why.
fn assert_too_much_work(name: &str, bytes: &[u8]) {
    let finished = Conversion::of(bytes).run();
    let code = finished.code();
    assert_eq!(code, Some(REFUSED[0]), "{name}: {}", finished.stderr);
    assert!(
        finished.stderr.contains("too-much-work"),
        "{name}: {}",
        finished.stderr
    );
    assert!(finished.cpu < LONGEST, "{name}: {:?}", finished.cpu);
}

/// CVE-2015-5162 and CVE-2018-10908, as the next two: small images that make work without end.
#[test]
fn one_cluster_shown_everywhere_is_not_written_without_end() {
    needs_kvm!();
    for kind in [Data, Compressed] {
        let built = Qcow2::new(16, &[kind; 600]).build();
        let mut bytes = built.bytes;
        let entry = bytes[built.first_l2..built.first_l2 + 8].to_vec();
        for index in 1..600 {
            put(&mut bytes, built.first_l2 + index * 8, &entry);
        }
        // Nothing of the file is left but what is shown.
        let data = u64::from_be_bytes(entry.try_into().unwrap()) & 0x0000_ffff_ffff_fe00;
        bytes.truncate(data as usize + 65536);
        assert_too_much_work(&format!("{kind:?}"), &bytes);
    }
}

/// Clusters of repeated bytes, which inflate to a thousand times as much and are all the same one:
/// 500 GiB from 2 MiB.
#[test]
fn a_bomb_of_one_compressed_cluster_is_given_up() {
    needs_kvm!();
    for zstd in [false, true] {
        let mut image = Qcow2::new(21, &[Compressed]);
        image.zstd = zstd;
        image.size = 512 << 30;
        let built = image.build();
        let mut bytes = built.bytes;
        let entry = bytes[built.first_l2..built.first_l2 + 8].to_vec();
        for index in 1..262_144 {
            put(&mut bytes, built.first_l2 + index * 8, &entry);
        }
        assert_too_much_work(&format!("zstd: {zstd}"), &bytes);
    }
}

#[test]
fn one_table_of_zeros_for_the_whole_disk_is_not_walked_without_end() {
    needs_kvm!();
    // An L2 table of 8,192 clusters that are zero, for each of 32,767 L1 entries: 16 TiB less one, which
    // is as much as a file of ext4 may have.
    let mut image = Qcow2::new(16, &[Zero]);
    image.size = 32_767 << 29;
    let built = image.build();
    let mut bytes = built.bytes;
    let entry = bytes[built.l1..built.l1 + 8].to_vec();
    be32(&mut bytes, 36, 32_767);
    // The L1 table needs more room than it had.
    let at = bytes.len().next_multiple_of(65536);
    bytes.resize(at + 32_768 * 8, 0);
    be64(&mut bytes, 40, at as u64);
    for index in 0..32_768 {
        put(&mut bytes, at + index * 8, &entry);
    }
    for index in 0..8192 {
        be64(&mut bytes, built.first_l2 + index * 8, 1);
    }
    assert_too_much_work("qcow2", &bytes);

    // A table of 512 grains of 512 bytes, for each of 1 Mi entries of the directory: 256 GiB.
    let mut image = Vmdk::new(false, &[Zero; 512], 512, 512 * 512);
    image.descriptor = descriptor("monolithicSparse", "RW 536870912 SPARSE \"disk.vmdk\"");
    let mut bytes = image.build();
    let table = bytes[2560..2564].to_vec();
    le64(&mut bytes, 12, 1 << 29);
    let at = bytes.len().next_multiple_of(512);
    bytes.resize(at + (4 << 20), 0);
    le64(&mut bytes, 56, (at / 512) as u64);
    for index in 0..1 << 20 {
        put(&mut bytes, at + index * 4, &table);
    }
    assert_too_much_work("VMDK", &bytes);
}
