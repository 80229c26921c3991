//! Inflates Zstandard frames with libzstd (RFC 8878).

use core::fmt;

use zstd_safe::{DCtx, ErrorCode, find_frame_compressed_size, zstd_sys};

use super::Fault;

/// A decoder for frames that are in memory as a whole.
pub(super) struct Decoder(DCtx<'static>);

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decoder")
    }
}

impl Decoder {
    /// A decoder, or nothing if there is no memory for it.
    pub(super) fn new() -> Option<Self> {
        DCtx::try_create().map(Self)
    }

    /// Inflates the frames at the start of `input` until `output` is full or there are no more, and
    /// returns how many bytes of `output` are filled. What follows in `input` is not looked at.
    pub(super) fn inflate(&mut self, mut input: &[u8], output: &mut [u8]) -> Result<usize, Fault> {
        let mut made = 0;
        while made < output.len() {
            let len = find_frame_compressed_size(input).map_err(|_| Fault::Data)?;
            let frame = input.get(..len).ok_or(Fault::Data)?;
            // Each frame takes some bytes of the input, so that this comes to an end.
            input = input.get(len..).filter(|_| len > 0).ok_or(Fault::Data)?;
            let rest = output.get_mut(made..).ok_or(Fault::Data)?;
            made += self.0.decompress(rest, frame).map_err(fault)?;
        }
        Ok(made)
    }
}

/// What the library's error means.
pub(super) fn fault(error: ErrorCode) -> Fault {
    const NO_MEMORY: usize = zstd_sys::ZSTD_ErrorCode::ZSTD_error_memory_allocation as usize;
    match error.wrapping_neg() {
        NO_MEMORY => Fault::Memory,
        _ => Fault::Data,
    }
}
