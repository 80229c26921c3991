//! A disk whose driver writes to its requests while they are worked on. What the bytes mean is in
//! `fuzz_drivers::block::racing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_drivers::block::racing::run(bytes));
