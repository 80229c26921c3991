//! Fields in a header that grows.

pub(crate) fn put(bytes: &mut Vec<u8>, at: usize, field: &[u8]) {
    let end = at + field.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[at..end].copy_from_slice(field);
}

macro_rules! putters {
    ($($name:ident $type:ty, $convert:ident;)*) => {
        $(pub(crate) fn $name(bytes: &mut Vec<u8>, at: usize, value: $type) {
            put(bytes, at, &value.$convert());
        })*
    };
}

putters! {
    be16 u16, to_be_bytes;
    be32 u32, to_be_bytes;
    be64 u64, to_be_bytes;
    le16 u16, to_le_bytes;
    le32 u32, to_le_bytes;
    le64 u64, to_le_bytes;
}
