//! What a guest says of an image, of a conversion and of a copy's digest, through the host's side of
//! the conversation. What the bytes mean is in `fuzz_drivers::sessions`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_drivers::sessions::run(bytes));
