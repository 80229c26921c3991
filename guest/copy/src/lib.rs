//! The guest that copies: it reads its configuration, drives two virtio disks, and copies the one
//! to the other.
//!
//! Whatever needs hardware takes it through the traits of [`guest_kit::hardware`], so that all of
//! this runs, and is tested, on the host as well. `main.rs` gives it the devices of the real
//! machine.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod app;
pub mod config;
pub mod copy;
pub mod report;
