//! Refcounts as they lie in their blocks ("Refcount block entry" in qcow2.txt).

use crate::bytes::{be16, be32, be64, u8_at};

/// Reads the refcount number `index`, of `1 << order` bits, from its block. Where a byte has
/// several, the first one has its lowest bits.
pub(super) fn read(block: &[u8], index: u64, order: u32) -> u64 {
    let at = |width: u64| usize::try_from(index * width).unwrap_or(usize::MAX);
    match order {
        0..=2 => {
            let per_byte = 8_u64 >> order;
            let byte = usize::try_from(index / per_byte).unwrap_or(usize::MAX);
            let shift = (index % per_byte) << order;
            u64::from(u8_at(block, byte)) >> shift & ((1 << (1 << order)) - 1)
        }
        3 => u64::from(u8_at(block, at(1))),
        4 => u64::from(be16(block, at(2))),
        5 => u64::from(be32(block, at(4))),
        _ => be64(block, at(8)),
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn refcounts_narrower_than_a_byte_begin_with_its_lowest_bits() {
        let block = [0b1110_0100, 0b0000_0001];
        let two_bits: Vec<u64> = (0..5).map(|index| read(&block, index, 1)).collect();
        assert_eq!(two_bits, [0, 1, 2, 3, 1]);
        let one_bit: Vec<u64> = (0..9).map(|index| read(&block, index, 0)).collect();
        assert_eq!(one_bit, [0, 0, 1, 0, 0, 1, 1, 1, 1]);
        assert_eq!(read(&block, 0, 2), 4);
        assert_eq!(read(&block, 1, 2), 14);
        assert_eq!(read(&block, 1, 3), 1);
        assert_eq!(read(&block, 0, 4), 0xe401);
    }
}
