//! One pass of a check: it counts every use of a cluster that is in the window.

use super::window::Use;
use super::{Check, ProblemKind};
use crate::bytes::be64;
use crate::error::Error;
use crate::qcow2::entry::{self, COPIED, Entry};
use crate::qcow2::extensions::Encryption;
use crate::qcow2::header::Header;
use crate::qcow2::{L1, snapshot};
use crate::reason::Reason;
use crate::source::{ReadAt, len64, to_usize};

/// As how many table entries a snapshot counts, without its L1 table: it has a name and an id.
const SNAPSHOT: u64 = 20;

impl Check {
    pub(super) fn walk(&mut self, source: &mut dyn ReadAt) -> Result<(), Error> {
        let header = self.header.clone();
        let cluster = header.cluster_size();
        self.mark(0, cluster, Use::Single, 0)?;
        let table = header.refcount_table_clusters << header.cluster_bits;
        self.mark(header.refcount_table, table, Use::Single, 48)?;
        self.refcount_blocks(source, &header, table)?;
        self.l1(source, &header, header.l1, true, 40)?;
        self.snapshots(source, &header)?;
        if let Some(Encryption { at, offset, bytes }) = header.extensions.encryption {
            let aligned = offset.is_multiple_of(cluster);
            self.expect(aligned, Reason::Unaligned, at, offset);
            self.mark(offset, bytes, Use::Single, at)?;
        }
        if let Some((at, length)) = header.extensions.bitmaps {
            self.bitmaps(source, at, length)?;
        }
        Ok(())
    }

    /// Counts a use of the clusters in which the `bytes` bytes at `offset` lie. `at` is where in
    /// the file it is said that they lie there.
    pub(super) fn mark(
        &mut self,
        offset: u64,
        bytes: u64,
        kind: Use,
        at: u64,
    ) -> Result<(), Error> {
        if bytes == 0 {
            return Ok(());
        }
        let bits = self.header.cluster_bits;
        let last = offset.saturating_add(bytes - 1) >> bits;
        let beyond = match kind {
            // The file may end within the last cluster of data.
            Use::Data => last >= self.clusters,
            Use::Single | Use::Table => offset.saturating_add(bytes) > self.size,
        };
        if beyond {
            self.fault(Reason::BeyondEnd, at, offset);
        }
        let first = offset >> bits;
        self.work(self.window.within(first, last))?;
        self.window.mark(first, last, kind);
        Ok(())
    }

    fn refcount_blocks(
        &mut self,
        source: &mut dyn ReadAt,
        header: &Header,
        table: u64,
    ) -> Result<(), Error> {
        for at in (0..table).step_by(8).map(|at| header.refcount_table + at) {
            self.work(1)?;
            let block = self.tables.be64(source, at)?;
            if block == 0 {
                continue;
            }
            match self.block_fault(source, block) {
                Some(reason) => self.fault(reason, at, block),
                None => self.mark(block, header.cluster_size(), Use::Single, at)?,
            }
        }
        Ok(())
    }

    fn snapshots(&mut self, source: &mut dyn ReadAt, header: &Header) -> Result<(), Error> {
        let mut at = header.snapshots_at;
        let mut end = at;
        // Each snapshot has a table of its own, so that together they fit into the file.
        let mut room = source.size() / 8;
        for _ in 0..header.snapshots {
            self.work(SNAPSHOT)?;
            let found = match snapshot::entry(&mut self.tables, source, header, at) {
                Err(Error::Refused(finding)) => {
                    self.fault(finding.reason, finding.at, finding.value);
                    break;
                }
                other => other?,
            };
            end = found.end;
            let l1 = L1 {
                offset: found.l1_offset,
                entries: u64::from(found.l1_entries),
            };
            // Version 3 wants the size of the disk in each entry.
            let sized = header.version < 3 || found.disk_size.is_some();
            self.expect(sized, Reason::BadSnapshot, at, 0);
            match header.check_l1(source, l1, 0, at) {
                Err(Error::Refused(finding)) => self.fault(finding.reason, at, l1.offset),
                Ok(()) if l1.entries > room => self.fault(Reason::Overlap, at, l1.offset),
                other => {
                    other?;
                    room -= l1.entries;
                    self.l1(source, header, l1, false, at)?;
                }
            }
            at = end.next_multiple_of(8);
        }
        self.mark(
            header.snapshots_at,
            end - header.snapshots_at,
            Use::Single,
            64,
        )
    }

    /// Goes through an L1 table and its L2 tables. Only of the disk's own table (`active`) the
    /// "refcount is one" flags are checked and the clusters summed up.
    fn l1(
        &mut self,
        source: &mut dyn ReadAt,
        header: &Header,
        l1: L1,
        active: bool,
        at: u64,
    ) -> Result<(), Error> {
        self.mark(l1.offset, l1.entries * 8, Use::Single, at)?;
        let counts = active && self.first_pass();
        let per_table = header.l2_entries() * header.cluster_size();
        for index in 0..l1.entries {
            self.work(1)?;
            let at = l1.offset + index * 8;
            let start = index * per_table;
            let bytes = match counts {
                true => header.virtual_size.saturating_sub(start).min(per_table),
                false => 0,
            };
            let value = self.tables.be64(source, at)?;
            let table = match entry::l2_table(header, value, at) {
                Err(Error::Refused(finding)) => {
                    self.fault(finding.reason, at, value);
                    self.report.contents.lost += bytes;
                    continue;
                }
                other => other?,
            };
            let Some(table) = table else {
                if value != 0 {
                    // The flag says that there is a table, and there is none.
                    self.fault(Reason::BadEntry, at, value);
                }
                self.report.contents.add_hole(header, bytes);
                continue;
            };
            self.mark(table, header.cluster_size(), Use::Table, at)?;
            if active {
                self.copied(source, value, table, at)?;
            }
            if table + header.cluster_size() <= source.size() {
                self.l2(source, header, table, active, bytes)?;
            } else {
                self.report.contents.lost += bytes;
            }
        }
        Ok(())
    }

    /// Goes through an L2 table, unless it names nothing in this pass's window. `bytes` of the disk,
    /// from the first cluster of the table on, are to be summed up, in the first pass.
    fn l2(
        &mut self,
        source: &mut dyn ReadAt,
        header: &Header,
        table: u64,
        active: bool,
        mut bytes: u64,
    ) -> Result<(), Error> {
        let first_pass = self.first_pass();
        let cluster = header.cluster_size();
        let window = self.window.start() * cluster..self.window.end().saturating_mul(cluster);
        if !first_pass && !self.reach.meet(self.window.number_of(self.window.start())) {
            return Ok(());
        }
        // The first byte of the file that an entry names, and the end of what all of them name.
        let (mut first, mut last) = (u64::MAX, 0);
        let step = header.l2_entry_size();
        let words = to_usize(step / 8);
        let end = table + header.cluster_size();
        let mut at = table;
        let mut line = core::mem::take(&mut self.line);
        while at < end {
            let there = self.inner.bytes(source, at, 8)?;
            let length = (end - at).min(len64(there));
            let there = there.get(..to_usize(length)).unwrap_or_default();
            line.clear();
            line.extend(there.chunks_exact(8).map(|entry| be64(entry, 0)));
            self.work(length / step)?;
            for (at, entry) in (at..).step_by(to_usize(step)).zip(line.chunks(words)) {
                let here = bytes.min(header.cluster_size());
                bytes -= here;
                let value = entry.first().copied().unwrap_or_default();
                let named = entry::named(header, value).unwrap_or_default();
                if !first_pass && (named.end <= window.start || named.start >= window.end) {
                    continue;
                }
                if !named.is_empty() {
                    (first, last) = (first.min(named.start), last.max(named.end));
                }
                // An extended entry has 16 bytes, and the second half of them is a bitmap.
                match *entry {
                    [0] | [0, 0] => self.report.contents.add_hole(header, here),
                    [value] => self.entry(source, header, (value, 0), at, active, here)?,
                    [value, bitmap] => {
                        self.entry(source, header, (value, bitmap), at, active, here)?;
                        self.subclusters(header, value, bitmap, at);
                    }
                    _ => {}
                }
            }
            at += length;
        }
        self.line = line;
        if first_pass {
            let number = |offset: u64| self.window.number_of(offset / cluster);
            let windows = (first < last).then(|| number(first)..number(last - 1) + 1);
            self.reach.note(windows);
        }
        Ok(())
    }

    fn entry(
        &mut self,
        source: &mut dyn ReadAt,
        header: &Header,
        (value, bitmap): (u64, u64),
        at: u64,
        active: bool,
        bytes: u64,
    ) -> Result<(), Error> {
        let count = u64::from(active && self.first_pass());
        let decoded = entry::decode(header, value, at);
        if bytes > 0 {
            let sums = &mut self.report.contents;
            sums.add_cluster(header, decoded, bitmap, bytes, self.size);
        }
        match decoded {
            Err(Error::Refused(finding)) => self.fault(finding.reason, at, value),
            Err(error) => return Err(error),
            Ok(Entry::Compressed { offset, length }) => {
                if !entry::is_inside(offset, length, self.size) {
                    self.fault(Reason::BeyondEnd, at, offset);
                }
                let there = length.min(self.size.saturating_sub(offset));
                self.mark(offset, there, Use::Data, at)?;
                self.report.allocated += count;
            }
            Ok(Entry::Allocated(cluster) | Entry::Zero(cluster)) if cluster != 0 => {
                self.mark(cluster, header.cluster_size(), Use::Data, at)?;
                self.report.allocated += count;
                if active {
                    self.copied(source, value, cluster, at)?;
                }
            }
            // The flag says that there is a cluster, and there is none.
            Ok(_) if active && value & COPIED != 0 && self.first_pass() => {
                self.problem(ProblemKind::CopiedFlag, at, value, 0);
            }
            Ok(_) => {}
        }
        Ok(())
    }

    /// Checks the bitmap of an extended entry, unless the entry itself is wrong.
    fn subclusters(&mut self, header: &Header, value: u64, bitmap: u64, at: u64) {
        if let Ok(entry) = entry::decode(header, value, at)
            && let Err(Error::Refused(finding)) = entry::check_bitmap(entry, bitmap, at)
        {
            self.fault(finding.reason, finding.at, bitmap);
        }
    }

    /// Checks the flag that says that the refcount is one, in the pass in whose window the cluster is.
    fn copied(
        &mut self,
        source: &mut dyn ReadAt,
        value: u64,
        cluster: u64,
        at: u64,
    ) -> Result<(), Error> {
        let number = cluster >> self.header.cluster_bits;
        let flag = value & COPIED != 0;
        if self.window.is_one(number).is_some_and(|one| one != flag) {
            // What the refcount is has to be looked up, which is done while there is room to tell.
            let refcount = match self.has_room() {
                true => self.refcount(source, number)?,
                false => 0,
            };
            self.problem(ProblemKind::CopiedFlag, at, value, refcount);
        }
        Ok(())
    }
}
