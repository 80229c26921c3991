//! Inflates compressed clusters.
//!
//! A cluster that fits into the pool is inflated in one call, by one of the fastest libraries,
//! which are written in C: a fault in them harms nobody but this guest, and can write only where
//! its pages allow it. A larger cluster is inflated piece by piece.

#[allow(unsafe_code)]
mod deflate;
mod pieces;
mod zstd;

use guest_formats::{Codec, Compressed};
use thiserror::Error;

pub use pieces::Pieces;

/// Why a cluster cannot be inflated. What exactly is wrong with the bytes would help nobody.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Fault {
    /// The bytes are not of that codec, end too early, or inflate to more than a cluster.
    #[error("not what the codec writes")]
    Data,
    /// There is no memory for the codec's state.
    #[error("no memory for the codec")]
    Memory,
}

/// The decoders. Each is made when it is needed for the first time.
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
    /// [`Fault`] if the bytes cannot be inflated, or if they make more or fewer bytes than
    /// `cluster` allows.
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
