//! What a guest can send and do on its two serial ports: frames, text, registers, floods. What the
//! bytes mean is in `fuzz_drivers::serial`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_drivers::serial::run(bytes));
