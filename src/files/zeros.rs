//! The end of a file within the last sector of its disk. A disk has whole sectors, a file any number
//! of bytes: what the last sector has beyond the file is read as zeros, and is not stored.

use vm_memory::{Bytes, VolatileSlice};

/// Zeros, from which guest memory is filled one piece after the other.
const ZEROS: [u8; 4096] = [0; 4096];

/// The size in bytes of a disk with sectors of `sector_size` bytes that holds `length` bytes.
#[must_use]
pub fn padded_length(length: u64, sector_size: u32) -> u64 {
    length
        .checked_next_multiple_of(u64::from(sector_size))
        .unwrap_or(length)
}

/// How many of the bytes of `buffers`, of which the first belongs to `offset`, lie within a file
/// of `length` bytes.
pub(super) fn clip(offset: u64, buffers: &[VolatileSlice<'_>], length: u64) -> u64 {
    let total = buffers
        .iter()
        .fold(0_u64, |sum, buffer| sum.saturating_add(buffer.len() as u64));
    total.min(length.saturating_sub(offset))
}

/// Sets all bytes of `buffers` to zero but the first `keep`, and returns how many those are.
pub(super) fn fill(buffers: &[VolatileSlice<'_>], keep: u64) -> u64 {
    let (mut skip, mut filled) = (keep, 0);
    for buffer in buffers {
        let size = buffer.len() as u64;
        if skip < size {
            clear(buffer, usize::try_from(skip).unwrap_or(usize::MAX));
            filled += size - skip;
        }
        skip = skip.saturating_sub(size);
    }
    filled
}

fn clear(buffer: &VolatileSlice<'_>, from: usize) {
    let mut at = from;
    while at < buffer.len() {
        let size = ZEROS.len().min(buffer.len() - at);
        // This cannot fail, since the piece ends within the buffer.
        let _ = buffer.write_slice(&ZEROS[..size], at);
        at += size;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_whole_sectors() {
        for (length, sector_size, padded) in [
            (0, 512, 0),
            (1, 512, 512),
            (512, 512, 512),
            (513, 512, 1024),
            (65537, 65536, 131_072),
        ] {
            assert_eq!(padded_length(length, sector_size), padded);
        }
        assert_eq!(padded_length(u64::MAX, 512), u64::MAX);
    }

    #[test]
    fn only_what_lies_beyond_the_kept_bytes_becomes_zero() {
        for keep in [0, 1, 4999, 5000, 5001, 9999, 10_000, 20_000] {
            let mut memory = vec![1_u8; 10_000];
            {
                let buffers: Vec<_> = memory.chunks_mut(5000).map(VolatileSlice::from).collect();
                assert_eq!(fill(&buffers, keep), 10_000_u64.saturating_sub(keep));
            }
            for (offset, byte) in memory.iter().enumerate() {
                assert_eq!(
                    *byte,
                    u8::from((offset as u64) < keep),
                    "keep {keep}, offset {offset}"
                );
            }
        }
    }

    #[test]
    fn a_request_is_cut_where_the_file_ends() {
        let mut memory = [0_u8; 1024];
        let buffers = [VolatileSlice::from(&mut memory[..])];
        assert_eq!(clip(0, &buffers, 2000), 1024);
        assert_eq!(clip(512, &buffers, 513), 1);
        assert_eq!(clip(1024, &buffers, 513), 0);
        assert_eq!(clip(u64::MAX, &buffers, 513), 0);
    }
}
