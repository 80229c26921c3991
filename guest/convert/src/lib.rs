//! The guest that converts: it opens an image that nobody should trust, and writes the disk in it.
//!
//! [`guest_formats`] knows the formats. Here are the codecs, the memory for data on its way, and
//! the pipeline that keeps the disks and the processor busy. As in the other guests, whatever needs
//! hardware takes it through the traits of [`guest_kit::hardware`].
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

extern crate alloc;
// The driver that the fuzzer shares with the tests names this crate.
#[cfg(test)]
extern crate self as guest_convert;

pub mod app;
pub mod backing_chain;
pub mod codec;
pub mod config;
pub mod disks;
pub mod engine;
pub mod failure;
#[cfg(test)]
mod fuzz_cousin;
pub mod holes;
mod layer;
pub mod pool;

/// The size of a sector in bytes. Requests and the messages of this guest count in it.
pub const SECTOR: u64 = 512;

/// Converts a number for an index. Nothing is lost where `usize` has 64 bits, as it has in a guest.
fn to_usize(value: impl TryInto<usize>) -> usize {
    value.try_into().unwrap_or(usize::MAX)
}

/// Converts a length in memory to the type of offsets. Nothing is lost.
fn to_u64(value: usize) -> u64 {
    value.try_into().unwrap_or(u64::MAX)
}

/// Converts the length of a request. Nothing is lost, since no request is longer than the pool.
fn to_u32(value: usize) -> u32 {
    value.try_into().unwrap_or(u32::MAX)
}
