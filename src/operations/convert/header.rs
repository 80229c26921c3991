//! What may stand at the head of a qcow2 file that the guest has written ("Header" in qcow2.txt in
//! QEMU's sources).
//!
//! A guest that an image has taken over can write any bytes. A header that named a backing file or a
//! file for the data would make the next program that opens the output open that file. So the header
//! is compared with the one that the guest has to write, in which nothing is free but where the two
//! tables are and how long. Nothing in it is followed.

use std::io;
use std::ops::Range;

use vm_memory::VolatileSlice;

use crate::storage::Storage;

/// The header, and the mark behind it that there are no extensions.
const LENGTH: usize = 120;
/// Where the tables are and how long: any other byte is known.
const FREE: Range<usize> = 36..60;
const SECTOR: u64 = 512;

/// The header of an image of a disk of `size` bytes, with zeros for what is free.
fn expected(size: u64) -> [u8; LENGTH] {
    let mut header = [0; LENGTH];
    header[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    // Clusters of 64 KiB.
    header[20..24].copy_from_slice(&16_u32.to_be_bytes());
    let whole = size.div_ceil(SECTOR).saturating_mul(SECTOR);
    header[24..32].copy_from_slice(&whole.to_be_bytes());
    // Refcounts of 16 bits, and the length of the header.
    header[96..100].copy_from_slice(&4_u32.to_be_bytes());
    header[100..104].copy_from_slice(&112_u32.to_be_bytes());
    header
}

/// Whether `output` begins as an image of a disk of `size` bytes has to, which needs no other file.
///
/// # Errors
///
/// It cannot be read.
pub(super) fn is_harmless(output: &dyn Storage, size: u64) -> io::Result<bool> {
    let mut header = [0; LENGTH];
    output.read_at(0, &[VolatileSlice::from(&mut header[..])])?;
    header[FREE].fill(0);
    Ok(header == expected(size))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use guest_formats::qcow2::Writer;

    use super::*;
    use crate::storage::MemoryStorage;

    /// The header that the guest writes.
    fn written(size: u64) -> Vec<u8> {
        let mut writer = Writer::new(size).unwrap();
        writer.place(0, 1);
        writer.finish();
        let mut table = vec![0; 65536];
        while writer.take_table(&mut table) != Some(0) {}
        table
    }

    fn judge(header: Vec<u8>, size: u64) -> bool {
        is_harmless(&MemoryStorage::new(header), size).unwrap()
    }

    #[test]
    fn what_the_guest_has_to_write_is_harmless() {
        for size in [1, 512, 1_000_000, 1 << 30, 8 << 40, (8 << 40) + 1] {
            assert!(judge(written(size), size), "{size}");
        }
    }

    #[test]
    fn a_header_that_says_anything_else_is_not() {
        let good = written(1 << 20);
        assert!(!judge(good.clone(), (1 << 20) + 512));
        for at in (0..LENGTH).filter(|at| !FREE.contains(at)) {
            let mut header = good.clone();
            header[at] ^= 1;
            assert!(!judge(header, 1 << 20), "byte {at}");
        }
        assert!(!judge(vec![0; 65536], 0));
    }
}
