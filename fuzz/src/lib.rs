//! What the fuzz targets do with their bytes, and what must hold meanwhile: each module turns any
//! bytes into actions of a hostile guest and asserts its invariants with panics. The VMM's own
//! tests include these modules and run them on random bytes and on honest sessions.
// Tests: a failed unwrap is a finding, and the casts are of small constants.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, unreachable_pub)]

pub mod block;
pub mod console;
mod encoder;
pub mod formats;
mod framed;
pub mod loader;
pub mod serial;
pub mod sessions;
mod virtio;

use std::cell::Cell;
use std::thread::LocalKey;

/// An input that was made on purpose, with the name of its file.
pub type Seed = (&'static str, Vec<u8>);

/// Most inputs that one rig serves. What a device remembers over resets, such as its counters,
/// is then new again.
const RIG_INPUTS: u32 = 512;

/// What stays from input to input, since it costs more than an input does: the next input gets it
/// as good as new.
struct Kept<T> {
    rig: T,
    inputs: u32,
}

/// Calls `work` with this thread's rig, which `make` makes when there is none or it is worn out.
/// After a panic nobody knows what state it is in, so that it is not kept.
fn with_rig<T, R>(
    kept: &'static LocalKey<Cell<Option<Kept<T>>>>,
    make: impl FnOnce() -> T,
    work: impl FnOnce(&mut T) -> R,
) -> R {
    let fresh = kept.take().filter(|kept| kept.inputs < RIG_INPUTS);
    let mut rig = fresh.unwrap_or_else(|| Kept {
        rig: make(),
        inputs: 0,
    });
    let result = work(&mut rig.rig);
    rig.inputs += 1;
    kept.set(Some(rig));
    result
}
