//! Where the disk's bytes go on the output.

/// The bytes of the disk as they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw;

impl Raw {
    /// Zeros are left out in pieces of so many bytes: what file systems have as their smallest hole.
    pub(super) const GRAIN: u64 = 4096;

    /// Where the disk's byte `offset` goes.
    pub(super) const fn place(self, offset: u64) -> u64 {
        offset
    }
}
