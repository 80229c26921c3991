//! How the parsers get the bytes of an image: they ask their caller for some bytes at an offset,
//! and it reads them in whatever way it has. It is the one thing that this crate needs of its
//! caller.

use crate::error::Error;
use crate::reason::Reason;

/// The bytes could not be read. The caller, who tried to, knows why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadError;

/// A file or a disk that holds an image.
pub trait ReadAt {
    /// Its length in bytes.
    fn size(&self) -> u64;

    /// Fills `buffer` with the bytes at `offset`. Parsers only ask for bytes below [`size`].
    ///
    /// [`size`]: ReadAt::size
    ///
    /// # Errors
    ///
    /// [`ReadError`] if any of the bytes cannot be read.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError>;
}

/// An image in memory.
impl ReadAt for &[u8] {
    fn size(&self) -> u64 {
        len64(self)
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let start = usize::try_from(offset).map_err(|_| ReadError)?;
        let bytes = self.get(start..).ok_or(ReadError)?;
        let bytes = bytes.get(..buffer.len()).ok_or(ReadError)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

/// Fills `buffer` with the bytes at `offset`, or fails with [`Reason::BeyondEnd`] if the file ends
/// before that.
pub(crate) fn read(source: &mut dyn ReadAt, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
    let end = offset.checked_add(len64(buffer));
    if end.is_none_or(|end| end > source.size()) {
        return Err(Error::refused(Reason::BeyondEnd, offset, len64(buffer)));
    }
    if buffer.is_empty() {
        return Ok(());
    }
    source
        .read_at(offset, buffer)
        .map_err(|ReadError| Error::Read { offset })
}

/// The `N` bytes at `offset`.
pub(crate) fn array<const N: usize>(
    source: &mut dyn ReadAt,
    offset: u64,
) -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    read(source, offset, &mut bytes)?;
    Ok(bytes)
}

/// The first `N` bytes, with zeros behind the end of a shorter file.
pub(crate) fn prefix<const N: usize>(source: &mut dyn ReadAt) -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    let there = to_usize(source.size()).min(N);
    read(source, 0, &mut bytes[..there])?;
    Ok(bytes)
}

/// The length of a slice, in the type that offsets have.
pub(crate) fn len64(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// An offset as an index. One that does not fit becomes an index that no slice has.
pub(crate) fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
