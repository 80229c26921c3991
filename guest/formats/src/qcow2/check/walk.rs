//! One pass of a check: it counts every use of a cluster that is in the window.

use alloc::vec::Vec;

use super::window::Use;
use super::{Check, ProblemKind};
use crate::bytes::be64;
use crate::error::Error;
use crate::qcow2::entry::{self, COPIED, Entry};
use crate::qcow2::header::Header;
use crate::qcow2::{L1, snapshot};
use crate::reason::Reason;
use crate::source::{ReadAt, len64, to_usize};

impl Check {
    pub(super) fn walk(&mut self, source: &mut dyn ReadAt) -> Result<(), Error> {
        let header = self.header.clone();
        let cluster = header.cluster_size();
        self.mark(0, cluster, Use::Single, 0);
        let table = header.refcount_table_clusters << header.cluster_bits;
        self.mark(header.refcount_table, table, Use::Single, 48);
        self.refcount_blocks(source, &header, table)?;
        self.l1(source, &header, header.l1, true, 40)?;
        self.snapshots(source, &header)?;
        if let Some((offset, bytes)) = header.extensions.encryption {
            self.mark(offset, bytes, Use::Single, 0);
        }
        if let Some((offset, bytes, count)) = header.extensions.bitmaps {
            self.bitmaps(source, offset, bytes, count)?;
        }
        Ok(())
    }

    /// Counts a use of the clusters in which the `bytes` bytes at `offset` lie. `at` is where in
    /// the file it is said that they lie there.
    pub(super) fn mark(&mut self, offset: u64, bytes: u64, kind: Use, at: u64) {
        if bytes == 0 {
            return;
        }
        let bits = self.header.cluster_bits;
        let last = offset.saturating_add(bytes - 1) >> bits;
        if last >= self.clusters {
            self.fault(Reason::BeyondEnd, at, offset);
        }
        self.window.mark(offset >> bits, last, kind);
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
                None => self.mark(block, header.cluster_size(), Use::Single, at),
            }
        }
        Ok(())
    }

    fn snapshots(&mut self, source: &mut dyn ReadAt, header: &Header) -> Result<(), Error> {
        let mut at = header.snapshots_at;
        let mut end = at;
        for _ in 0..header.snapshots {
            self.work(1)?;
            let found = match snapshot::entry(&mut self.tables, source, at) {
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
            match header.check_l1(source, l1, 0, at) {
                Err(Error::Refused(finding)) => self.fault(finding.reason, at, l1.offset),
                other => {
                    other?;
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
        );
        Ok(())
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
        self.mark(l1.offset, l1.entries * 8, Use::Single, at);
        for index in 0..l1.entries {
            self.work(1)?;
            let at = l1.offset + index * 8;
            let value = self.tables.be64(source, at)?;
            let table = match entry::l2_table(header, value, at) {
                Err(Error::Refused(finding)) => {
                    self.fault(finding.reason, at, value);
                    continue;
                }
                other => other?,
            };
            let Some(table) = table else { continue };
            self.mark(table, header.cluster_size(), Use::Table, at);
            if active {
                self.copied(source, value, table, at)?;
            }
            if table + header.cluster_size() <= source.size() {
                self.l2(source, header, table, active)?;
            }
        }
        Ok(())
    }

    fn l2(
        &mut self,
        source: &mut dyn ReadAt,
        header: &Header,
        table: u64,
        active: bool,
    ) -> Result<(), Error> {
        let size = header.l2_entry_size();
        let mut at = table;
        let end = table + header.cluster_size();
        let mut line = Vec::new();
        while at < end {
            line.clear();
            let bytes = self.inner.bytes(source, at, 8)?;
            let there = (end - at).min(len64(bytes));
            let bytes = bytes.get(..to_usize(there)).unwrap_or_default();
            line.extend(bytes.chunks_exact(8).map(|entry| be64(entry, 0)));
            // An extended entry has 16 bytes, and the second half of them is a bitmap.
            for within in (0..there).step_by(if size == 16 { 16 } else { 8 }) {
                self.work(1)?;
                let index = to_usize(within / 8);
                let value = line.get(index).copied().unwrap_or(0);
                if value != 0 {
                    self.entry(source, header, value, at + within, active)?;
                }
                if size == 16 {
                    let bitmap = line.get(index + 1).copied().unwrap_or(0);
                    self.subclusters(header, value, bitmap, at + within);
                }
            }
            at += there;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        source: &mut dyn ReadAt,
        header: &Header,
        value: u64,
        at: u64,
        active: bool,
    ) -> Result<(), Error> {
        let count = u64::from(active && self.first_pass());
        match entry::decode(header, value, at) {
            Err(Error::Refused(finding)) => self.fault(finding.reason, at, value),
            Err(error) => return Err(error),
            Ok(Entry::Compressed { offset, length }) => {
                let length = length.min(source.size().saturating_sub(offset).max(1));
                self.mark(offset, length, Use::Data, at);
                self.report.allocated += count;
                self.report.compressed += count;
            }
            Ok(Entry::Allocated(cluster) | Entry::Zero(cluster)) if cluster != 0 => {
                self.mark(cluster, header.cluster_size(), Use::Data, at);
                self.report.allocated += count;
                if active {
                    self.copied(source, value, cluster, at)?;
                }
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

    fn copied(
        &mut self,
        source: &mut dyn ReadAt,
        value: u64,
        cluster: u64,
        at: u64,
    ) -> Result<(), Error> {
        if !self.first_pass() {
            return Ok(());
        }
        let refcount = self.refcount(source, cluster >> self.header.cluster_bits)?;
        if (value & COPIED != 0) != (refcount == 1) {
            self.problem(ProblemKind::CopiedFlag, at, value, refcount);
        }
        Ok(())
    }
}
