//! Makes one disk of the images of a conversion: of the input, and of the backing files that the
//! user has given, each of which has what the image before it lacks.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use guest_formats::{
    Compressed, Content, Error, Finding, Image, Info, Mapping, Options, Reason, inspect,
};
use guest_kit::failure::{Failure, Op};
use guest_kit::hardware::{Ports, Registers};

use crate::disks::Disks;
use crate::failure::{failed, unreadable};
use crate::layer::{Layer, spend};

/// A piece of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The number of the disk on which its bytes lie, if they lie anywhere: 0 is the input, the backing
    /// files follow.
    pub source: usize,
    /// Where they come from: never [`Content::Backing`]. What no image has is zero.
    pub mapping: Mapping,
}

impl Piece {
    /// The piece without its first `length` bytes, or nothing if it is not longer than that.
    #[must_use]
    pub fn behind(self, length: u64) -> Option<Self> {
        let mapping = self.mapping.behind(length)?;
        Some(Self { mapping, ..self })
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

/// All images, the input first.
#[derive(Debug)]
pub struct BackingChain {
    layers: Vec<Layer>,
    /// Whether anything is zero that the last image leaves to a file which was not given.
    is_short: bool,
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
                let mut failure = explain(disks, index, &error);
                failure.remedies = remedies(disks, index, snapshot, &options, &error);
                name_format(disks, index, &options, &error, &mut failure.detail);
                failure
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
            // It counts as a claim of the user: a file of another format is refused.
            claimed = info.backing_format;
            let length = disks.length(index);
            layers.push(Layer::new(image, length));
        }
        Ok(Self {
            layers,
            is_short: false,
        })
    }

    /// The size of the disk in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.layers.first().map_or(0, |layer| layer.size)
    }

    /// Whether zeros stand in the pieces so far for what the last image takes from a file that was not
    /// given.
    #[must_use]
    pub const fn is_short(&self) -> bool {
        self.is_short
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
        let last = self.layers.len() - 1;
        for (source, layer) in self.layers.iter_mut().enumerate() {
            if offset >= layer.size {
                break;
            }
            let mapping = layer.map(&mut disks.file(source), offset);
            let mapping = mapping.map_err(|error| explain(disks, source, &error))?;
            length = length.min(mapping.length);
            match mapping.content {
                Content::Backing => {
                    self.is_short |= source == last;
                    continue;
                }
                Content::Zero => break,
                Content::Data { offset } | Content::Unwritten { offset } => {
                    let (stretch, is_hole) = disks.holes(source).stretch(offset, length);
                    length = stretch;
                    if is_hole {
                        break;
                    }
                    let spent = spend(&mut layer.budget, length, offset);
                    spent.map_err(|error| unreadable(source, &error))?;
                }
                Content::Compressed(_) => {}
            }
            let mapping = Mapping { length, ..mapping };
            return Ok(Piece { source, mapping });
        }
        let content = Content::Zero;
        let mapping = Mapping { length, content };
        Ok(Piece { source: 0, mapping })
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

/// Adds to `detail`, why the image was refused, which format it has, if that is why.
fn name_format<P: Ports, R: Registers>(
    disks: &mut Disks<'_, P, R>,
    index: usize,
    options: &Options,
    error: &Error,
    detail: &mut String,
) {
    let is_reason = matches!(
        error.reason(),
        Some(Reason::FormatNotRead | Reason::NotADisk)
    );
    if !is_reason {
        return;
    }
    let Ok(info) = inspect(&mut disks.file(index), options) else {
        disks.take_failure();
        return;
    };
    // To write into a string cannot fail.
    let _ = write!(detail, "; the format is {}", info.format.name());
    if let Some(variant) = info.variant {
        let _ = write!(detail, " ({variant})");
    }
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
