//! Counts the clusters of persistent dirty bitmaps ("Bitmaps" in qcow2.txt): of their directory, of
//! the table of each bitmap, and those that the tables name.

use super::Check;
use super::window::Use;
use crate::bytes::{be16, be32, be64};
use crate::error::Error;
use crate::reason::Reason;
use crate::source::ReadAt;

/// How many bytes a directory entry has before its extra data.
const FIXED: u64 = 24;
/// The most entries that the table of a bitmap may have. QEMU has the same limit.
const MOST_ENTRIES: u32 = 0x800_0000;
/// Bits 9 to 55 of a table entry: an offset in the file.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

impl Check {
    pub(super) fn bitmaps(
        &mut self,
        source: &mut dyn ReadAt,
        offset: u64,
        bytes: u64,
        count: u32,
    ) -> Result<(), Error> {
        let end = offset.saturating_add(bytes);
        if !offset.is_multiple_of(self.header.cluster_size()) {
            self.fault(Reason::Unaligned, 0, offset);
            return Ok(());
        }
        self.mark(offset, bytes, Use::Single, 0)?;
        let mut at = offset;
        for _ in 0..count {
            self.work(1)?;
            if at.saturating_add(FIXED) > end.min(source.size()) {
                self.fault(Reason::BeyondEnd, at, end);
                return Ok(());
            }
            let mut entry = [0; 24];
            self.tables.copy(source, at, &mut entry)?;
            self.bitmap(source, be64(&entry, 0), be32(&entry, 8), at)?;
            let (name, extra) = (u64::from(be16(&entry, 18)), u64::from(be32(&entry, 20)));
            at = (at + FIXED + name + extra).next_multiple_of(8);
        }
        Ok(())
    }

    fn bitmap(
        &mut self,
        source: &mut dyn ReadAt,
        table: u64,
        entries: u32,
        at: u64,
    ) -> Result<(), Error> {
        let aligned = table.is_multiple_of(self.header.cluster_size());
        let end = table.saturating_add(u64::from(entries) * 8);
        if !aligned || entries > MOST_ENTRIES || end > source.size() {
            self.fault(Reason::BadEntry, at, table);
            return Ok(());
        }
        self.mark(table, u64::from(entries) * 8, Use::Single, at)?;
        for index in 0..u64::from(entries) {
            self.work(1)?;
            let at = table + index * 8;
            let cluster = self.tables.be64(source, at)? & OFFSET;
            if !cluster.is_multiple_of(self.header.cluster_size()) {
                self.fault(Reason::Unaligned, at, cluster);
            } else if cluster != 0 {
                self.mark(cluster, self.header.cluster_size(), Use::Single, at)?;
            }
        }
        Ok(())
    }
}
