//! The files that a copy reads and writes: what lies behind the two disks. The input is opened
//! once and read; the output becomes visible only when it is complete. Nothing here knows of
//! virtual machines, and after both files are open no other file is ever opened.
//!
//! - [`InputFile`] and [`OutputFile`] are the disks' backends,
//! - `target` finds out where an output path leads, `staging` makes the file that goes there,
//! - `descriptor`, `vectored` and `zeros` move the bytes, `coverage` remembers which were written.

mod coverage;
mod descriptor;
mod error;
mod input;
mod late;
mod output;
mod staging;
mod target;
mod vectored;
mod zeros;

pub use error::{FileError, Role};
pub use input::InputFile;
pub use output::{OutputFile, OutputOptions};
pub use zeros::padded_length;
