//! The formats that a file may have, and their names.

/// A format that a file may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Format {
    /// The bytes of a disk as they are.
    Raw,
    /// QEMU's format, version 2 or 3.
    Qcow2,
    /// QEMU's format, version 1.
    Qcow,
    /// QEMU enhanced disk.
    Qed,
    /// VMware's format: a sparse image, a stream-optimised one, or a descriptor alone.
    Vmdk,
    /// Virtual PC's format: fixed, dynamic or differencing.
    Vhd,
    /// Hyper-V's format.
    Vhdx,
    /// VirtualBox's format.
    Vdi,
    /// Linux Unified Key Setup, an encrypted disk.
    Luks,
    /// Parallels' format.
    Parallels,
    /// Apple's disk image.
    Dmg,
    /// The content of a CD or DVD, which is read as a raw disk.
    Iso,
    /// The Bochs emulator's growing disk.
    Bochs,
    /// A compressed loop image.
    Cloop,
    /// The Expert Witness format of forensic tools.
    Ewf,
    /// Compressed by gzip.
    Gzip,
    /// Compressed by xz.
    Xz,
    /// Compressed by zstd.
    Zstd,
    /// Compressed by bzip2.
    Bzip2,
    /// A tar archive, which an OVA appliance is.
    Tar,
    /// A zip archive.
    Zip,
    /// A 7z archive.
    SevenZip,
}

impl Format {
    /// All formats.
    pub const ALL: &[Self] = &[
        Self::Raw,
        Self::Qcow2,
        Self::Qcow,
        Self::Qed,
        Self::Vmdk,
        Self::Vhd,
        Self::Vhdx,
        Self::Vdi,
        Self::Luks,
        Self::Parallels,
        Self::Dmg,
        Self::Iso,
        Self::Bochs,
        Self::Cloop,
        Self::Ewf,
        Self::Gzip,
        Self::Xz,
        Self::Zstd,
        Self::Bzip2,
        Self::Tar,
        Self::Zip,
        Self::SevenZip,
    ];

    /// The name that this project has for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Qcow => "qcow",
            Self::Qed => "qed",
            Self::Vmdk => "vmdk",
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
            Self::Vdi => "vdi",
            Self::Luks => "luks",
            Self::Parallels => "parallels",
            Self::Dmg => "dmg",
            Self::Iso => "iso",
            Self::Bochs => "bochs",
            Self::Cloop => "cloop",
            Self::Ewf => "ewf",
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Tar => "tar",
            Self::Zip => "zip",
            Self::SevenZip => "7z",
        }
    }

    /// The name that qemu-img has for it. What that tool does not know it takes for raw.
    #[must_use]
    pub const fn qemu_name(self) -> &'static str {
        match self {
            Self::Vhd => "vpc",
            Self::Qcow2
            | Self::Qcow
            | Self::Qed
            | Self::Vmdk
            | Self::Vhdx
            | Self::Vdi
            | Self::Luks
            | Self::Parallels
            | Self::Dmg
            | Self::Bochs
            | Self::Cloop => self.name(),
            _ => "raw",
        }
    }

    /// The format that is called `name` here or in qemu-img.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let all = || Self::ALL.iter().copied();
        let own = all().find(|format| format.name() == name);
        own.or_else(|| all().find(|format| format.qemu_name() == name))
    }

    /// Whether a file of this format is no disk, but an archive in which a disk may be packed.
    #[must_use]
    pub const fn is_archive(self) -> bool {
        matches!(
            self,
            Self::Gzip
                | Self::Xz
                | Self::Zstd
                | Self::Bzip2
                | Self::Tar
                | Self::Zip
                | Self::SevenZip
        )
    }

    /// Whether a disk of this format can be read by [`Image`](crate::Image).
    #[must_use]
    pub const fn is_read(self) -> bool {
        matches!(
            self,
            Self::Raw | Self::Iso | Self::Qcow2 | Self::Vmdk | Self::Vhd | Self::Vhdx | Self::Vdi
        )
    }
}

/// A set of formats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FormatSet(u32);

const _: () = assert!(Format::ALL.len() <= 32);

impl FormatSet {
    /// The same set with `format` added.
    #[must_use]
    pub const fn with(self, format: Format) -> Self {
        Self(self.0 | 1 << format as u32)
    }

    /// Whether `format` is in the set.
    #[must_use]
    pub const fn contains(self, format: Format) -> bool {
        self.0 & 1 << format as u32 != 0
    }

    /// How many formats are in the set.
    #[must_use]
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether no format is in the set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The formats of the set, in the order of [`Format::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Format> {
        let all = Format::ALL.iter().copied();
        all.filter(move |format| self.contains(*format))
    }
}
