//! Finds the cluster for an offset of the virtual disk, by the L1 and L2 tables ("Cluster mapping"
//! in qcow2.txt).

use crate::bytes::be64;
use crate::error::{Error, ensure};
use crate::mapping::{Compressed, Content, Mapping, Marker, small};
use crate::qcow2::Qcow2;
use crate::qcow2::entry::{self, Entry};
use crate::reason::Reason;
use crate::source::ReadAt;

/// How many subclusters a cluster has, if L2 entries are extended ("Extended L2 Entries").
pub(super) const SUBCLUSTERS: u64 = 32;

impl Qcow2 {
    /// The piece at `offset`, as far as one table entry says it.
    pub(crate) fn piece(&mut self, source: &mut dyn ReadAt, offset: u64) -> Result<Mapping, Error> {
        let cluster_size = self.header.cluster_size();
        let per_table = self.header.l2_entries() * cluster_size;
        let has_backing = self.header.has_backing;
        let index = offset / per_table;
        ensure(
            index < self.l1.entries,
            Reason::TableSize,
            self.l1.offset,
            index,
        )?;
        let at = self.l1.offset + index * 8;
        let l1_entry = self.l1_cache.be64(source, at)?;
        let Some(table) = entry::l2_table(&self.header, l1_entry, at)? else {
            return Ok(Mapping::hole(per_table - offset % per_table, has_backing));
        };
        self.header.check_l2(source, table, at)?;
        let within = offset % per_table;
        let size = self.header.l2_entry_size();
        let at = table + within / cluster_size * size;
        let bytes = self
            .l2_cache
            .bytes(source, at, if size == 16 { 16 } else { 8 })?;
        let (l2_entry, bitmap) = (be64(bytes, 0), be64(bytes, 8));
        let decoded = entry::decode(&self.header, l2_entry, at)?;
        if self.header.extended_l2 {
            entry::check_bitmap(decoded, bitmap, at)?;
        }
        let skip = offset % cluster_size;
        match decoded {
            Entry::Compressed { offset, length } => {
                self.compressed(source, offset, length, skip, at)
            }
            Entry::Zero(_) => Ok(Mapping::new(cluster_size - skip, Content::Zero)),
            _ if self.header.extended_l2 => self.subclusters(source, decoded, bitmap, skip, at),
            Entry::Unallocated => Ok(Mapping::hole(cluster_size - skip, has_backing)),
            Entry::Allocated(cluster) => {
                self.header.check_cluster(source, cluster, at)?;
                Mapping::data(cluster, skip, cluster_size - skip, source.size())
            }
        }
    }

    fn compressed(
        &self,
        source: &dyn ReadAt,
        offset: u64,
        length: u64,
        skip: u64,
        at: u64,
    ) -> Result<Mapping, Error> {
        let size = source.size();
        let inside = entry::is_inside(offset, length, size);
        ensure(inside, Reason::BeyondEnd, at, offset)?;
        let length = length.min(size - offset);
        self.header.check_apart(offset, offset + length, at)?;
        let cluster_size = self.header.cluster_size();
        let content = Content::Compressed(Compressed {
            offset,
            length,
            codec: self.header.codec,
            least: small(cluster_size),
            size: small(cluster_size),
            skip: small(skip),
            marker: Marker::None,
        });
        Ok(Mapping::new(cluster_size - skip, content))
    }

    /// The piece from the byte `skip` of a cluster on, as far as its subclusters are of one kind.
    /// The bitmap of the entry was checked before.
    fn subclusters(
        &self,
        source: &dyn ReadAt,
        entry: Entry,
        bitmap: u64,
        skip: u64,
        at: u64,
    ) -> Result<Mapping, Error> {
        let (allocated, zero) = (bitmap & 0xffff_ffff, bitmap >> 32);
        let cluster = match entry {
            Entry::Allocated(cluster) => cluster,
            _ => 0,
        };
        let size = self.header.cluster_size() / SUBCLUSTERS;
        let state = |index: u64| (allocated >> index & 1, zero >> index & 1);
        let first = skip / size;
        let alike = (first..SUBCLUSTERS).take_while(|index| state(*index) == state(first));
        let last = alike.last().unwrap_or(first);
        let length = (last + 1) * size - skip;
        match state(first) {
            (1, _) => {
                self.header.check_cluster(source, cluster, at)?;
                Mapping::data(cluster, skip, length, source.size())
            }
            (_, 1) => Ok(Mapping::new(length, Content::Zero)),
            _ => Ok(Mapping::hole(length, self.header.has_backing)),
        }
    }
}
