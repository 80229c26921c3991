//! The files that a copy reads and writes.

mod coverage;
mod error;
mod vectored;

pub use error::{FileError, Role};
