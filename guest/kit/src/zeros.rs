//! Finds zeros in what has been read, so that they can be declared to a disk, and need not be written.

use crate::virtio::block::{WIRE_SECTOR, ZeroLimits};

/// Zeros are looked for in pieces of this many bytes, the smallest hole of usual file systems.
const GRANULE: u32 = 4096;
/// How many bytes are looked at together. They are few, so that data is noticed at once, and enough
/// for the compiler to make a loop over the largest registers.
const STRIDE: usize = 256;

/// The search for zeros in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Search {
    /// In bytes: a power of two, and whole sectors.
    granule: usize,
}

/// A stretch at the start of some bytes that is all data or all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// In bytes.
    pub len: usize,
    /// Whether all of it is zero.
    pub zero: bool,
}

impl Search {
    /// The search for zeros in pieces of the smallest hole of usual file systems.
    pub const HOLES: Self = Self {
        granule: GRANULE as usize,
    };

    /// The search for zeros in pieces of 4096 bytes, or of `block` bytes if that is more, for a
    /// device with these limits; `None` if it would not take those of one request of `request` bytes.
    #[must_use]
    pub fn new(block: u32, request: u32, limits: Option<ZeroLimits>) -> Option<Self> {
        let limits = limits?;
        let takes_all = limits.segments > 0 && limits.sectors >= request / WIRE_SECTOR;
        takes_all.then_some(Self {
            granule: GRANULE.max(block) as usize,
        })
    }

    /// How far `bytes`, which lie at `offset` on the disk and are not empty, are all data or all zeros.
    ///
    /// A piece is where a file system can make a hole: at multiples of its length on the disk. What is
    /// in `bytes` of the first and of the last one may be less.
    #[must_use]
    pub fn stretch(self, offset: u64, bytes: &[u8]) -> Stretch {
        let before = usize::try_from(offset % self.granule as u64).unwrap_or(0);
        let (first, rest) = bytes.split_at(bytes.len().min(self.granule - before));
        let zero = is_zero(first);
        let granules = rest.chunks(self.granule);
        let more = granules.take_while(|granule| is_zero(granule) == zero);
        let len = first.len() + more.map(<[u8]>::len).sum::<usize>();
        Stretch { len, zero }
    }
}

/// Whether all bytes are zero.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    // Most data shows at once that it is none, and then only one line of it is fetched into a cache.
    if bytes.first_chunk::<8>().is_some_and(|word| *word != [0; 8]) {
        return false;
    }
    bytes
        .chunks(STRIDE)
        .all(|stride| stride.iter().fold(0, |any, byte| any | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_anywhere_is_no_zero() {
        let (longest, step) = if cfg!(miri) { (300, 17) } else { (4096, 1) };
        for len in [1, 15, 16, 255, 256, 257, longest] {
            let mut bytes = vec![0; len];
            assert!(is_zero(&bytes));
            for at in (0..len).rev().step_by(step) {
                bytes[at] = 0x80 >> (at % 8);
                assert!(!is_zero(&bytes), "{at} of {len}");
                bytes[at] = 0;
            }
        }
    }

    #[test]
    fn a_stretch_ends_where_data_and_zeros_meet() {
        let search = Search { granule: 512 };
        let mut bytes = vec![0; 2048 + 100];
        let all = Stretch {
            len: 2148,
            zero: true,
        };
        assert_eq!(search.stretch(0, &bytes), all);
        bytes[1500] = 1;
        let stretches = |bytes: &[u8]| {
            let mut from = 0;
            std::iter::from_fn(|| {
                let rest = bytes.get(from..).filter(|rest| !rest.is_empty())?;
                let stretch = search.stretch(from as u64, rest);
                from += stretch.len;
                Some((stretch.len, stretch.zero))
            })
            .collect::<Vec<_>>()
        };
        assert_eq!(stretches(&bytes), [(1024, true), (512, false), (612, true)]);
        bytes[2147] = 1;
        assert_eq!(
            stretches(&bytes),
            [(1024, true), (512, false), (512, true), (100, false)]
        );
    }

    #[test]
    fn pieces_lie_where_the_disk_has_them_and_not_where_the_bytes_begin() {
        let search = Search { granule: 512 };
        let mut bytes = [0; 1024];
        bytes[..100].fill(1);
        // The piece around the offset has 300 bytes before it.
        let first = search.stretch(4 * 512 + 300, &bytes);
        assert_eq!((first.len, first.zero), (212, false));
        let second = search.stretch(5 * 512, &bytes[first.len..]);
        assert_eq!((second.len, second.zero), (812, true));
        let short = search.stretch(300, &bytes[..50]);
        assert_eq!((short.len, short.zero), (50, false));
    }
}
