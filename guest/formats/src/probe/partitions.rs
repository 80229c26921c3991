//! Partition tables at the start of a disk: MBR (the sector that a PC boots from) and GPT (UEFI
//! 2.10, section 5.3).

use crate::bytes::{has, le32, u8_at};
use crate::error::Error;
use crate::source::{ReadAt, prefix};

/// The kind of a partition table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionTable {
    /// The table of four entries in the first sector.
    Mbr,
    /// A GUID partition table.
    Gpt,
}

impl PartitionTable {
    /// `mbr` or `gpt`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mbr => "mbr",
            Self::Gpt => "gpt",
        }
    }
}

/// The table at the start of `disk`.
pub(crate) fn table(disk: &mut dyn ReadAt) -> Result<Option<PartitionTable>, Error> {
    let start: [u8; 4608] = prefix(disk)?;
    // The header is in the second sector, of 512 or of 4096 bytes.
    if has(&start, 512, b"EFI PART") || has(&start, 4096, b"EFI PART") {
        return Ok(Some(PartitionTable::Gpt));
    }
    Ok(is_mbr(&start).then_some(PartitionTable::Mbr))
}

/// Whether a first sector has a table of partitions. The mark at its end is not enough, since any
/// boot sector has it, that of a FAT file system too. The entries must make sense, and one must be
/// in use.
fn is_mbr(sector: &[u8]) -> bool {
    if !has(sector, 510, b"\x55\xaa") {
        return false;
    }
    let mut used = 0;
    for entry in 0..4 {
        let at = 446 + entry * 16;
        let kind = u8_at(sector, at + 4);
        let (first, sectors) = (le32(sector, at + 8), le32(sector, at + 12));
        if u8_at(sector, at) & 0x7f != 0 {
            return false;
        }
        if kind != 0 {
            // The first sector may be 0: the partition of a hybrid CD begins there.
            if sectors == 0 || first.checked_add(sectors - 1).is_none() {
                return false;
            }
            used += 1;
        }
    }
    used > 0
}
