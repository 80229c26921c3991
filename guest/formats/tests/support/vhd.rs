//! A writer of fixed and dynamic VHDs.

use super::Put;
use super::bytes::{be16, be32, be64, put};

pub(crate) struct Vhd {
    pub(crate) fixed: bool,
    pub(crate) kind: u32,
    pub(crate) creator: [u8; 4],
    pub(crate) block: usize,
    pub(crate) size: usize,
    pub(crate) puts: Vec<Put>,
    pub(crate) disk: Vec<u8>,
}

impl Vhd {
    pub(crate) fn new(fixed: bool, puts: &[Put], block: usize, size: usize) -> Self {
        Self {
            fixed,
            kind: if fixed { 2 } else { 3 },
            creator: *b"win ",
            block,
            size,
            puts: puts.to_vec(),
            disk: super::disk_of(puts, block, size),
        }
    }

    pub(crate) fn footer(&self) -> Vec<u8> {
        let mut footer = vec![0; 512];
        put(&mut footer, 0, b"conectix");
        be32(&mut footer, 8, 2);
        be32(&mut footer, 12, 0x1_0000);
        be64(&mut footer, 16, if self.fixed { u64::MAX } else { 512 });
        put(&mut footer, 28, &self.creator);
        be64(&mut footer, 40, self.size as u64);
        be64(&mut footer, 48, self.size as u64);
        // 4 heads and 17 sectors: the largest geometry that fits.
        be16(&mut footer, 56, (self.size / 512 / 68) as u16);
        footer[58] = 4;
        footer[59] = 17;
        be32(&mut footer, 60, self.kind);
        seal(&mut footer, 64);
        footer
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let footer = self.footer();
        if self.fixed {
            let mut bytes = self.disk.clone();
            bytes.extend(footer);
            return bytes;
        }
        let mut bytes = footer.clone();
        let mut header = vec![0; 1024];
        put(&mut header, 0, b"cxsparse");
        be64(&mut header, 8, u64::MAX);
        be64(&mut header, 16, 1536);
        be32(&mut header, 24, 0x1_0000);
        be32(&mut header, 28, self.puts.len() as u32);
        be32(&mut header, 32, self.block as u32);
        seal(&mut header, 36);
        bytes.extend(header);
        let table = (self.puts.len() * 4).next_multiple_of(512);
        bytes.resize(1536 + table, 0xff);
        let bitmap = (self.block / 512 / 8).next_multiple_of(512);
        for (index, kind) in self.puts.iter().enumerate() {
            if *kind == Put::Hole {
                continue;
            }
            let at = bytes.len();
            be32(&mut bytes, 1536 + index * 4, (at / 512) as u32);
            bytes.resize(at + bitmap, 0xff);
            let start = (index * self.block).min(self.disk.len());
            let end = (start + self.block).min(self.disk.len());
            bytes.extend(&self.disk[start..end]);
            bytes.resize(at + bitmap + self.block, 0);
        }
        bytes.extend(footer);
        bytes
    }
}

/// Writes the checksum of a header at `at`.
pub(crate) fn seal(header: &mut Vec<u8>, at: usize) {
    be32(header, at, 0);
    let sum = header.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    be32(header, at, !sum);
}
