//! The digest (SHA-256) of a disk's bytes, in their order. Holes need not be read, and count as zeros.

use sha2::{Digest as _, Sha256};

/// The length of the digest in bytes.
pub const LEN: usize = 32;

/// Zeros for the holes, which are taken in pieces of this length.
const ZEROS: [u8; 4096] = [0; 4096];

/// The digest of a disk's first bytes, as far as they have been given.
#[derive(Clone, Debug)]
pub struct Hasher {
    state: Sha256,
    position: u64,
    length: u64,
}

impl Hasher {
    /// Begins the digest of the first `length` bytes. Bytes behind them are not looked at.
    #[must_use]
    pub fn new(length: u64) -> Self {
        Self {
            state: Sha256::new(),
            position: 0,
            length,
        }
    }

    /// How many bytes it has taken.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Of how many bytes it is the digest.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Takes the bytes of the disk from `offset` on. They must not begin behind those that it has
    /// taken. Bytes that it has taken before are passed over.
    pub fn data(&mut self, offset: u64, bytes: &[u8]) {
        let known = usize::try_from(self.position.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = self.length.saturating_sub(self.position);
        let new = bytes.get(known..).unwrap_or_default();
        let new = &new[..usize::try_from(wanted).map_or(new.len(), |most| most.min(new.len()))];
        self.state.update(new);
        self.position += new.len() as u64;
    }

    /// Takes zeros up to the byte `end` of the disk, but at most `most` of them. Returns true if
    /// there are more to take.
    pub fn zeros(&mut self, end: u64, most: u64) -> bool {
        let end = end.min(self.length);
        let stop = end.min(self.position.saturating_add(most));
        while self.position < stop {
            let left = usize::try_from(stop - self.position).unwrap_or(usize::MAX);
            let zeros = &ZEROS[..left.min(ZEROS.len())];
            self.state.update(zeros);
            self.position += zeros.len() as u64;
        }
        self.position < end
    }

    /// The digest. Bytes that it was not given count as zeros.
    #[must_use]
    pub fn finish(mut self) -> [u8; LEN] {
        self.zeros(self.length, u64::MAX);
        self.state.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn plain(bytes: &[u8]) -> [u8; LEN] {
        Sha256::digest(bytes).into()
    }

    #[test]
    fn nothing_has_the_digest_that_the_standard_gives() {
        let empty = Hasher::new(0).finish();
        assert_eq!(empty[..4], [0xe3, 0xb0, 0xc4, 0x42]);
    }

    #[test]
    fn pieces_holes_and_repetitions_make_the_digest_of_the_bytes() {
        let unit = if cfg!(miri) { 100 } else { 1000 };
        let hole = 5 * unit..21 * unit;
        let mut bytes = vec![0; 30 * unit];
        for (at, byte) in bytes.iter_mut().enumerate() {
            if !hole.contains(&at) {
                *byte = u8::try_from(at % 251).unwrap();
            }
        }
        let (len, end) = (bytes.len() - 1, hole.end as u64);
        let mut hasher = Hasher::new(len as u64);
        hasher.data(0, &bytes[..4 * unit + 96]);
        // Read again after a failure, and a little more.
        hasher.data(0, &bytes[..hole.start]);
        hasher.data(0, &[7; 100]);
        assert!(hasher.zeros(end, 5 * unit as u64));
        assert!(!hasher.zeros(end, u64::MAX));
        hasher.data(end, &bytes[hole.end..]);
        assert_eq!(hasher.position(), len as u64);
        assert_eq!(hasher.finish(), plain(&bytes[..len]));
    }

    #[test]
    fn what_is_not_given_is_zero() {
        let mut bytes = vec![0; if cfg!(miri) { 1000 } else { 10_000 }];
        let mut hasher = Hasher::new(bytes.len() as u64);
        hasher.data(0, &[1]);
        bytes[0] = 1;
        assert_eq!(hasher.finish(), plain(&bytes));
    }
}
