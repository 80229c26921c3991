//! What the fuzz targets do with their bytes, and what must hold meanwhile: each module turns any
//! bytes into actions of a hostile guest and asserts its invariants with panics. The VMM's own
//! tests include these modules and run them on random bytes.
// Tests: a failed unwrap is a finding, and the casts are of small constants.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, unreachable_pub)]

pub mod block;
pub mod loader;
pub mod serial;
