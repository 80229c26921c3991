//! From the compressed bytes of a cluster to its own.
//!
//! Clusters that fit the pool are inflated at once, by libraries in C that are the fastest there
//! are: a fault in one harms nobody but this guest, and what it writes is bounded by the machine's
//! pages. Larger ones are inflated piece by piece.

#[allow(unsafe_code)]
mod deflate;
mod pieces;
mod zstd;

use guest_formats::{Codec, Compressed};
use thiserror::Error;

pub use pieces::Pieces;

/// Why bytes cannot be inflated. What exactly is wrong with them helps nobody.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Fault {
    /// They are not of that codec, end too early, or inflate to more than a cluster.
    #[error("not what the codec writes")]
    Data,
    /// There is no memory for the codec's state.
    #[error("no memory for the codec")]
    Memory,
}

/// The decoders, each made when it is needed first.
#[derive(Debug, Default)]
pub struct Inflater {
    deflate: Option<deflate::Decoder>,
    zstd: Option<zstd::Decoder>,
}

impl Inflater {
    /// Inflates `input` to `output`, which has room for a whole cluster, and returns how many bytes
    /// that made.
    ///
    /// # Errors
    ///
    /// [`Fault`] if it is not a number of bytes that `cluster` allows, too.
    pub fn inflate(
        &mut self,
        cluster: &Compressed,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<usize, Fault> {
        let room = crate::to_usize(cluster.size);
        let output = output.get_mut(..room).ok_or(Fault::Data)?;
        let made = match cluster.codec {
            Codec::Deflate | Codec::Zlib => {
                let decoder = match &mut self.deflate {
                    Some(decoder) => decoder,
                    none => none.insert(deflate::Decoder::new().ok_or(Fault::Memory)?),
                };
                decoder.inflate(cluster.codec == Codec::Zlib, input, output)?
            }
            Codec::Zstd => {
                let decoder = match &mut self.zstd {
                    Some(decoder) => decoder,
                    none => none.insert(zstd::Decoder::new().ok_or(Fault::Memory)?),
                };
                decoder.inflate(input, output)?
            }
        };
        match made >= crate::to_usize(cluster.least) {
            true => Ok(made),
            false => Err(Fault::Data),
        }
    }
}

#[cfg(test)]
mod tests;
