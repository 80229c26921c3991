//! What the headers say of formats that are recognised and not read: the size of the disk, and the
//! files that the image names.
//!
//! What a header does not tell is left out. The image is refused in any case.

use crate::bytes::{be16, be32, be64, has, le32, le64, u8_at};
use crate::error::Error;
use crate::format::Format;
use crate::info::{Info, LONGEST_NAME, Options, ReferenceKind};
use crate::reason::Reason;
use crate::source::{ReadAt, prefix, read, to_usize};

/// Reads what the header of such a format tells into `info`.
pub(crate) fn inspect(
    source: &mut dyn ReadAt,
    info: &mut Info,
    options: &Options,
) -> Result<(), Error> {
    let bytes: [u8; 512] = prefix(source)?;
    match info.format {
        // Described in docs/interop/qed_spec.rst of QEMU's sources.
        Format::Qed => {
            info.cluster_size = Some(u64::from(le32(&bytes, 4)));
            info.set_size(le64(&bytes, 48), 48, options);
            let (at, length) = (le32(&bytes, 56), le32(&bytes, 60));
            if le64(&bytes, 16) & 1 != 0 {
                backing(source, 56, u64::from(at), length, info)?;
            }
        }
        // Described by block/qcow.c of QEMU's sources.
        Format::Qcow => {
            info.version = Some(1);
            info.cluster_size = 1_u64.checked_shl(u32::from(u8_at(&bytes, 32)));
            info.set_size(be64(&bytes, 24), 24, options);
            if be64(&bytes, 8) != 0 {
                backing(source, 8, be64(&bytes, 8), be32(&bytes, 16), info)?;
            }
            if be32(&bytes, 36) != 0 {
                info.encryption = Some("aes");
                info.find(Reason::Encrypted, 36, u64::from(be32(&bytes, 36)));
            }
        }
        // LUKS1 On-Disk Format Specification 1.2.3, section 2.4; LUKS2 On-Disk Format Specification
        // 1.1, section 2.1.
        Format::Luks => {
            let version = be16(&bytes, 6);
            info.version = Some(u32::from(version));
            info.encryption = Some("luks");
            info.find(Reason::Encrypted, 0, u64::from(version));
            if version == 1 {
                let payload = u64::from(be32(&bytes, 104)).saturating_mul(512);
                info.virtual_size = source.size().checked_sub(payload);
            }
        }
        // Described in docs/interop/parallels.rst of QEMU's sources.
        Format::Parallels => {
            info.cluster_size = Some(u64::from(le32(&bytes, 28)).saturating_mul(512));
            let mut sectors = le64(&bytes, 36);
            if has(&bytes, 0, b"WithoutFreeSpace") {
                sectors &= 0xffff_ffff;
            }
            info.set_size(sectors.saturating_mul(512), 36, options);
        }
        // There is no specification. The last 512 bytes are a trailer that begins with "koly".
        Format::Dmg if source.size() >= 512 => {
            let at = source.size() - 512;
            let mut trailer = [0; 512];
            read(source, at, &mut trailer)?;
            if has(&trailer, 0, b"koly") {
                let sectors = be64(&trailer, 492);
                info.set_size(sectors.saturating_mul(512), at + 492, options);
            }
        }
        _ => {}
    }
    Ok(())
}

/// Notes the backing file, whose name lies at `at`, as the field at `field` says.
fn backing(
    source: &mut dyn ReadAt,
    field: u64,
    at: u64,
    length: u32,
    info: &mut Info,
) -> Result<(), Error> {
    info.find(Reason::BackingFile, field, at);
    let mut name = [0; LONGEST_NAME];
    let kept = to_usize(u64::from(length)).min(LONGEST_NAME);
    let name = name.get_mut(..kept).unwrap_or_default();
    match read(source, at, name) {
        Ok(()) => info.refer(ReferenceKind::Backing, name),
        Err(Error::Refused(_)) => info.find(Reason::BadReference, at, u64::from(length)),
        Err(error) => return Err(error),
    }
    Ok(())
}
