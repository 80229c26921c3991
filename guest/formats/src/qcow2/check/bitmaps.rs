//! Counts the clusters of persistent dirty bitmaps ("Bitmaps" in qcow2.txt): of their directory, of
//! the table of each bitmap, and those that the tables name. What the header extension and the
//! directory say is held against what the format allows.

use super::Check;
use super::window::Use;
use crate::bytes::{be16, be32, be64, u8_at};
use crate::error::Error;
use crate::reason::Reason;
use crate::source::ReadAt;

/// How many bytes the header extension has.
const EXTENSION: u64 = 24;
/// How many bytes a directory entry has before its extra data.
const FIXED: u64 = 24;
/// The flags of a bitmap: it is in use, it is to be kept up to date, its extra data may be ignored.
const IN_USE: u32 = 1;
const KNOWN: u32 = 0b111;
/// The one type that there is: a dirty tracking bitmap.
const DIRTY_TRACKING: u8 = 1;
/// The most bits that the granularity may have.
const COARSEST: u8 = 63;
/// The most entries that the table of a bitmap may have. QEMU has the same limit.
const MOST_ENTRIES: u32 = 0x800_0000;
/// Bits 9 to 55 of a table entry: an offset in the file.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Bit 0 of a table entry without an offset: all bits of its part of the bitmap are set.
const ALL_ONES: u64 = 1;

impl Check {
    /// Goes through the bitmaps of which the header extension tells that has `length` bytes at `at`.
    pub(super) fn bitmaps(
        &mut self,
        source: &mut dyn ReadAt,
        at: u64,
        length: u64,
    ) -> Result<(), Error> {
        if length != EXTENSION {
            self.fault(Reason::BadHeader, at - 4, length);
            return Ok(());
        }
        let mut extension = [0; 24];
        self.tables.copy(source, at, &mut extension)?;
        let (count, reserved) = (be32(&extension, 0), be32(&extension, 4));
        let (bytes, offset) = (be64(&extension, 8), be64(&extension, 16));
        self.expect(count > 0, Reason::BadHeader, at, 0);
        self.expect(reserved == 0, Reason::ReservedBits, at + 4, reserved.into());
        if !offset.is_multiple_of(self.header.cluster_size()) {
            self.fault(Reason::Unaligned, at + 16, offset);
            return Ok(());
        }
        self.mark(offset, bytes, Use::Single, at + 16)?;
        let end = offset.saturating_add(bytes);
        let mut next = offset;
        for _ in 0..count {
            self.work(1)?;
            let place = next;
            if place.saturating_add(FIXED) > end.min(source.size()) {
                self.fault(Reason::BeyondEnd, place, end);
                return Ok(());
            }
            let mut entry = [0; 24];
            self.tables.copy(source, place, &mut entry)?;
            let (kind, granularity) = (u8_at(&entry, 16), u8_at(&entry, 17));
            let (name, extra) = (u64::from(be16(&entry, 18)), u64::from(be32(&entry, 20)));
            if kind != DIRTY_TRACKING || granularity > COARSEST || name == 0 {
                // Whether there is another entry behind such a one is not known.
                self.fault(Reason::BadEntry, place + 16, be64(&entry, 16));
                return Ok(());
            }
            next = (place + FIXED + name + extra).next_multiple_of(8);
            if next > end {
                self.fault(Reason::BeyondEnd, place, next);
                return Ok(());
            }
            self.bitmap(source, &entry, place)?;
        }
        // The directory is as long as its entries.
        self.expect(next == end, Reason::BadHeader, at + 8, bytes);
        Ok(())
    }

    /// Goes through one bitmap, whose directory entry lies at `at`.
    fn bitmap(&mut self, source: &mut dyn ReadAt, entry: &[u8; 24], at: u64) -> Result<(), Error> {
        let (table, entries, flags) = (be64(entry, 0), be32(entry, 8), be32(entry, 12));
        self.expect(
            flags & !KNOWN == 0,
            Reason::ReservedBits,
            at + 12,
            flags.into(),
        );
        let cluster = self.header.cluster_size();
        // There is a bit for each granule of the disk. A bitmap that was in use when the image was last
        // written may be for a disk of another size.
        let bits = self
            .header
            .virtual_size
            .div_ceil(1 << u8_at(entry, 17).min(COARSEST));
        let fits = match flags & IN_USE {
            0 => u64::from(entries) == bits.div_ceil(cluster * 8),
            _ => entries > 0,
        };
        let aligned = table.is_multiple_of(cluster);
        let end = table.saturating_add(u64::from(entries) * 8);
        if !aligned || !fits || entries > MOST_ENTRIES || end > source.size() {
            self.fault(Reason::BadEntry, at, table);
            return Ok(());
        }
        self.mark(table, u64::from(entries) * 8, Use::Single, at)?;
        for index in 0..u64::from(entries) {
            self.work(1)?;
            let at = table + index * 8;
            let entry = self.tables.be64(source, at)?;
            let data = entry & OFFSET;
            let flag = if data == 0 { ALL_ONES } else { 0 };
            let known = entry & !(OFFSET | flag) == 0;
            self.expect(known, Reason::ReservedBits, at, entry);
            if !data.is_multiple_of(cluster) {
                self.fault(Reason::Unaligned, at, data);
            } else if data != 0 {
                self.mark(data, cluster, Use::Single, at)?;
            }
        }
        Ok(())
    }
}
