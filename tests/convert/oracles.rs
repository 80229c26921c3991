//! Other readers of images: libraries in Python that have nothing in common with the parsers here read
//! the disks in the same images. `make test-oracles` installs them and says where they are.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::process::Command;

use crate::Conversion;
use crate::common::qemu::{qemu, text};
use crate::common::{kvm_is_usable, needs_qemu, skip, test};
use crate::own::PUTS;
use crate::qemu::source;
use crate::support::Put::{Data, Hole, Zero, ZeroAllocated};
use crate::support::qcow2::Qcow2;
use crate::support::vdi;
use crate::support::vhd::Vhd;
use crate::support::vhdx::Vhdx;
use crate::support::vmdk::Vmdk;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracles/read.py");

/// The Python that has the libraries.
fn python() -> Option<OsString> {
    let python = std::env::var_os("VMM_ORACLES");
    if python.is_none() {
        skip("the other readers of images are run by make test-oracles");
    }
    python.filter(|_| kvm_is_usable())
}

/// What a library is known not to read: its name, the format, a part of the image's name, and how its
/// outcome begins. docs/testing.md has the same table.
const KNOWN: [(&str, &str, &str, &str); 5] = [
    ("dissect", "vmdk", "subformat", "cannot"),
    ("libvmdk", "vmdk", "grains of 4096", "cannot"),
    ("libqcow", "qcow2", "zstd true", "cannot"),
    ("libqcow", "qcow2", "type=zstd", "cannot"),
    // Of two compressed clusters one behind the other it gives the first one twice, where qemu-img and
    // dissect read what the VMM reads.
    ("libqcow", "qcow2", "compressed", "differs"),
];

/// The numbers of those of [`KNOWN`] that were met.
type Met = BTreeSet<usize>;

/// Whether this is known; notes it.
fn is_known(kind: &str, reader: &str, outcome: &str, name: &str, met: &mut Met) -> bool {
    let known = KNOWN.iter().position(|(who, what, part, how)| {
        (*who, *what) == (reader, kind) && name.contains(part) && outcome.starts_with(how)
    });
    met.extend(known);
    known.is_some()
}

/// Converts the image, and has it read by each library: at least one finds the same disk, and so do all
/// of which nothing else is known.
fn judge(python: &OsString, kind: &str, name: &str, conversion: &Conversion, met: &mut Met) {
    let disk = conversion.convert();
    fs::write(conversion.disk(), disk).unwrap();
    let read = Command::new(python)
        .args([SCRIPT, kind])
        .args([conversion.image(), conversion.disk()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&read.stdout);
    assert!(read.status.success(), "{read:?}");
    let outcomes = said.lines().filter_map(|line| line.split_once(' '));
    let outcomes: Vec<_> = outcomes
        .filter(|(reader, outcome)| !is_known(kind, reader, outcome, name, met))
        .collect();
    let same = |(_, outcome): &(&str, &str)| *outcome == "same";
    let agree = !outcomes.is_empty() && outcomes.iter().all(same);
    assert!(agree, "{kind}, {name}: {said}");
}

#[test]
fn other_readers_find_the_same_disks_in_images_of_our_own_writers() {
    let Some(python) = python() else {
        return;
    };
    let met = &mut Met::new();
    for bits in [9, 12, 16, 21] {
        for zstd in [false, true] {
            let mut image = Qcow2::new(bits, &PUTS);
            image.zstd = zstd;
            let name = format!("{bits} bits, compressed, zstd {zstd}");
            judge(
                &python,
                "qcow2",
                &name,
                &Conversion::of(&image.build().bytes),
                met,
            );
        }
        let plain = Qcow2::new(bits, &[Data, Hole, Zero, Data, ZeroAllocated, Data]);
        let name = format!("{bits} bits");
        judge(
            &python,
            "qcow2",
            &name,
            &Conversion::of(&plain.build().bytes),
            met,
        );
    }
    let puts = [Data, Hole, Data, Data];
    for unit in [4096, 65536] {
        for stream in [false, true] {
            let image = Vmdk::new(stream, &puts, unit, 4 * unit).build();
            judge(
                &python,
                "vmdk",
                &format!("stream {stream}, grains of {unit}"),
                &Conversion::of(&image),
                met,
            );
        }
    }
    for fixed in [false, true] {
        let puts = if fixed { [Data; 4] } else { puts };
        let image = Vhd::new(fixed, &puts, 2 << 20, 8 << 20).build();
        judge(
            &python,
            "vhd",
            &format!("fixed {fixed}"),
            &Conversion::of(&image),
            met,
        );
        let image = vdi::build(fixed, &puts, 1 << 20, 4 << 20);
        judge(
            &python,
            "vdi",
            &format!("fixed {fixed}"),
            &Conversion::of(&image),
            met,
        );
    }
    let image = Vhdx::new(&[Data, Hole, Zero, Data], 1 << 20, 4 << 20).build();
    judge(&python, "vhdx", "dynamic", &Conversion::of(&image), met);
    assert_eq!(*met, Met::from([1, 2, 4]), "what is known is no longer so");
}

#[test]
fn other_readers_find_the_same_disks_in_images_of_qemu_img() {
    let Some(python) = python() else {
        return;
    };
    needs_qemu!("qemu-img");
    let met = &mut Met::new();
    for (kind, format, options) in [
        ("qcow2", "qcow2", "cluster_size=512"),
        ("qcow2", "qcow2", "compat=0.10"),
        ("qcow2", "qcow2", "refcount_bits=1"),
        ("qcow2", "qcow2", "compressed cluster_size=4k"),
        ("qcow2", "qcow2", "compressed cluster_size=2M"),
        ("qcow2", "qcow2", "compressed compression_type=zstd"),
        ("vmdk", "vmdk", "subformat=monolithicSparse"),
        ("vmdk", "vmdk", "subformat=streamOptimized"),
        ("vhd", "vpc", "subformat=dynamic"),
        ("vhd", "vpc", "subformat=fixed,force_size=on"),
        ("vhdx", "vhdx", "subformat=dynamic"),
        ("vhdx", "vhdx", "subformat=fixed"),
        ("vdi", "vdi", "static=off"),
        ("vdi", "vdi", "static=on"),
    ] {
        let conversion = Conversion::new();
        let (raw, image) = (conversion.path("raw"), conversion.image());
        fs::write(&raw, source()).unwrap();
        let mut arguments = vec!["convert", "-f", "raw", "-O", format, "-o"];
        match options.split_once(' ') {
            Some((_, values)) => arguments.extend([values, "-c"]),
            None => arguments.push(options),
        }
        arguments.extend([text(&raw), text(&image)]);
        qemu("qemu-img", &arguments);
        judge(&python, kind, options, &conversion, met);
    }
    assert_eq!(*met, Met::from([0, 3, 4]), "what is known is no longer so");
}
