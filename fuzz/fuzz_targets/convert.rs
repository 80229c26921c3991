//! An image, converted by the guest. What the bytes mean is in `fuzz/src/convert.rs`.
#![no_main]
// A failed unwrap is a finding.
#![allow(clippy::unwrap_used, unreachable_pub)]

use fuzz_drivers::formats;

#[path = "../src/convert.rs"]
mod convert;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| convert::run(bytes));
