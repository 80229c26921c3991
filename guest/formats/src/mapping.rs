//! Mappings: where a piece of the virtual disk comes from.

use core::ops::Range;

use crate::bytes;
use crate::error::{Error, ensure};
use crate::reason::Reason;
use crate::source::{len64, to_usize};

/// The most pieces that one answer joins. It bounds the work for an answer.
const MOST_PIECES: u64 = 4096;

/// A piece of the virtual disk, from the offset that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Its length in bytes, at least 1; it never reaches behind the virtual disk.
    pub length: u64,
    /// Where its bytes come from.
    pub content: Content,
}

/// Where bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// They lie in the image file as they are, and the file has all of them.
    Data {
        /// Where they begin in the image file, in bytes.
        offset: u64,
    },
    /// They are zero.
    Zero,
    /// They are zero, and the file has a place for them: sectors that a VHD calls never written. Some
    /// programs read zeros there and others what the file has, so that this has to be zero, too. Whoever
    /// reads the disk reads these bytes and asks [`Mapping::unwritten`], as it reads data: there
    /// may be as many of them.
    Unwritten {
        /// Where their place begins in the image file, in bytes. The file has all of it.
        offset: u64,
    },
    /// They are part of a compressed cluster.
    Compressed(Compressed),
    /// The image does not have them: they are those of its backing file at the same offset, or
    /// zero behind the end of that.
    Backing,
}

/// Bytes of a disk by where they come from. Together they are the whole disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Stored as they are.
    pub data: u64,
    /// Stored compressed.
    pub compressed: u64,
    /// Known to be zero.
    pub zero: u64,
    /// Those of the backing file.
    pub backing: u64,
    /// Lost, since their entries lead nowhere.
    pub lost: u64,
}

/// A compressed cluster (or grain) that a piece is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compressed {
    /// Where it begins in the image file, in bytes.
    pub offset: u64,
    /// How many bytes it takes there: at most twice the cluster's size plus a sector. All of them
    /// are in the file. The compressed bytes may be fewer.
    pub length: u64,
    /// How it is compressed.
    pub codec: Codec,
    /// The fewest bytes that it may inflate to. An image with fewer is at fault. It equals `size`,
    /// except for the last grain of a VMDK, which some writers end where the disk ends.
    pub least: u32,
    /// The most bytes that it may inflate to, a whole cluster.
    pub size: u32,
    /// How many of those bytes are before the piece.
    pub skip: u32,
    /// What is before the compressed bytes.
    pub marker: Marker,
}

/// How a cluster is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// A deflate stream without a header (RFC 1951). What follows it is padding.
    Deflate,
    /// A deflate stream with a zlib header and an Adler-32 checksum (RFC 1950).
    Zlib,
    /// A Zstandard frame (RFC 8878). What follows it is padding.
    Zstd,
}

/// What is before the compressed bytes of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// Nothing is before the stream. What is behind it is padding, or belongs to the next cluster.
    None,
    /// Before the stream there is a grain marker of VMDK: the first sector of the grain (8 bytes)
    /// and the length of the stream (4 bytes). See VMDK 5.0, page 9.
    Grain {
        /// The sector that the marker has to name.
        sector: u64,
    },
}

impl Compressed {
    /// Where the compressed bytes are in `stored`, which is the [`length`](Self::length) bytes of
    /// the file at [`offset`](Self::offset).
    ///
    /// # Errors
    ///
    /// [`Reason::BadMarker`] if the marker names another cluster, or more bytes than there are.
    pub fn payload(&self, stored: &[u8]) -> Result<Range<usize>, Error> {
        let range = self.payload_within(stored, len64(stored))?;
        Ok(to_usize(range.start)..to_usize(range.end))
    }

    /// As [`payload`](Self::payload), for `length` bytes of which the caller has only the
    /// first ones, `head`: at least 12, or all of them.
    ///
    /// # Errors
    ///
    /// As for [`payload`](Self::payload).
    pub fn payload_within(&self, head: &[u8], length: u64) -> Result<Range<u64>, Error> {
        let Marker::Grain { sector } = self.marker else {
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

impl Mapping {
    pub(crate) fn new(length: u64, content: Content) -> Self {
        Self { length, content }
    }

    /// A piece that the image does not have: it is zero if there is no backing file for it.
    pub(crate) fn hole(length: u64, has_backing: bool) -> Self {
        let content = match has_backing {
            true => Content::Backing,
            false => Content::Zero,
        };
        Self::new(length, content)
    }

    /// The piece without its first `length` bytes, or nothing if it is not longer than that.
    #[must_use]
    pub fn behind(self, length: u64) -> Option<Self> {
        let rest = self.length.checked_sub(length).filter(|rest| *rest > 0)?;
        let content = match self.content {
            Content::Data { offset } => Content::Data {
                offset: offset + length,
            },
            Content::Unwritten { offset } => Content::Unwritten {
                offset: offset + length,
            },
            Content::Compressed(cluster) => Content::Compressed(Compressed {
                skip: cluster.skip.saturating_add(small(length)),
                ..cluster
            }),
            content @ (Content::Zero | Content::Backing) => content,
        };
        Some(Self::new(rest, content))
    }

    /// The piece of `length` bytes that begins `within` bytes behind `start`, where a cluster lies.
    /// The last cluster may end with the file; the bytes that it lacks are zero. A cluster that
    /// begins behind the end of the file is a fault of the image.
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

    /// The piece at `offset` of a disk of `disk_size` bytes, to the end of its block or of the disk, in a
    /// format whose writers store each block whole: `block_size` bytes from `start` on. A block that
    /// the file ends in before the disk does is a fault of the image, which lies at `at`.
    pub(crate) fn whole(
        at: u64,
        start: u64,
        block_size: u64,
        offset: u64,
        disk_size: u64,
        file_size: u64,
    ) -> Result<Self, Error> {
        let skip = offset % block_size;
        let rest = disk_size.saturating_sub(offset).clamp(1, block_size - skip);
        let first = start.saturating_add(skip);
        let inside = first.saturating_add(rest) <= file_size;
        ensure(inside, Reason::BeyondEnd, at, start)?;
        Ok(Self::new(rest, Content::Data { offset: first }))
    }

    /// Compares `bytes`, which lie at `offset` of the file in the place of [`Content::Unwritten`], with
    /// what they have to be.
    ///
    /// # Errors
    ///
    /// [`Reason::StaleSectors`] with the first byte that is not zero.
    pub fn unwritten(offset: u64, bytes: &[u8]) -> Result<(), Error> {
        // A whole piece is compared much faster than byte by byte.
        let (words, rest) = bytes.as_chunks::<16>();
        if words.iter().all(|word| *word == [0; 16]) && rest.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let found = (offset..).zip(bytes).find(|(_, byte)| **byte != 0);
        match found {
            Some((at, byte)) => Err(Error::refused(Reason::StaleSectors, at, u64::from(*byte))),
            None => Ok(()),
        }
    }

    /// Whether `next`, the piece right behind this one, continues it.
    fn continues(&self, next: &Self) -> bool {
        match (self.content, next.content) {
            (Content::Data { offset }, Content::Data { offset: next }) => {
                offset + self.length == next
            }
            (Content::Unwritten { offset }, Content::Unwritten { offset: next }) => {
                offset + self.length == next
            }
            (Content::Zero, Content::Zero) | (Content::Backing, Content::Backing) => true,
            _ => false,
        }
    }
}

/// A length within a cluster, of which none has more than 2 MiB.
pub(crate) fn small(length: u64) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Joins the pieces from `offset` on, up to the end of the disk at `size`, for as long as each
/// continues the one before it. Returns also how many pieces were looked at. A fault that is met
/// behind the first piece ends the answer there; the next question meets it again and fails.
pub(crate) fn join(
    offset: u64,
    size: u64,
    mut piece: impl FnMut(u64) -> Result<Mapping, Error>,
) -> Result<(Mapping, u64), Error> {
    if offset >= size {
        return Err(Error::Outside { offset });
    }
    let rest = size - offset;
    let mut mapping = piece(offset)?;
    let mut looked_at = 1;
    while looked_at <= MOST_PIECES && mapping.length < rest {
        looked_at += 1;
        match piece(offset + mapping.length) {
            Ok(next) if mapping.continues(&next) => mapping.length += next.length,
            _ => break,
        }
    }
    mapping.length = mapping.length.min(rest);
    Ok((mapping, looked_at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_an_answer_is_the_answer_for_what_is_behind() {
        let cluster = |skip| {
            Content::Compressed(Compressed {
                offset: 7000,
                length: 2000,
                codec: Codec::Deflate,
                least: 65536,
                size: 65536,
                skip,
                marker: Marker::None,
            })
        };
        let data = |offset| Content::Data { offset };
        let unwritten = |offset| Content::Unwritten { offset };
        for (content, expected) in [
            (data(7000), data(16_999)),
            (unwritten(7000), unwritten(16_999)),
            (cluster(100), cluster(10_099)),
            (Content::Zero, Content::Zero),
            (Content::Backing, Content::Backing),
        ] {
            let whole = Mapping::new(10_000, content);
            assert_eq!(whole.behind(0), Some(whole));
            assert_eq!(whole.behind(9999), Some(Mapping::new(1, expected)));
            assert_eq!(whole.behind(10_000), None);
            assert_eq!(whole.behind(u64::MAX), None);
        }
    }
}
