//! A part of a file, such as a table that a header names.

/// The bytes from `start` to `end`, which is not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Span {
    /// How many bytes it has.
    pub(crate) fn length(self) -> u64 {
        self.end - self.start
    }

    /// Whether it has bytes that another one has too. One without bytes meets what it lies within.
    pub(crate) fn meets(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}
