//! What a mapping answers: where a piece of the virtual disk comes from.

use core::ops::Range;

use crate::bytes;
use crate::error::{Error, ensure};
use crate::reason::Reason;
use crate::source::{len64, to_usize};

/// The most pieces that one answer joins, so that the work for an answer is bounded.
const MOST_PIECES: u64 = 4096;

/// A piece of the virtual disk, from the offset that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its length in bytes, at least 1; it never reaches behind the virtual disk.
    pub length: u64,
    /// Where its bytes come from.
    pub content: Content,
}

/// Where bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// They lie in the image file as they are; all of them are there.
    Data {
        /// Where, in bytes.
        offset: u64,
    },
    /// They are zero.
    Zero,
    /// They are part of a compressed cluster.
    Compressed(Compressed),
    /// The image does not have them: they are those of its backing file at the same offset, or
    /// zero behind the end of that.
    Backing,
}

/// A compressed cluster (or grain) that a piece is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compressed {
    /// Where its frame begins in the image file, in bytes.
    pub offset: u64,
    /// Bytes of the frame: at most twice the cluster's size plus a sector. All of them are in the
    /// file, and fewer may be needed.
    pub length: u64,
    /// How it is compressed.
    pub codec: Codec,
    /// The fewest bytes that it may inflate to: less is a fault of the image. It is as many as
    /// `size` except in the last grain of a VMDK, which some writers end with the disk.
    pub least: u32,
    /// The most bytes that it may inflate to, a whole cluster.
    pub size: u32,
    /// How many of those bytes are before the piece.
    pub skip: u32,
    /// What is around the compressed bytes.
    pub frame: Frame,
}

/// How a cluster is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// A deflate stream without a header (RFC 1951). What follows it in the frame is padding.
    Deflate,
    /// A deflate stream with a zlib header and an Adler-32 checksum (RFC 1950).
    Zlib,
    /// A Zstandard frame (RFC 8878). What follows it in the frame is padding.
    Zstd,
}

/// What is around the compressed bytes of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Nothing before; behind the stream, padding to a sector or the next cluster's bytes.
    Bare,
    /// A grain marker of VMDK: the grain's first sector, the length, the bytes (VMDK 5.0, page 9).
    Grain {
        /// The sector that the marker has to name.
        sector: u64,
    },
}

impl Compressed {
    /// Where in `frame`, the [`length`](Self::length) bytes at [`offset`](Self::offset), the
    /// compressed bytes are.
    ///
    /// # Errors
    ///
    /// [`Reason::BadMarker`] if the frame is not that of this cluster or is longer than its place.
    pub fn payload(&self, frame: &[u8]) -> Result<Range<usize>, Error> {
        let range = self.payload_within(frame, len64(frame))?;
        Ok(to_usize(range.start)..to_usize(range.end))
    }

    /// The same for a frame of `length` bytes of which only the start is at hand, `head`: 12 bytes
    /// at least, or all of it.
    ///
    /// # Errors
    ///
    /// As for [`payload`](Self::payload).
    pub fn payload_within(&self, head: &[u8], length: u64) -> Result<Range<u64>, Error> {
        let Frame::Grain { sector } = self.frame else {
            return Ok(0..length);
        };
        let named = bytes::le64(head, 0);
        let payload = u64::from(bytes::le32(head, 8));
        let bad = Reason::BadMarker;
        ensure(length >= GRAIN_MARKER, bad, self.offset, 0)?;
        ensure(named == sector, bad, self.offset, named)?;
        let fits = payload > 0 && payload <= length - GRAIN_MARKER;
        ensure(fits, bad, self.offset + 8, payload)?;
        Ok(GRAIN_MARKER..GRAIN_MARKER + payload)
    }
}

/// Bytes of a grain marker before the compressed bytes.
pub(crate) const GRAIN_MARKER: u64 = 12;

impl Extent {
    pub(crate) fn new(length: u64, content: Content) -> Self {
        Self { length, content }
    }

    /// The `length` bytes that are `within` bytes behind `start`, where a cluster lies. A last
    /// cluster may end with the file, and what is missing there is zero; a cluster that begins
    /// behind the end is missing as a whole, and that is a fault.
    pub(crate) fn data(
        start: u64,
        within: u64,
        length: u64,
        file_size: u64,
    ) -> Result<Self, Error> {
        ensure(start < file_size, Reason::BeyondEnd, start, file_size)?;
        let there = (file_size - start).saturating_sub(within);
        if there == 0 {
            return Ok(Self::new(length, Content::Zero));
        }
        let offset = start + within;
        Ok(Self::new(length.min(there), Content::Data { offset }))
    }

    /// Whether `next`, the piece right behind this one, continues it.
    fn continues(&self, next: &Self) -> bool {
        match (self.content, next.content) {
            (Content::Data { offset }, Content::Data { offset: next }) => {
                offset + self.length == next
            }
            (Content::Zero, Content::Zero) | (Content::Backing, Content::Backing) => true,
            _ => false,
        }
    }
}

/// Joins the pieces from `offset` to the end of the disk, `size`, for as long as each continues
/// the one before it, and says how many were looked at. A fault behind the first piece waits until it
/// is asked for.
pub(crate) fn join(
    offset: u64,
    size: u64,
    mut piece: impl FnMut(u64) -> Result<Extent, Error>,
) -> Result<(Extent, u64), Error> {
    if offset >= size {
        return Err(Error::Outside { offset });
    }
    let rest = size - offset;
    let mut extent = piece(offset)?;
    let mut looked_at = 1;
    while looked_at <= MOST_PIECES && extent.length < rest {
        looked_at += 1;
        match piece(offset + extent.length) {
            Ok(next) if extent.continues(&next) => extent.length += next.length,
            _ => break,
        }
    }
    extent.length = extent.length.min(rest);
    Ok((extent, looked_at))
}
