//! Register writes, queue memory and buffers against a console device whose reader may be slow
//! (virtio 1.2, sections 2.7, 4.2.2 and 5.3). What the bytes mean is in `fuzz_drivers::console`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_drivers::console::run(bytes));
