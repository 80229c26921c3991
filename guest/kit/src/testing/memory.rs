//! Memory that both a driver and a device model reach.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::{self, NonNull};

use crate::dma::DmaRegion;

/// A region of `len` zero bytes, aligned to a page, that lives as long as the tests.
pub fn leak(len: usize) -> DmaRegion {
    let layout = Layout::from_size_align(len, 4096).unwrap();
    // SAFETY: no test asks for a region of no bytes.
    let base = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap();
    // SAFETY: the memory was just allocated, is never freed, and no one else has its address.
    unsafe { DmaRegion::new(base, len) }
}

/// Calls `work` with a region of each of these lengths, made as [`leak`] makes them, and frees them
/// afterwards: for tests that need too many to keep. Neither the result nor anything else may hold on to
/// a region.
pub fn lend<const N: usize, T>(lens: [usize; N], work: impl FnOnce([DmaRegion; N]) -> T) -> T {
    let regions = lens.map(leak);
    let addresses = regions.each_ref().map(|region| region.address(0));
    let result = work(regions);
    for (address, len) in addresses.into_iter().zip(lens) {
        let layout = Layout::from_size_align(len, 4096).unwrap();
        // SAFETY: `leak` has allocated it with the same layout, and nobody uses it any more.
        unsafe { dealloc(ptr::with_exposed_provenance_mut(address as usize), layout) };
    }
    result
}

/// What a device reads at `address`.
pub fn load<T: Copy>(address: u64) -> T {
    let pointer = ptr::with_exposed_provenance::<T>(address as usize);
    // SAFETY: tests give devices the addresses of leaked regions only, and models check lengths.
    unsafe { pointer.read_volatile() }
}

/// Lets a device write `value` at `address`.
pub fn store<T>(address: u64, value: T) {
    let pointer = ptr::with_exposed_provenance_mut::<T>(address as usize);
    // SAFETY: as in `load`.
    unsafe { pointer.write_volatile(value) };
}

/// The bytes that a device reads from `address` up.
pub fn load_bytes(address: u64, bytes: &mut [u8]) {
    let source = ptr::with_exposed_provenance::<u8>(address as usize);
    // SAFETY: as in `load`.
    unsafe { source.copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) };
}

/// Lets a device write `bytes` from `address` up.
pub fn store_bytes(address: u64, bytes: &[u8]) {
    let target = ptr::with_exposed_provenance_mut::<u8>(address as usize);
    // SAFETY: as in `load`.
    unsafe { target.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
}
