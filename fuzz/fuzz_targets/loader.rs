//! Guest images: arbitrary files, and ELF files that are nearly right (ELF-64 file format). What the
//! bytes mean is in `fuzz_drivers::loader`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_drivers::loader::run(bytes));
