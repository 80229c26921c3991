//! The guest's program, apart from the few lines that touch the processor: it reads its
//! configuration, drives two virtio disks, and copies the one to the other.
//!
//! Whatever needs hardware takes it through the traits of [`hardware`], so that all of this runs,
//! and is tested, on the host as well. `main.rs` supplies the real ports, registers and memory.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod app;
pub mod config;
pub mod copy;
pub mod dma;
pub mod hardware;
pub mod progress;
pub mod report;
pub mod serial;
pub mod virtio;

#[cfg(test)]
mod testing;
