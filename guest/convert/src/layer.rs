//! One image of a chain: where the bytes of its disk come from, and what reading them costs.
//!
//! A few bytes can be an image of any size, so that the work for one has a limit, which grows with its
//! file.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use guest_formats::{Compressed, Error, Finding, Image, LOAD, Mapping, ReadAt, Reason};

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
/// For each so many bytes of a VHD's file one entry may be looked at, however many these are: each block
/// has a bitmap before it, which is a table that is read by itself. Blocks have 512 KiB or 2 MiB.
const BYTES_AN_ENTRY: u64 = 128;
/// How many compressed clusters are remembered, of those that were met last.
const REMEMBERED: usize = 256;

/// An image of a chain.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) image: Image,
    pub(crate) size: u64,
    /// How many bytes of the file may still be read.
    pub(crate) budget: u64,
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
    pub(crate) fn new(image: Image, length: u64) -> Self {
        Self {
            size: image.virtual_size(),
            budget: length.saturating_mul(MOST_READ).max(ALWAYS_READ),
            entries: most_entries(length, image.cluster_size(), matches!(image, Image::Vhd(_))),
            image,
            known: None,
            shown: vec![(0, 0); REMEMBERED],
        }
    }

    /// Where the bytes at `offset` come from. The tables are asked once for a long answer, even if
    /// it is used in many small pieces.
    pub(crate) fn map(&mut self, file: &mut dyn ReadAt, offset: u64) -> Result<Mapping, Error> {
        if let Some(mapping) = self.known.and_then(|(start, mapping)| {
            let before = offset.checked_sub(start)?;
            mapping.behind(before)
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
    pub(crate) fn cost(&mut self, cluster: &Compressed, begins: u64) -> u64 {
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

/// How many table entries may be looked at in a file of `length` bytes with such clusters, each of which
/// may have a bitmap.
fn most_entries(length: u64, cluster: Option<u64>, has_bitmaps: bool) -> u64 {
    let tables = cluster.map_or(0, |cluster| length / cluster / 2);
    let entries = length.saturating_mul(MOST_ENTRIES);
    let entries = entries.saturating_add(tables.saturating_mul(LOAD));
    let most = match has_bitmaps {
        true => (length / BYTES_AN_ENTRY).max(*ENTRIES.end()),
        false => *ENTRIES.end(),
    };
    entries.clamp(*ENTRIES.start(), most)
}

/// Takes `cost` from what is `left`, or fails with [`Reason::TooMuchWork`] if that is not enough. What
/// takes so much lies at `at` in the file.
pub(crate) fn spend(left: &mut u64, cost: u64, at: u64) -> Result<(), Error> {
    let rest = left.checked_sub(cost);
    *left = rest.ok_or(Error::Refused(Finding {
        reason: Reason::TooMuchWork,
        at,
        value: cost,
    }))?;
    Ok(())
}

#[cfg(test)]
#[path = "layer_tests.rs"]
mod tests;
