//! Inflates a cluster that is too large for the pool. Its compressed bytes come piece by piece. All
//! that they make stays in memory, so that no decoder needs a window of its own.

use alloc::boxed::Box;
use core::fmt;

use guest_formats::Codec;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::Fault;

/// A cluster that is being inflated.
pub struct Pieces {
    decoder: Decoder,
    made: usize,
}

enum Decoder {
    Deflate(Box<DecompressorOxide>, u32),
    Zstd(DCtx<'static>),
}

impl fmt::Debug for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pieces({})", self.made)
    }
}

impl Pieces {
    /// Begins to inflate a cluster.
    ///
    /// # Errors
    ///
    /// [`Fault::Memory`] if there is none for the decoder.
    pub fn new(codec: Codec) -> Result<Self, Fault> {
        let whole = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        let decoder = match codec {
            Codec::Deflate => Decoder::Deflate(Box::default(), whole),
            Codec::Zlib => {
                let header = inflate_flags::TINFL_FLAG_PARSE_ZLIB_HEADER;
                Decoder::Deflate(Box::default(), whole | header)
            }
            Codec::Zstd => {
                let mut context = DCtx::try_create().ok_or(Fault::Memory)?;
                let stable = context.set_parameter(DParameter::StableOutBuffer(true));
                stable.map_err(|_| Fault::Memory)?;
                Decoder::Zstd(context)
            }
        };
        Ok(Self { decoder, made: 0 })
    }

    /// How many bytes of the cluster are inflated so far.
    #[must_use]
    pub const fn made(&self) -> usize {
        self.made
    }

    /// Inflates the next piece, `input`. `output` is the memory for the whole cluster, and must be
    /// the same each time. `more` says whether there is another piece. Returns true once the
    /// cluster is complete.
    ///
    /// # Errors
    ///
    /// [`Fault::Data`] if the cluster cannot be inflated.
    pub fn take(&mut self, input: &[u8], output: &mut [u8], more: bool) -> Result<bool, Fault> {
        match &mut self.decoder {
            Decoder::Deflate(state, flags) => {
                let more_input = match more {
                    true => inflate_flags::TINFL_FLAG_HAS_MORE_INPUT,
                    false => 0,
                };
                let (status, _, made) =
                    decompress(state, input, output, self.made, *flags | more_input);
                self.made += made;
                match status {
                    TINFLStatus::Done => Ok(true),
                    TINFLStatus::NeedsMoreInput if more => Ok(false),
                    _ => Err(Fault::Data),
                }
            }
            Decoder::Zstd(context) => {
                let mut source = InBuffer::around(input);
                while source.pos() < input.len() {
                    let mut target = OutBuffer::around_pos(output, self.made);
                    let step = context.decompress_stream(&mut target, &mut source);
                    let left = step.map_err(super::zstd::fault)?;
                    self.made = target.pos();
                    // A frame goes on behind its last byte with what says that this was the last one,
                    // and with its checksum. Nothing is left of it only once these were read.
                    if left == 0 && self.made == output.len() {
                        return Ok(true);
                    }
                }
                match more {
                    true => Ok(false),
                    false => Err(Fault::Data),
                }
            }
        }
    }
}
