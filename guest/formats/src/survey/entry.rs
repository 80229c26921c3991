//! What a survey is told of an entry and of a table.

use core::ops::Range;

use crate::mapping::{Content, Mapping};

/// What one entry of a table says. The caller asks for it by an offset of the disk at which the
/// piece begins that the entry is for.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The offset of the entry in the file, in bytes.
    pub(crate) at: u64,
    /// How many bytes of the disk it is for.
    pub(crate) length: u64,
    /// Where they come from. If this is shorter, the rest is zeros.
    pub(crate) mapping: Mapping,
    /// The bytes of the file that no other entry may name. Of a compressed grain they are the most
    /// that there can be.
    pub(crate) takes: Range<u64>,
}

/// A table that an entry of another table names.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// The offset in the file of the entry that names it, in bytes.
    pub(crate) at: u64,
    /// The bytes of the file in which it lies, which no other entry may name.
    pub(crate) takes: Range<u64>,
    /// How many bytes of the disk it is for.
    pub(crate) length: u64,
}

impl Entry {
    /// The entry at `at` for a block with `length` bytes of data. The `before` bytes before the
    /// data belong to the block as well.
    pub(crate) fn block(at: u64, length: u64, before: u64, mapping: Mapping) -> Self {
        let takes = match mapping.content {
            Content::Data { offset } | Content::Unwritten { offset } => {
                offset - before..offset + length
            }
            _ => 0..0,
        };
        Self {
            at,
            length,
            mapping,
            takes,
        }
    }

    /// An entry for `mapping` that takes nothing of the file for itself.
    pub(crate) fn of(mapping: Mapping) -> Self {
        Self {
            at: 0,
            length: mapping.length,
            mapping,
            takes: 0..0,
        }
    }
}
