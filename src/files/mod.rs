//! The files that a run reads and writes: what lies behind the two disks, the guest's image, the
//! statistics. What is read is opened once; what is written becomes visible only when it is
//! complete. Nothing here knows of virtual machines, and after all files are open no other file is
//! ever opened.
//!
//! - [`InputFile`] and [`OutputFile`] are the disks' backends, [`NewFile`] is a small file,
//! - `open` opens what is read, [`check_distinct`] compares it with what is written, and `streams` both with
//!   what the standard streams go to,
//! - `target` and `place` find out where an output path leads, `staging` makes the file that goes
//!   there, `permissions`, `acl` and `lists` give it what the old file had, as far as `namespace` knows
//!   whose that was; `in_use`, `swap`, `layers`, `loop_device` and `kernel_made` tell devices and folders
//!   apart where nothing may be written,
//! - `descriptor`, `vectored` and `zeros` move the bytes, `coverage` remembers which were written,
//! - `extents` finds the holes of what is read, `delayed` says whether new data is to be written back
//!   first, `zeroing` makes some in what is written,
//! - `device` asks block devices what they are,
//! - `system` repeats the calls that a signal interrupts.

mod acl;
mod close_errors;
mod coverage;
mod delayed;
mod descriptor;
mod device;
mod error;
mod extents;
mod hints;
mod identity;
mod in_use;
mod input;
mod kernel_made;
mod layers;
mod lists;
mod loop_device;
mod namespace;
mod new_file;
mod open;
mod output;
mod permissions;
mod place;
mod probe;
mod staging;
mod streams;
mod swap;
mod sync;
mod system;
mod taken;
mod target;
mod vectored;
mod zeroing;
mod zeros;

pub use error::{Action, ChangedError, DistinctError, FileError, Role, TrialError};
pub use extents::{Holes, ListBounds};
pub use identity::{Identity, Known, check_distinct};
pub use input::InputFile;
pub use new_file::NewFile;
pub use open::{ImageFile, open_image};
pub use output::{OutputFile, OutputOptions};
pub use probe::{FolderProbe, probe_folder};
pub use staging::{Placing, WhyNamed};
pub use streams::{OwnStreams, check_streams_of};
pub use zeros::padded_length;
