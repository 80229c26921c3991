//! What a guest's program stands on: the machine's ports, registers and memory, the serial line,
//! drivers for virtio devices, and what all programs do alike with disks and with the host's
//! configuration. A guest runs in ring 3 without an operating system.
//!
//! A program says where it begins with [`entry!`], and gets a [`machine::Platform`] from which it
//! takes its devices:
//!
//! ```ignore
//! #![no_std]
//! #![no_main]
//!
//! use guest_kit::machine::Platform;
//! use guest_kit::serial::debug;
//!
//! guest_kit::entry!(main);
//!
//! fn main(machine: Platform) -> u8 {
//!     debug(&machine.ports(), format_args!("hello"));
//!     0
//! }
//! ```
//!
//! Everything but [`machine`] takes the hardware through the traits of [`hardware`], so that it
//! runs, and is tested, on the host as well: see `testing`, behind the feature of the same name.
#![cfg_attr(not(any(test, feature = "testing")), no_std)]

extern crate alloc;

pub mod channel;
#[cfg(feature = "digest")]
pub mod digest;
pub mod disk;
pub mod dma;
pub mod failure;
pub mod hardware;
pub mod machine;
pub mod program;
pub mod progress;
pub mod report;
pub mod serial;
pub mod virtio;
pub mod waiting;
pub mod zeros;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
