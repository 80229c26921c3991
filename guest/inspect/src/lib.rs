//! The guest that looks into a disk image: it reads its configuration, says what the image says of
//! itself and what speaks against using it, and if that is wanted checks its tables.
//!
//! All that is known of formats is in [`guest_formats`]; there is no decompressor. Whatever needs
//! hardware takes it through the traits of [`guest_kit::hardware`], so that all of this runs, and
//! is tested, on the host as well. `main.rs` supplies the real machine.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod app;
pub mod check;
pub mod config;
pub mod info;
pub mod report;
pub mod source;
