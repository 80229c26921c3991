//! Makes one disk of the images of a conversion: of the input, and of the backing files that the
//! user has given, each of which has what the image before it lacks.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use guest_formats::{
    Compressed, Content, Error, Finding, Format, Image, Info, LOAD, Mapping, Options, ReadAt,
    Reason, ReferenceKind,
};
use guest_kit::hardware::{Ports, Registers};

use crate::disks::Disks;
use crate::failure::{Failure, Op, failed, unreadable};

/// How many bytes of a file may be read, as a multiple of its length. Each byte is needed once. A
/// compressed cluster of which only pieces are needed is read again if pieces of another one were
/// needed between two of them. Much more than that is needed only if the image shows one cluster at
/// many places, so that a few bytes make a disk of any size.
const MOST_READ: u64 = 8;
/// How many bytes of any file may be read, however short it is.
const ALWAYS_READ: u64 = 1 << 20;
/// How many table entries may be looked at for each byte of a file. An entry has at least four
/// bytes, and is looked at twice at most. To read a table counts as [`LOAD`] besides, and each one
/// that lies alone has a cluster of data behind it. Much more than that is needed only if a table
/// is used at many places.
const MOST_ENTRIES: u64 = 1;
/// How many table entries may be looked at in any file, which takes a tenth of a second, and how
/// many at the most.
const ENTRIES: RangeInclusive<u64> = 1 << 22..=1 << 32;
/// How many compressed clusters are remembered, of those that were met last.
const REMEMBERED: usize = 256;

/// A piece of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its length in bytes, at least 1.
    pub length: u64,
    /// Where its bytes come from.
    pub origin: Origin,
}

/// Where bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// They are zero.
    Zero,
    /// They lie on the disk `source` as they are.
    Data {
        /// The number of the disk: 0 is the input, the backing files follow.
        source: usize,
        /// The offset on that disk, in bytes.
        offset: u64,
    },
    /// They are part of a compressed cluster on the disk `source`.
    Compressed {
        /// The number of the disk.
        source: usize,
        /// Where the cluster lies on it, and how it is compressed.
        cluster: Compressed,
    },
}

impl Piece {
    /// The piece without its first `length` bytes, or nothing if it is not longer than that.
    #[must_use]
    pub fn behind(self, length: u64) -> Option<Self> {
        let rest = self.length.checked_sub(length).filter(|rest| *rest > 0)?;
        let origin = match self.origin {
            Origin::Zero => Origin::Zero,
            Origin::Data { source, offset } => Origin::Data {
                source,
                offset: offset + length,
            },
            Origin::Compressed { source, cluster } => Origin::Compressed {
                source,
                cluster: Compressed {
                    skip: skipped(&cluster, length),
                    ..cluster
                },
            },
        };
        Some(Self {
            length: rest,
            origin,
        })
    }
}

/// How the user wants the input to be opened.
#[derive(Debug)]
pub struct Wish<'a> {
    /// What is known of its format, and what does not matter.
    pub options: Options,
    /// The name or id of the snapshot to read. Empty if the disk is to be read as it is now.
    pub snapshot: &'a [u8],
}

#[derive(Debug)]
struct Layer {
    image: Image,
    size: u64,
    /// How many bytes of the file may still be read.
    budget: u64,
    /// How many table entries may still be looked at.
    entries: u64,
    /// The last answer of the tables: the offset on the disk for which it was given, and the
    /// answer.
    known: Option<(u64, Mapping)>,
    /// The compressed clusters that were met last: where in the file each lies, and where on the
    /// disk it was shown.
    shown: Vec<(u64, u64)>,
}

impl Layer {
    fn new(image: Image, length: u64) -> Self {
        Self {
            size: image.virtual_size(),
            budget: length.saturating_mul(MOST_READ).max(ALWAYS_READ),
            entries: most_entries(length, image.cluster_size()),
            image,
            known: None,
            shown: vec![(0, 0); REMEMBERED],
        }
    }

    /// Where the bytes at `offset` come from. The tables are asked once for a long answer, even if
    /// it is used in many small pieces.
    fn map(&mut self, file: &mut dyn ReadAt, offset: u64) -> Result<Mapping, Error> {
        if let Some(mapping) = self.known.and_then(|(start, mapping)| {
            let before = offset.checked_sub(start)?;
            behind(mapping, before)
        }) {
            return Ok(mapping);
        }
        let (mapping, entries) = self.image.map_counted(file, offset)?;
        spend(&mut self.entries, entries, 0)?;
        self.known = Some((offset, mapping));
        Ok(mapping)
    }

    /// How many bytes count as read for a compressed cluster that begins at `begins` of the disk.
    /// How many of the bytes that the cluster takes are padding is not known, and
    /// neighbours share a sector. So a cluster counts as the fewest bytes from which the best codec
    /// could make it. No honest image shows a cluster at two places of the disk: at the second place
    /// it counts as the bytes that it makes.
    fn cost(&mut self, cluster: &Compressed, begins: u64) -> u64 {
        let size = u64::from(cluster.size);
        let place = crate::to_usize(cluster.offset / 61) % REMEMBERED;
        if let Some(shown) = self.shown.get_mut(place) {
            let before = core::mem::replace(shown, (cluster.offset, begins));
            if before.0 == cluster.offset && before.1 != begins {
                return size;
            }
        }
        let least = size / 32_768;
        cluster.length.saturating_sub(2 * crate::SECTOR).max(least)
    }
}

/// The mapping without its first `length` bytes, or nothing if it is not longer than that.
fn behind(mapping: Mapping, length: u64) -> Option<Mapping> {
    let rest = mapping
        .length
        .checked_sub(length)
        .filter(|rest| *rest > 0)?;
    let content = match mapping.content {
        Content::Data { offset } => Content::Data {
            offset: offset + length,
        },
        Content::Compressed(cluster) => Content::Compressed(Compressed {
            skip: skipped(&cluster, length),
            ..cluster
        }),
        content @ (Content::Zero | Content::Backing) => content,
    };
    Some(Mapping {
        length: rest,
        content,
    })
}

/// How many bytes of the cluster lie before a piece that begins `length` bytes behind this one.
fn skipped(cluster: &Compressed, length: u64) -> u32 {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    cluster.skip.saturating_add(length)
}

/// How many table entries may be looked at in a file of `length` bytes with such clusters.
fn most_entries(length: u64, cluster: Option<u64>) -> u64 {
    let tables = cluster.map_or(0, |cluster| length / cluster / 2);
    let entries = length.saturating_mul(MOST_ENTRIES);
    let entries = entries.saturating_add(tables.saturating_mul(LOAD));
    entries.clamp(*ENTRIES.start(), *ENTRIES.end())
}

/// Takes `cost` from what is `left`, or fails with [`Reason::TooMuchWork`] if that is not enough. What
/// takes so much lies at `at` in the file.
fn spend(left: &mut u64, cost: u64, at: u64) -> Result<(), Error> {
    let rest = left.checked_sub(cost);
    *left = rest.ok_or(Error::Refused(Finding {
        reason: Reason::TooMuchWork,
        at,
        value: cost,
    }))?;
    Ok(())
}

/// All images, the input first.
#[derive(Debug)]
pub struct BackingChain {
    layers: Vec<Layer>,
}

impl BackingChain {
    /// Opens the images on all disks that are read.
    ///
    /// # Errors
    ///
    /// [`Failure`] with the reason why one is not used.
    pub fn open<P: Ports, R: Registers>(
        disks: &mut Disks<'_, P, R>,
        wish: &Wish<'_>,
    ) -> Result<Self, Failure> {
        let mut layers: Vec<Layer> = Vec::new();
        let mut claimed = wish.options.claimed;
        for index in 0..disks.sources() {
            let mut options = wish.options;
            options.claimed = claimed;
            let is_last = index + 1 == disks.sources();
            if !is_last {
                options.allowed = options.allowed.with(Reason::BackingFile);
            }
            let snapshot = match index {
                0 => wish.snapshot,
                _ => b"",
            };
            let opened = open(disks, index, snapshot, &options);
            let (image, info) = opened.map_err(|error| {
                let failure = explain(disks, index, &error);
                let remedies = remedies(disks, index, snapshot, &options, &error);
                Failure {
                    remedies,
                    ..failure
                }
            })?;
            if !is_last && !image.has_backing() {
                let surplus = "the image needs no backing file, and one was given; leave it out";
                return Err(failed(Op::Refused, index, &surplus));
            }
            if let Some(above) = layers.last()
                && !above.image.may_be_over(&image)
            {
                let other = "it is not the parent that the image over it names by its content id \
                             (CID, parentCID); give that one, as it was when the image was made";
                return Err(failed(Op::Refused, index, &other));
            }
            claimed = backing_format(&info);
            let length = disks.length(index);
            layers.push(Layer::new(image, length));
        }
        Ok(Self { layers })
    }

    /// The size of the disk in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.layers.first().map_or(0, |layer| layer.size)
    }

    /// The piece that begins at `offset` of the disk. The offset must lie within the disk. Data
    /// counts as read from here on; who reads a compressed cluster calls [`charge`](Self::charge).
    ///
    /// # Errors
    ///
    /// [`Failure`] if a table on the way cannot be read, leads nowhere or breaks its format.
    pub fn piece<P: Ports, R: Registers>(
        &mut self,
        disks: &mut Disks<'_, P, R>,
        offset: u64,
    ) -> Result<Piece, Failure> {
        let mut length = self.size().saturating_sub(offset);
        for (source, layer) in self.layers.iter_mut().enumerate() {
            if offset >= layer.size {
                break;
            }
            let mapping = layer.map(&mut disks.file(source), offset);
            let mapping = mapping.map_err(|error| explain(disks, source, &error))?;
            length = length.min(mapping.length);
            let origin = match mapping.content {
                Content::Backing => continue,
                Content::Zero => break,
                Content::Data { offset: at } => {
                    let spent = spend(&mut layer.budget, length, at);
                    spent.map_err(|error| unreadable(source, &error))?;
                    Origin::Data { source, offset: at }
                }
                Content::Compressed(cluster) => Origin::Compressed { source, cluster },
            };
            return Ok(Piece { length, origin });
        }
        let origin = Origin::Zero;
        Ok(Piece { length, origin })
    }

    /// Counts a compressed cluster on the disk `source` as read, which begins at `begins` of the
    /// disk that is made.
    ///
    /// # Errors
    ///
    /// [`Failure`] if no more may be read of this file.
    pub fn charge(
        &mut self,
        source: usize,
        cluster: &Compressed,
        begins: u64,
    ) -> Result<(), Failure> {
        let Some(layer) = self.layers.get_mut(source) else {
            return Ok(());
        };
        let cost = layer.cost(cluster, begins);
        let spent = spend(&mut layer.budget, cost, cluster.offset);
        spent.map_err(|error| unreadable(source, &error))
    }
}

/// Why a parser failed: because of the disk, if the disk has failed, or else because of the image.
fn explain<P: Ports, R: Registers>(
    disks: &mut Disks<'_, P, R>,
    index: usize,
    error: &Error,
) -> Failure {
    let failure = disks.take_failure();
    failure.unwrap_or_else(|| unreadable(index, error))
}

/// Opens the image on the disk `index`, or a snapshot in it, if one is named.
fn open<P: Ports, R: Registers>(
    disks: &mut Disks<'_, P, R>,
    index: usize,
    snapshot: &[u8],
    options: &Options,
) -> Result<(Image, Info), Error> {
    let mut file = disks.file(index);
    let (mut image, info) = Image::open(&mut file, options)?;
    if !snapshot.is_empty() {
        match &mut image {
            Image::Qcow2(image) => image.select_snapshot(&mut file, snapshot, options)?,
            _ => {
                return Err(Error::Refused(Finding {
                    reason: Reason::NoSuchSnapshot,
                    at: 0,
                    value: 0,
                }));
            }
        }
    }
    Ok((image, info))
}

/// The reasons that the user has to allow so that the image is used that was refused with `error`.
/// There are none if it is not even used with all of them allowed: what was found may have ended the
/// parsing. It is opened once more to find that out.
fn remedies<P: Ports, R: Registers>(
    disks: &mut Disks<'_, P, R>,
    index: usize,
    snapshot: &[u8],
    options: &Options,
    error: &Error,
) -> Vec<&'static str> {
    if !error.reason().is_some_and(Reason::may_be_allowed) {
        return Vec::new();
    }
    let mut all = *options;
    for reason in Reason::ALL.iter().filter(|reason| reason.may_be_allowed()) {
        all.allowed = all.allowed.with(*reason);
    }
    let Ok((_, info)) = open(disks, index, snapshot, &all) else {
        // What this attempt could not read is no reason for anything else to fail.
        disks.take_failure();
        return Vec::new();
    };
    let found = info.findings.iter().map(|finding| finding.reason);
    let mut reasons: Vec<_> = found
        .filter(|reason| !options.allowed.contains(*reason))
        .collect();
    if let Some(reason) = error.reason().filter(|reason| !reasons.contains(reason)) {
        reasons.push(reason);
    }
    reasons.into_iter().map(Reason::name).collect()
}

/// The format that an image says its backing file has. It counts as a claim of the user: a file of
/// another format is refused. Most images are written by QEMU, which has names of its own.
fn backing_format(info: &Info) -> Option<Format> {
    let of_backing = |kind| kind == ReferenceKind::BackingFormat;
    let reference = info.references.iter().find(|r| of_backing(r.kind))?;
    Format::from_name(core::str::from_utf8(&reference.name).ok()?)
}

#[cfg(test)]
#[path = "backing_chain_tests.rs"]
mod tests;
