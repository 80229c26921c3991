//! The deterministic cousin of the fuzz target `convert`: the same driver, with the same assertions, on good
//! images and on random bytes that are the same each time. With `BLESS=1` in the environment the files where
//! the fuzzer starts are written anew.
// The pipeline's tests have the parsers' support for themselves.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::duplicate_mod,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation
)]

#[path = "../../../fuzz/src/convert.rs"]
mod driver;
#[path = "../../../fuzz/src/encoder.rs"]
mod encoder;
#[path = "../../../fuzz/src/formats.rs"]
mod formats;

use std::path::Path;

use guest_kit::testing::Chooser;

use driver::{ALLOWED, ZEROES, is_converted};

/// As the module above the shared ones has it in the crate of the targets.
type Seed = (&'static str, Vec<u8>);

const INPUTS: usize = 500;
const LONGEST_INPUT: usize = 400;

#[test]
fn no_image_makes_the_guest_panic_hang_or_write_another_disk() {
    let mut choose = Chooser::new(1);
    for _ in 0..INPUTS {
        let len = choose.below(LONGEST_INPUT);
        let bytes: Vec<_> = (0..len).map(|_| choose.below(256) as u8).collect();
        driver::run(&bytes);
    }
}

/// The images that the parsers are fuzzed with.
#[test]
fn a_good_image_is_converted_and_the_fuzzer_starts_from_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/convert");
    let seeds = formats::seeds();
    let count = seeds.len();
    for (((name, image), is_good), order) in seeds.into_iter().zip(0..) {
        let zeroes = if order & 1 == 0 { ZEROES } else { 0 };
        let bytes = [&[ALLOWED | zeroes | order], &image[..]].concat();
        assert_eq!(is_converted(&bytes), is_good, "{name}");
        let file = folder.join(name);
        if std::env::var_os("BLESS").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&file, &bytes).unwrap();
        }
        let held = std::fs::read(&file).unwrap_or_default();
        assert!(
            held == bytes,
            "{}: write it anew with BLESS=1",
            file.display()
        );
    }
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), count);
}
