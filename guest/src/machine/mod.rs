//! The real machine under the library's traits: the only code of the guest that cannot run on the
//! host. Everything unsafe about the processor and the address map is in here.

pub(crate) mod heap;
mod libc;
pub(crate) mod mmio;
pub(crate) mod ports;

use core::ptr::{self, NonNull};

use guest::dma::DmaRegion;

/// The memory of one region of the address map, for devices and this program alike. Called once a
/// region.
pub(crate) fn dma(start: u64, size: u64) -> DmaRegion {
    // The guest is a 64-bit program, so neither conversion loses anything.
    let address = usize::try_from(start).unwrap_or(0);
    let len = usize::try_from(size).unwrap_or(0);
    let base = ptr::with_exposed_provenance_mut(address);
    let base = NonNull::new(base).unwrap_or(NonNull::dangling());
    // SAFETY: the address map has these pages mapped to themselves, readable and writable, for as
    // long as the machine exists; the image and the stack lie elsewhere, and `main` makes each
    // region once.
    unsafe { DmaRegion::new(base, len) }
}
