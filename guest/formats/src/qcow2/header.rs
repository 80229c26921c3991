//! The header, and what it alone says of an image ("Header" in qcow2.txt).

use alloc::vec::Vec;

use crate::bytes::{be32, be64, u8_at};
use crate::error::{Error, ensure};
use crate::info::{Feature, FeatureKind, Info, LONGEST_NAME, Options, ReferenceKind};
use crate::mapping::Codec;
use crate::qcow2::extensions::{self, Extensions};
use crate::qcow2::snapshot::{self, MOST_SNAPSHOTS};
use crate::qcow2::{L1, Regions};
use crate::reason::Reason;
use crate::source::{ReadAt, prefix};
use crate::span::Span;

/// The length of the header in bytes: of version 2, and of version 3 at the least.
const LENGTH_2: u64 = 72;
const LENGTH_3: u64 = 104;
/// The largest L1 table and the largest refcount table in bytes. QEMU has the same limits.
const LARGEST_L1: u64 = 32 << 20;
const LARGEST_REFCOUNT_TABLE: u64 = 8 << 20;
/// The smallest clusters that may have subclusters, as the logarithm of their size to the base 2.
const SMALLEST_EXTENDED: u32 = 14;

const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const DATA_FILE: u64 = 1 << 2;
const COMPRESSION_TYPE: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;
/// The autoclear bit that says that the bitmaps fit what is in the image.
const BITMAPS: u64 = 1;
/// The one that says that the external data file can be read as a raw disk.
const RAW_DATA_FILE: u64 = 1 << 1;
/// The values of the field for encryption.
const AES: u32 = 1;
const LUKS: u32 = 2;

/// The names of the feature bits, from bit 0 on.
const INCOMPATIBLE: &[&str] = &[
    "dirty",
    "corrupt",
    "external-data-file",
    "compression-type",
    "extended-l2",
];
const COMPATIBLE: &[&str] = &["lazy-refcounts"];
const AUTOCLEAR: &[&str] = &["bitmaps", "raw-external-data"];

/// What the rest of the module needs of the header.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub(super) version: u32,
    pub(super) cluster_bits: u32,
    pub(super) virtual_size: u64,
    pub(super) l1: L1,
    pub(super) refcount_table: u64,
    pub(super) refcount_table_clusters: u64,
    pub(super) refcount_order: u32,
    pub(super) snapshots: u32,
    pub(super) snapshots_at: u64,
    pub(super) has_backing: bool,
    pub(super) extended_l2: bool,
    pub(super) codec: Codec,
    pub(super) extensions: Extensions,
    regions: Regions,
}

/// Reads the header into `info`. Fails where nothing further can be read.
pub(crate) fn inspect(
    source: &mut dyn ReadAt,
    info: &mut Info,
    options: &Options,
) -> Result<Header, Error> {
    let size = source.size();
    ensure(size >= LENGTH_2, Reason::Truncated, size, size)?;
    let bytes: [u8; 112] = prefix(source)?;
    ensure(bytes.starts_with(b"QFI\xfb"), Reason::BadHeader, 0, 0)?;
    let version = be32(&bytes, 4);
    let known = matches!(version, 2 | 3);
    ensure(known, Reason::UnsupportedVersion, 4, u64::from(version))?;
    info.version = Some(version);
    let cluster_bits = be32(&bytes, 20);
    let good = (9..=21).contains(&cluster_bits);
    ensure(good, Reason::ClusterSize, 20, u64::from(cluster_bits))?;
    info.cluster_size = Some(1 << cluster_bits);
    let virtual_size = be64(&bytes, 24);
    info.set_size(virtual_size, 24, options);

    let length = header_length(&bytes, version, size, cluster_bits)?;
    let mut header = Header {
        version,
        cluster_bits,
        virtual_size,
        l1: L1 {
            offset: be64(&bytes, 40),
            entries: u64::from(be32(&bytes, 36)),
        },
        refcount_table: be64(&bytes, 48),
        refcount_table_clusters: u64::from(be32(&bytes, 56)),
        refcount_order: 4,
        snapshots: be32(&bytes, 60),
        snapshots_at: be64(&bytes, 64),
        has_backing: false,
        extended_l2: false,
        codec: Codec::Deflate,
        extensions: Extensions::default(),
        regions: Vec::new(),
    };
    if version >= 3 {
        header.version_3(&bytes, length, info)?;
    }
    // A program that does not know bitmaps clears the bit when it writes to the image. Then the
    // extension means nothing any more, and its clusters may have been used for something else.
    let bitmaps = version >= 3 && be64(&bytes, 88) & BITMAPS != 0;
    let method = be32(&bytes, 32);
    encryption(method, info);
    header.references(source, &bytes, length, info)?;
    // LUKS has an extension of its own, and nothing else has it.
    if header.extensions.encryption.is_some() != (method == LUKS) {
        info.find(Reason::BadHeader, 32, u64::from(method));
    }
    if !bitmaps {
        header.extensions.bitmaps = None;
    }
    header.tables(source, info)?;
    info.compression = Some(match header.codec {
        Codec::Zstd => "zstd",
        Codec::Deflate | Codec::Zlib => "zlib",
    });
    info.refcount_bits = Some(1 << header.refcount_order);
    Ok(header)
}

fn header_length(bytes: &[u8], version: u32, size: u64, cluster_bits: u32) -> Result<u64, Error> {
    if version == 2 {
        return Ok(LENGTH_2);
    }
    ensure(size >= LENGTH_3, Reason::Truncated, size, size)?;
    let length = u64::from(be32(bytes, 100));
    let good = length >= LENGTH_3 && length <= 1 << cluster_bits;
    ensure(good, Reason::BadHeader, 100, length)?;
    ensure(length <= size, Reason::Truncated, size, length)?;
    Ok(length)
}

fn encryption(method: u32, info: &mut Info) {
    let (name, reason) = match method {
        0 => return,
        AES => ("aes", Reason::Encrypted),
        LUKS => ("luks", Reason::Encrypted),
        _ => ("unknown", Reason::UnknownFeature),
    };
    info.encryption = Some(name);
    info.find(reason, 32, u64::from(method));
}

impl Header {
    pub(super) fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// The size of an L2 entry in bytes.
    pub(super) fn l2_entry_size(&self) -> u64 {
        if self.extended_l2 { 16 } else { 8 }
    }

    /// How many entries an L2 table has, which is as large as a cluster.
    pub(super) fn l2_entries(&self) -> u64 {
        self.cluster_size() / self.l2_entry_size()
    }

    fn version_3(&mut self, bytes: &[u8], length: u64, info: &mut Info) -> Result<(), Error> {
        let (incompatible, autoclear) = (be64(bytes, 72), be64(bytes, 88));
        features(incompatible, FeatureKind::Incompatible, INCOMPATIBLE, info);
        features(be64(bytes, 80), FeatureKind::Compatible, COMPATIBLE, info);
        features(autoclear, FeatureKind::Autoclear, AUTOCLEAR, info);
        for (bit, reason) in [
            (DIRTY, Reason::DirtyBit),
            (CORRUPT, Reason::CorruptBit),
            (DATA_FILE, Reason::DataFile),
            (!0 << INCOMPATIBLE.len(), Reason::UnknownFeature),
        ] {
            if incompatible & bit != 0 {
                info.find(reason, 72, incompatible);
            }
        }
        if autoclear & RAW_DATA_FILE != 0 && incompatible & DATA_FILE == 0 {
            info.find(Reason::BadHeader, 88, autoclear);
        }
        self.refcount_order = be32(bytes, 96);
        let order = u64::from(self.refcount_order);
        ensure(order <= 6, Reason::BadHeader, 96, order)?;
        self.extended_l2 = incompatible & EXTENDED_L2 != 0;
        let fits = !self.extended_l2 || self.cluster_bits >= SMALLEST_EXTENDED;
        ensure(fits, Reason::ClusterSize, 20, u64::from(self.cluster_bits))?;
        let kind = if length > LENGTH_3 {
            u8_at(bytes, 104)
        } else {
            0
        };
        // The bit is set exactly if the type is not 0, so that older readers do not open the image.
        let told = (incompatible & COMPRESSION_TYPE != 0) == (kind != 0);
        ensure(told, Reason::BadHeader, 104, u64::from(kind))?;
        match kind {
            0 => {}
            1 => self.codec = Codec::Zstd,
            _ => info.find(Reason::UnsupportedCompression, 104, u64::from(kind)),
        }
        Ok(())
    }

    fn references(
        &mut self,
        source: &mut dyn ReadAt,
        bytes: &[u8],
        length: u64,
        info: &mut Info,
    ) -> Result<(), Error> {
        let (at, size) = (be64(bytes, 8), u64::from(be32(bytes, 16)));
        let mut end = self.cluster_size().min(source.size());
        if at != 0 {
            let limit = u64::try_from(LONGEST_NAME).unwrap_or(0);
            let fits = at >= length && at <= end && size < limit && size <= end - at;
            ensure(fits, Reason::BadReference, 8, at)?;
            end = at;
        }
        self.has_backing = at != 0 && size != 0;
        if self.has_backing {
            info.find(Reason::BackingFile, 8, at);
            let name = extensions::name(source, at, size)?;
            info.refer_to_backing(ReferenceKind::Backing, &name, at);
        }
        self.extensions = extensions::walk(source, length, end, info)?;
        if let Some(told) = self.extensions.backing_format.filter(|_| self.has_backing) {
            info.backing_format = told.format;
            if told.format.is_none() {
                info.find(Reason::BackingFormat, told.at, told.length);
            }
        }
        Ok(())
    }

    /// Checks that the tables lie in the file and do not overlap.
    fn tables(&mut self, source: &mut dyn ReadAt, info: &mut Info) -> Result<(), Error> {
        info.snapshots = self.snapshots;
        self.claim(0, self.cluster_size(), 0)?;
        let (at, clusters) = (self.refcount_table, self.refcount_table_clusters);
        let bytes = clusters << self.cluster_bits;
        let good = clusters > 0 && bytes <= LARGEST_REFCOUNT_TABLE.max(self.cluster_size());
        ensure(good, Reason::TableSize, 56, clusters)?;
        self.check_table(source, at, bytes, 48)?;
        self.claim(at, bytes, 48)?;
        self.check_l1(source, self.l1, self.virtual_size, 40)?;
        self.claim(self.l1.offset, self.l1.entries * 8, 40)?;
        self.check_aligned(self.snapshots_at, 64)?;
        if self.snapshots > 0 {
            let many = u64::from(self.snapshots);
            let good = self.snapshots <= MOST_SNAPSHOTS;
            ensure(good, Reason::BadSnapshot, 60, many)?;
            // The table is at least so long; its entries have no fixed length.
            let least = many * snapshot::FIXED;
            self.check_table(source, self.snapshots_at, least, 64)?;
            self.claim(self.snapshots_at, least, 64)?;
        }
        // A list that is damaged speaks against the image whether or not a snapshot is asked for.
        match snapshot::walk(source, self, &mut |_| {}) {
            Err(Error::Refused(finding)) => info.find(finding.reason, finding.at, finding.value),
            other => other?,
        }
        Ok(())
    }

    /// Checks that an L1 table fits the disk and lies inside the file.
    pub(super) fn check_l1(
        &self,
        source: &dyn ReadAt,
        l1: L1,
        virtual_size: u64,
        at: u64,
    ) -> Result<(), Error> {
        let per_table = self.l2_entries() * self.cluster_size();
        let needed = virtual_size.div_ceil(per_table);
        let good = l1.entries >= needed && l1.entries * 8 <= LARGEST_L1;
        ensure(good, Reason::TableSize, at, l1.entries)?;
        match l1.entries {
            0 => self.check_aligned(l1.offset, at),
            entries => self.check_table(source, l1.offset, entries * 8, at),
        }
    }

    /// A table begins with a cluster, even one that is empty.
    fn check_aligned(&self, offset: u64, at: u64) -> Result<(), Error> {
        let aligned = offset.is_multiple_of(self.cluster_size());
        ensure(aligned, Reason::Unaligned, at, offset)
    }

    pub(super) fn check_table(
        &self,
        source: &dyn ReadAt,
        offset: u64,
        bytes: u64,
        at: u64,
    ) -> Result<(), Error> {
        self.check_aligned(offset, at)?;
        let end = offset.checked_add(bytes);
        let inside = end.is_some_and(|end| end <= source.size());
        ensure(inside, Reason::BeyondEnd, at, offset)
    }

    /// Notes that `bytes` bytes from `start` on hold metadata. Fails if other metadata lies there;
    /// `at` is the offset of the field that says where it is.
    fn claim(&mut self, start: u64, bytes: u64, at: u64) -> Result<(), Error> {
        if bytes == 0 {
            return Ok(());
        }
        let end = start + bytes.next_multiple_of(self.cluster_size());
        self.check_apart(start, end, at)?;
        self.regions.push(Span { start, end });
        Ok(())
    }

    /// Fails if the bytes from `start` to `end` overlap the header or a table that the header
    /// names.
    pub(super) fn check_apart(&self, start: u64, end: u64, at: u64) -> Result<(), Error> {
        let mut regions = self.regions.iter();
        let meets = regions.any(|region| region.meets(Span { start, end }));
        ensure(!meets, Reason::Overlap, at, start)
    }

    /// Fails if an L2 table does not lie in the file as a whole, or overlaps what the header names.
    pub(super) fn check_l2(&self, source: &dyn ReadAt, table: u64, at: u64) -> Result<(), Error> {
        let end = table.checked_add(self.cluster_size());
        let inside = end.is_some_and(|end| end <= source.size());
        ensure(inside, Reason::BeyondEnd, at, table)?;
        self.check_apart(table, table + self.cluster_size(), at)
    }

    /// Fails if a cluster begins behind the end of the file or overlaps metadata.
    pub(super) fn check_cluster(
        &self,
        source: &dyn ReadAt,
        cluster: u64,
        at: u64,
    ) -> Result<(), Error> {
        ensure(cluster < source.size(), Reason::BeyondEnd, at, cluster)?;
        self.check_apart(cluster, cluster + self.cluster_size(), at)
    }
}

fn features(bits: u64, kind: FeatureKind, names: &[&'static str], info: &mut Info) {
    for bit in (0..64).filter(|bit| bits >> bit & 1 == 1) {
        let name = usize::try_from(bit).ok().and_then(|index| names.get(index));
        info.features.push(Feature {
            kind,
            bit,
            name: name.copied(),
        });
    }
}
