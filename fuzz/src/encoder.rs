//! The way back from what an input means to its bytes, for inputs that are made on purpose: honest
//! sessions, from which the fuzzer starts. It mirrors how `arbitrary` takes numbers off its bytes.

use std::ops::RangeInclusive;

/// Collects the bytes of an input.
#[derive(Default)]
pub struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    /// The input.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// What `arbitrary::<u8>` gives back.
    pub fn byte(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// What `bytes` gives back.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// What `int_in_range` gives back: as many bytes as the range needs, the highest first.
    pub fn int(&mut self, value: u64, range: RangeInclusive<u64>) {
        assert!(range.contains(&value), "{value} is not in {range:?}");
        let (offset, most) = (value - range.start(), range.end() - range.start());
        let skipped = most.leading_zeros() as usize / 8;
        self.raw(&offset.to_be_bytes()[skipped..]);
    }
}
