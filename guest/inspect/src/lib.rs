//! The guest that looks into a disk image. It reports what the headers of the image say and what
//! speaks against using it, and checks its tables if that is wanted.
//!
//! [`guest_formats`] knows the formats; there is no decompressor. Whatever needs hardware takes it
//! through the traits of [`guest_kit::hardware`], so that all of this runs, and is tested, on the
//! host as well. `main.rs` gives it the devices of the real machine.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod app;
pub mod check;
pub mod config;
pub mod info;
pub mod report;
pub mod source;
