//! The guest that converts: it opens an image that nobody should trust, and writes the disk in it.
//!
//! The formats are those of [`guest_formats`]; here are the codecs, the memory for what is on its
//! way, and the pipeline that keeps the disks and the processor busy. As in the other guests,
//! whatever needs hardware takes it through the traits of [`guest_kit::hardware`].
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

extern crate alloc;

pub mod app;
pub mod chain;
pub mod codec;
pub mod config;
pub mod disks;
pub mod engine;
pub mod failure;
pub mod pool;
pub mod report;

/// Bytes of a sector: the unit of requests, and of every message of this guest.
pub const SECTOR: u64 = 512;

/// Lossless where this program runs; saturates where it never will.
fn to_usize(value: impl TryInto<usize>) -> usize {
    value.try_into().unwrap_or(usize::MAX)
}

/// The same in the other direction.
fn to_u64(value: usize) -> u64 {
    value.try_into().unwrap_or(u64::MAX)
}

/// For lengths of requests, which are at most the pool's.
fn to_u32(value: usize) -> u32 {
    value.try_into().unwrap_or(u32::MAX)
}
