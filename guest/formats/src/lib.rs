//! Disk image formats without I/O: recognition, verdicts and mappings.
//!
//! Images come from strangers, so that no byte of them is trusted. A parser never opens a file that
//! an image names. It asks its caller for bytes of the image ([`ReadAt`]), and answers what the
//! image is ([`inspect`]), what speaks against using it ([`Reason`]) and where the bytes of the
//! virtual disk are ([`Image::map`]). It finds compressed clusters and leaves it to the caller to
//! inflate them: there is no codec in this crate.
//!
//! # Bounds
//!
//! - Memory: an open image has at most four cache lines of 8 KiB. A VHDX with a log takes at most 160
//!   KiB more, and a VMDK takes 64 KiB more while its descriptor is read. A check of refcounts takes 224
//!   KiB and the memory for its window ([`qcow2::CheckOptions`]). A [`Survey`] has its window and 128
//!   KiB, and makes a line 64 KiB long, of a VHD three. No image can make it more.
//! - Steps: each call makes a bounded number of reads. How many calls a disk takes is bounded by its
//!   virtual size, which the caller limits ([`Options::largest_disk`]). The length of the file is no bound,
//!   since an image may use a table many times over.
//! - Panics: no input makes a parser panic.
//!
//! # Example
//!
//! ```
//! use guest_formats::{Image, Options, Reason, Verdict, inspect};
//!
//! let mut source: &[u8] = b"QFI\xfb\0\0\0\x09";
//! let info = inspect(&mut source, &Options::default()).unwrap();
//! assert_eq!(info.format.name(), "qcow2");
//! assert_eq!(info.verdict(), Verdict::Broken);
//! assert!(info.findings.has(Reason::Truncated));
//! assert!(Image::open(&mut source, &Options::default()).is_err());
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod bytes;
mod cache;
mod error;
mod format;
mod image;
mod info;
mod mapping;
mod other;
mod probe;
pub mod qcow2;
mod reason;
mod source;
mod span;
mod survey;
pub mod vdi;
pub mod vhd;
pub mod vhdx;
pub mod vmdk;

pub use cache::LOAD;
pub use error::Error;
pub use format::{Format, FormatSet};
pub use image::{Image, examine, inspect};
pub use info::{
    Feature, FeatureKind, Info, LONGEST_NAME, MOST_REFERENCES, Options, Reference, ReferenceKind,
    UnknownName, Verdict,
};
pub use mapping::{Codec, Compressed, Content, Contents, Mapping, Marker};
pub use probe::{FileSystem, PartitionTable, Probe};
pub use reason::{Class, Finding, Findings, Reason, ReasonSet};
pub use source::{ReadAt, ReadError};
pub use survey::{MOST_FAULTS, Survey};
