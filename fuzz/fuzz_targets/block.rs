//! Register writes, queue memory and requests against two block devices on memory-backed disks
//! (virtio 1.2, sections 2.7, 4.2.2 and 5.2). What the bytes mean is in `fuzz_drivers::block`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_drivers::block::run(bytes));
