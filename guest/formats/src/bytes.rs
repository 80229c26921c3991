//! Fields of headers: integers of either byte order at a byte offset.
//!
//! A field outside the slice reads as zero, so that no header can make a parser panic. Parsers read
//! whole headers of a fixed size, and so all of their fields are inside.

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    let end = at.saturating_add(N);
    if let Some(found) = bytes.get(at..end) {
        field.copy_from_slice(found);
    }
    field
}

pub(crate) fn u8_at(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(field(bytes, at))
}

pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(field(bytes, at))
}

pub(crate) fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(field(bytes, at))
}

pub(crate) fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(field(bytes, at))
}

pub(crate) fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(field(bytes, at))
}

pub(crate) fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(field(bytes, at))
}

/// The sixteen bytes at `at`, a GUID or UUID. It is only compared, so that its byte order does not
/// matter.
pub(crate) fn guid(bytes: &[u8], at: usize) -> [u8; 16] {
    field(bytes, at)
}

/// Whether `bytes` has `magic` at `at`.
pub(crate) fn has(bytes: &[u8], at: usize, magic: &[u8]) -> bool {
    bytes.get(at..).is_some_and(|rest| rest.starts_with(magic))
}
