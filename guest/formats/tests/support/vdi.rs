//! A writer of dynamic and static VDIs.

use super::Put;
use super::bytes::{le32, le64, put};

pub(crate) fn build(fixed: bool, puts: &[Put], block: usize, size: usize) -> Vec<u8> {
    let disk = super::disk_of(puts, block, size);
    let mut bytes = vec![0; 512];
    put(&mut bytes, 0, b"<<< Oracle VM VirtualBox Disk Image >>>\n");
    le32(&mut bytes, 64, 0xbeda_107f);
    le32(&mut bytes, 68, 0x1_0001);
    le32(&mut bytes, 72, 0x190);
    le32(&mut bytes, 76, if fixed { 2 } else { 1 });
    let data = 512 + (puts.len() * 4).next_multiple_of(512);
    le32(&mut bytes, 340, 512);
    le32(&mut bytes, 344, data as u32);
    le32(&mut bytes, 360, 512);
    le64(&mut bytes, 368, size as u64);
    le32(&mut bytes, 376, block as u32);
    le32(&mut bytes, 384, puts.len() as u32);
    bytes.resize(data, 0xff);
    let mut next = 0;
    for (index, kind) in puts.iter().enumerate() {
        match kind {
            Put::Hole => continue,
            Put::Zero => le32(&mut bytes, 512 + index * 4, 0xffff_fffe),
            _ => {
                le32(&mut bytes, 512 + index * 4, next);
                let start = (index * block).min(size);
                put(
                    &mut bytes,
                    data + next as usize * block,
                    &disk[start..(start + block).min(size)],
                );
                next += 1;
            }
        }
    }
    bytes.resize(data + next as usize * block, 0);
    le32(&mut bytes, 388, next);
    bytes
}
