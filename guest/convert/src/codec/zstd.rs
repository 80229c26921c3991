//! Zstandard by its own library (RFC 8878).

use core::fmt;

use zstd_safe::{DCtx, ErrorCode, find_frame_compressed_size, zstd_sys};

use super::Fault;

/// A decoder of whole frames.
pub(super) struct Decoder(DCtx<'static>);

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decoder")
    }
}

impl Decoder {
    /// `None` if there is no memory for it.
    pub(super) fn new() -> Option<Self> {
        DCtx::try_create().map(Self)
    }

    /// Inflates frames until `output` is full. What follows them in `input` is not looked at.
    /// Returns how many bytes of `output` are filled.
    pub(super) fn inflate(&mut self, mut input: &[u8], output: &mut [u8]) -> Result<usize, Fault> {
        let mut made = 0;
        while made < output.len() {
            let len = find_frame_compressed_size(input).map_err(|_| Fault::Data)?;
            let frame = input.get(..len).ok_or(Fault::Data)?;
            // A frame has a header, so that there are fewer of them than bytes.
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
