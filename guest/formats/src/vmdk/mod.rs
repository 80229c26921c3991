//! VMDK in one sparse file: monolithicSparse and streamOptimized (VMware's Virtual Disk Format
//! 5.0).
//!
//! An open VMDK takes a cache line for each grain directory, one for grain tables, and one for
//! markers of grains. While the image is opened its descriptor is in memory too, at most
//! [`LONGEST_DESCRIPTOR`] bytes of it.

mod descriptor;
mod header;
mod map;

pub use descriptor::LONGEST_DESCRIPTOR;

use crate::bytes::has;
use crate::cache::{Cache, LONG_LINE};
use crate::error::Error;
use crate::image::Image;
use crate::info::{Info, Options};
use crate::mapping::{Mapping, join};
use crate::reason::Reason;
use crate::source::{ReadAt, prefix};
use descriptor::Described;
use header::Header;

/// An open VMDK.
#[derive(Debug)]
pub struct Vmdk {
    header: Header,
    described: Described,
    directories: Cache,
    tables: Cache,
    markers: Cache,
}

/// The size of a sector in bytes.
pub(crate) const SECTOR: u64 = 512;

/// Reads the headers into `info`. Fails where nothing further can be read.
pub(crate) fn inspect(
    source: &mut dyn ReadAt,
    info: &mut Info,
    options: &Options,
) -> Result<Vmdk, Error> {
    let start: [u8; 8] = prefix(source)?;
    if has(&start, 0, b"KDMV") {
        return sparse(source, info, options);
    }
    if has(&start, 0, b"COWD") {
        info.variant = Some("vmfsSparse");
        return Err(Error::refused(Reason::FormatNotRead, 0, 0));
    }
    if has(&start, 0, b"\xbe\xba\xfe\xca") {
        info.variant = Some("seSparse");
        return Err(Error::refused(Reason::FormatNotRead, 0, 0));
    }
    // The file is a descriptor alone, and all its extents are other files.
    let size = source.size();
    let text = descriptor::read_text(source, 0, size)?;
    Err(elsewhere(&text, 0, info, options))
}

/// Reads the descriptor at `at`, all of whose extents are other files, into `info`. Returns why the
/// image is refused.
fn elsewhere(text: &[u8], at: u64, info: &mut Info, options: &Options) -> Error {
    match descriptor::parse(text, at, false, info) {
        Ok(disk) => {
            info.set_size(disk.size, at, options);
            // What the lines were found to say, with its place.
            let mut found = info.findings.iter();
            let found = found.find(|finding| finding.reason == Reason::ExternalExtent);
            found.map_or(Error::refused(Reason::ExternalExtent, at, 0), |finding| {
                Error::Refused(*finding)
            })
        }
        Err(error) => error,
    }
}

fn sparse(source: &mut dyn ReadAt, info: &mut Info, options: &Options) -> Result<Vmdk, Error> {
    let header = header::read(source, info, options)?;
    // A part of a disk in several files has no room for a descriptor, or room that is empty. The
    // descriptor is in yet another file, and only that tells of the other parts and of a parent.
    let mut part = |at, length| {
        info.variant = Some("extent");
        Error::refused(Reason::FormatNotRead, at, length)
    };
    let place = header.descriptor.ok_or_else(|| part(28, 0))?;
    let (at, length) = (place.start, place.length());
    let text = descriptor::read_text(source, at, length)?;
    if text.is_empty() {
        return Err(part(at, length));
    }
    if header.virtual_size == 0 {
        // Such a header only holds the descriptor, as QEMU sees it too.
        return Err(elsewhere(&text, at, info, options));
    }
    let described = descriptor::parse(&text, at, true, info)?;
    // Some programs take the size from here, and others from the header. Some writers fill up
    // the last grain in one of the places.
    let grains = |size: u64| size.div_ceil(header.grain_size);
    if described.is_own && grains(described.size) != grains(header.virtual_size) {
        info.find(Reason::BadHeader, 12, header.virtual_size / SECTOR);
    }
    if described.parent_content_id_at.is_none() {
        info.find(Reason::BadDescriptor, at, length);
    }
    descriptor::search(source, &described, info)?;
    if info.variant.is_none() {
        info.variant = Some("sparse");
    }
    Ok(Vmdk {
        header,
        described,
        directories: Cache::new(2),
        tables: Cache::new(1),
        markers: Cache::new(1),
    })
}

impl Vmdk {
    /// The size of the virtual disk in bytes.
    #[must_use]
    pub fn virtual_size(&self) -> u64 {
        self.header.virtual_size
    }

    /// Whether the image names a parent, from which it takes what it lacks.
    #[must_use]
    pub fn has_backing(&self) -> bool {
        self.described.has_parent
    }

    /// Whether `image` is the parent that the image was made over, as its content id says ("The Header"
    /// in the specification). A parent that was written since has another one.
    #[must_use]
    pub fn is_over(&self, image: &Image) -> bool {
        let wanted = self.described.parent_content_id;
        matches!(image, Image::Vmdk(parent)
            if wanted.is_some() && parent.described.content_id == wanted)
    }

    /// The size of a grain in bytes.
    #[must_use]
    pub fn grain_size(&self) -> u64 {
        self.header.grain_size
    }

    /// How many bytes of a disk the grain tables have entries for: the last table may have some behind
    /// the disk.
    pub(crate) fn covered(&self) -> u64 {
        let tables = self.header.directory.length() / 4;
        tables.saturating_mul(self.header.per_table())
    }

    /// Has tables be read in long pieces from now on.
    pub(crate) fn read_in_order(&mut self) {
        self.tables.set_length(LONG_LINE);
    }

    /// How many lines of its tables and of markers were read so far.
    pub(crate) fn loads(&self) -> u64 {
        self.directories.loads() + self.tables.loads() + self.markers.loads()
    }

    /// Where the bytes at `offset` of the virtual disk come from, and how many table entries were
    /// looked at.
    pub(crate) fn joined(
        &mut self,
        source: &mut dyn ReadAt,
        offset: u64,
    ) -> Result<(Mapping, u64), Error> {
        join(offset, self.header.virtual_size, |at| {
            self.measured(source, at)
        })
    }
}
