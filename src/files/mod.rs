//! The files that a copy reads and writes.
