//! Good images, and how to change a few bytes of them where it matters.

use super::Put::{Compressed, Data, Hole, Zero, ZeroAllocated};
use super::vdi;
use super::vhd::Vhd;
use super::vhdx::Vhdx;
use super::vmdk::Vmdk;

/// Good images of every format that is read; those of qcow2 with a backing file if that is wanted.
pub(crate) fn images(backing: bool) -> Vec<Vec<u8>> {
    let puts = [Data, Compressed, Hole, Zero, ZeroAllocated, Data];
    let qcow2 = |bits, extended: bool| {
        let mut image = super::qcow2::Qcow2::new(bits, &puts);
        image.extended = extended;
        image.snapshots = vec![("1", "one")];
        image.backing = backing.then_some("base");
        image.build().bytes
    };
    let mut log = Vhdx::new(&[Data, Hole], 1 << 20, 2 << 20);
    log.bat_in_log = true;
    vec![
        qcow2(9, false),
        qcow2(12, false),
        qcow2(14, true),
        Vhd::new(false, &[Data, Hole, Data], 4096, 12_288).build(),
        Vhd::new(true, &[Data], 4096, 4096).build(),
        vdi::build(false, &[Data, Zero, Hole], 4096, 12_288),
        Vmdk::new(false, &[Data, Hole, Zero], 4096, 12_288).build(),
        Vmdk::new(true, &[Data, Hole, Zero], 4096, 12_288).build(),
        Vhdx::new(&[Data, Hole], 1 << 20, 2 << 20).build(),
        log.build(),
    ]
}

/// A place in an image: mostly one where a table or a header is.
pub(crate) fn place(at: u32, kind: u8, length: usize) -> usize {
    const TABLES: [usize; 9] = [
        0,
        1 << 16,
        192 << 10,
        1 << 20,
        (1 << 20) + 8192,
        2 << 20,
        (2 << 20) + (64 << 10),
        3 << 20,
        4096,
    ];
    let at = at as usize;
    match kind % 12 {
        table @ 0..=8 => (TABLES[usize::from(table)] + at % 256) % length,
        9 => length - 1 - at % length.min(1536),
        10 => at % length.min(8192),
        _ => at % length,
    }
}

/// Makes the checksums right again, so that the change is seen.
pub(crate) fn seal(bytes: &mut Vec<u8>) {
    if bytes.starts_with(b"vhdxfile") {
        // What begins like a VHDX need not be as long as one.
        for (at, length) in [(64 << 10, 4096), (128 << 10, 4096), (192 << 10, 64 << 10)] {
            if bytes.len() >= at + length {
                super::vhdx::seal(bytes, at, length);
            }
        }
        for at in [1 << 20, (1 << 20) + 8192] {
            let entry = bytes.get(at..at + 8192);
            if entry.is_some_and(|entry| entry.starts_with(b"loge")) {
                super::vhdx::seal(bytes, at, 8192);
            }
        }
    }
    let end = bytes.len() - 512;
    for at in [0, end] {
        if bytes[at..].starts_with(b"conectix") {
            let mut footer = bytes[at..at + 512].to_vec();
            super::vhd::seal(&mut footer, 64);
            bytes[at..at + 512].copy_from_slice(&footer);
        }
    }
    if bytes
        .get(512..)
        .is_some_and(|rest| rest.starts_with(b"cxsparse"))
    {
        let mut header = bytes[512..1536].to_vec();
        super::vhd::seal(&mut header, 36);
        bytes[512..1536].copy_from_slice(&header);
    }
}
