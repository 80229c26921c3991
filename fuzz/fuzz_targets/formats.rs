//! Images of every format that the guest reads, good ones with changes and any bytes at all, through
//! its parsers. What the bytes mean is in `fuzz_drivers::formats`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_drivers::formats::run(bytes));
