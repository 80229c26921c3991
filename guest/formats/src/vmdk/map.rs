//! Finds the grain for an offset of the virtual disk, by the grain directory and a grain table
//! ("Hosted Sparse Extents" in the specification).

use crate::error::{Error, ensure};
use crate::mapping::{Codec, Compressed, Content, GRAIN_MARKER, Mapping, Marker, small};
use crate::reason::Reason;
use crate::source::ReadAt;
use crate::survey::{Entry, Table};
use crate::vmdk::{SECTOR, Vmdk};

/// The entry of a grain table that says that the grain is zero, if a flag in the header allows it.
const ZERO: u32 = 1;

impl Vmdk {
    /// What the entry for the grain at `offset` says. If there is no table for it, all that the
    /// table would be for is one entry.
    pub(crate) fn entry(&mut self, source: &mut dyn ReadAt, offset: u64) -> Result<Entry, Error> {
        let mapping = self.piece(source, offset)?;
        let header = self.header;
        let (_, table) = self.table(source, offset)?;
        if table == 0 {
            return Ok(Entry::of(mapping));
        }
        let takes = match mapping.content {
            Content::Data { offset } => offset..offset + header.grain_size,
            Content::Compressed(grain) => grain.offset..grain.offset + grain.length,
            Content::Zero | Content::Unwritten { .. } | Content::Backing => 0..0,
        };
        Ok(Entry {
            at: table + offset % header.per_table() / header.grain_size * 4,
            length: header.grain_size,
            mapping,
            takes,
        })
    }

    /// The grain table whose first entry is for the grain at `offset`. Nothing if no table begins
    /// there on the disk, or if the table does not lie in the file.
    pub(crate) fn whole_table(
        &mut self,
        source: &mut dyn ReadAt,
        offset: u64,
    ) -> Result<Option<Table>, Error> {
        if !offset.is_multiple_of(self.header.per_table()) {
            return Ok(None);
        }
        let (at, table) = self.table(source, offset)?;
        let table = self.described(at, table);
        Ok(table.filter(|table| table.takes.end <= source.size()))
    }

    /// The same table of the second grain directory, if there is one. Writers keep it like the first one,
    /// so that it has to lie in the file, apart from what the header names.
    pub(crate) fn second_table(
        &mut self,
        source: &mut dyn ReadAt,
        offset: u64,
    ) -> Result<Option<Table>, Error> {
        let second = self.header.second_directory;
        let Some(directory) = second.filter(|_| offset.is_multiple_of(self.header.per_table()))
        else {
            return Ok(None);
        };
        let (at, table) = self.named(source, directory.start, offset)?;
        let table = self.described(at, table);
        if let Some(Table { takes, .. }) = &table {
            ensure(
                takes.end <= source.size(),
                Reason::BeyondEnd,
                at,
                takes.start,
            )?;
            self.header.check_apart(takes.start, takes.end, at)?;
        }
        Ok(table)
    }

    /// The table at `table`, which the entry at `at` names, or nothing if that is 0.
    fn described(&self, at: u64, table: u64) -> Option<Table> {
        (table != 0).then(|| Table {
            at,
            takes: table..table + self.header.table_entries * 4,
            length: self.header.per_table(),
        })
    }

    /// The offset in the file of the directory's entry for `offset`, and that of the table that it
    /// names, or 0 if it names none.
    fn table(&mut self, source: &mut dyn ReadAt, offset: u64) -> Result<(u64, u64), Error> {
        self.named(source, self.header.directory.start, offset)
    }

    /// The same of the directory at `directory`.
    fn named(
        &mut self,
        source: &mut dyn ReadAt,
        directory: u64,
        offset: u64,
    ) -> Result<(u64, u64), Error> {
        let at = directory + offset / self.header.per_table() * 4;
        let table = u64::from(self.directories.le32(source, at)?) * SECTOR;
        Ok((at, table))
    }

    /// The piece at `offset`, as far as one table entry says it.
    pub(super) fn piece(&mut self, source: &mut dyn ReadAt, offset: u64) -> Result<Mapping, Error> {
        let header = self.header;
        let per_table = header.per_table();
        let (at, table) = self.table(source, offset)?;
        if table == 0 {
            return Ok(Mapping::hole(
                per_table - offset % per_table,
                self.has_backing(),
            ));
        }
        let end = table + header.table_entries * 4;
        ensure(end <= source.size(), Reason::BeyondEnd, at, table)?;
        header.check_apart(table, end, at)?;
        let skip = offset % header.grain_size;
        let length = header.grain_size - skip;
        let at = table + offset % per_table / header.grain_size * 4;
        let entry = self.tables.le32(source, at)?;
        if entry == 0 {
            return Ok(Mapping::hole(length, self.has_backing()));
        }
        if entry == ZERO && header.zero_grains {
            return Ok(Mapping::new(length, Content::Zero));
        }
        let grain = u64::from(entry) * SECTOR;
        ensure(grain < source.size(), Reason::BeyondEnd, at, grain)?;
        if header.compressed {
            let next = match at + 4 < end {
                true => self.tables.le32(source, at + 4)?,
                false => 0,
            };
            return self.compressed(source, grain, u64::from(next) * SECTOR, offset, at);
        }
        header.check_apart(grain, grain + header.grain_size, at)?;
        let (size, disk) = (header.grain_size, header.virtual_size);
        Mapping::whole(at, grain, size, offset, disk, source.size())
    }

    /// The same for who reads the grain. If no other grain limits what a compressed one takes, its
    /// marker is read here, so that a short grain before a hole is not read as if it were as long as
    /// it can be. Whoever inflates a grain compares its marker, so that a wrong one is passed over.
    pub(super) fn measured(
        &mut self,
        source: &mut dyn ReadAt,
        offset: u64,
    ) -> Result<Mapping, Error> {
        let mut mapping = self.piece(source, offset)?;
        if let Content::Compressed(grain) = &mut mapping.content
            && grain.length == self.most(source, grain.offset)
        {
            let mut head = [0; 12];
            self.markers.copy(source, grain.offset, &mut head)?;
            if let Ok(payload) = grain.payload_within(&head, grain.length) {
                grain.length = payload.end;
            }
        }
        Ok(mapping)
    }

    /// The most bytes that a compressed grain at `grain` can take.
    fn most(&self, source: &dyn ReadAt, grain: u64) -> u64 {
        let most = (GRAIN_MARKER + self.header.grain_size * 2).next_multiple_of(SECTOR);
        let end = self.header.end.min(source.size());
        most.min(end.saturating_sub(grain))
    }

    /// A compressed grain. Only its marker tells how many bytes it takes, and that is not read here, so
    /// that it is taken to have as many as it can have. If the `next` grain lies closer behind, as in
    /// stream-optimised files, this one ends there.
    fn compressed(
        &self,
        source: &dyn ReadAt,
        grain: u64,
        next: u64,
        offset: u64,
        at: u64,
    ) -> Result<Mapping, Error> {
        let size = self.header.grain_size;
        let skip = offset % size;
        let rest = self.header.virtual_size.saturating_sub(offset - skip);
        self.header
            .check_apart(grain, grain + GRAIN_MARKER + 1, at)?;
        let mut length = self.most(source, grain);
        if next > grain {
            length = length.min(next - grain);
        }
        ensure(length > GRAIN_MARKER, Reason::BeyondEnd, at, grain)?;
        let content = Content::Compressed(Compressed {
            offset: grain,
            length,
            codec: Codec::Zlib,
            least: small(size.min(rest)),
            size: small(size),
            skip: small(skip),
            marker: Marker::Grain {
                sector: (offset - skip) / SECTOR,
            },
        });
        Ok(Mapping::new(size - skip, content))
    }
}
