//! File systems that fill a disk without partitions. A file that begins with one is a raw disk.

use crate::bytes::has;
use crate::error::Error;
use crate::source::{ReadAt, prefix};

/// What lies on a disk without partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// ext2, ext3 or ext4.
    Ext,
    /// XFS.
    Xfs,
    /// NTFS.
    Ntfs,
    /// exFAT.
    ExFat,
    /// FAT12, FAT16 or FAT32.
    Fat,
    /// SquashFS.
    SquashFs,
    /// Swap space of Linux.
    Swap,
    /// A physical volume of LVM 2.
    Lvm,
}

impl FileSystem {
    /// Its name in small letters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ext => "ext",
            Self::Xfs => "xfs",
            Self::Ntfs => "ntfs",
            Self::ExFat => "exfat",
            Self::Fat => "fat",
            Self::SquashFs => "squashfs",
            Self::Swap => "swap",
            Self::Lvm => "lvm",
        }
    }
}

const MAGIC: &[(FileSystem, usize, &[u8])] = &[
    (FileSystem::Ext, 1080, b"\x53\xef"),
    (FileSystem::Xfs, 0, b"XFSB"),
    (FileSystem::Ntfs, 3, b"NTFS    "),
    (FileSystem::ExFat, 3, b"EXFAT   "),
    (FileSystem::Fat, 54, b"FAT1"),
    (FileSystem::Fat, 82, b"FAT32   "),
    (FileSystem::SquashFs, 0, b"hsqs"),
    (FileSystem::Swap, 4086, b"SWAPSPACE2"),
    (FileSystem::Lvm, 512, b"LABELONE"),
];

/// The file system at the start of `disk`.
pub(crate) fn file_system(source: &mut dyn ReadAt) -> Result<Option<FileSystem>, Error> {
    let start: [u8; 4096] = prefix(source)?;
    let mut all = MAGIC.iter();
    let found = all.find(|(_, at, magic)| has(&start, *at, magic));
    Ok(found.map(|(file_system, _, _)| *file_system))
}
