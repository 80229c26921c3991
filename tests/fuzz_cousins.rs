//! The deterministic cousins of the fuzz targets: the same drivers, with the same assertions, on
//! random bytes from a fixed seed. They run on any toolchain and find a broken invariant without
//! a fuzzer; what a fuzzer has found once is here as an input of its own.
#![allow(clippy::unwrap_used)]

use proptest::collection::vec;
use proptest::prelude::any;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

#[path = "../fuzz/src/lib.rs"]
mod drivers;

/// Calls `run` with `cases` inputs of up to `max_len` bytes, the same ones each time.
fn run_on_random_bytes(cases: u32, max_len: usize, run: fn(&[u8])) {
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    TestRunner::new_with_rng(config, rng)
        .run(&vec(any::<u8>(), 0..max_len), |bytes| {
            run(&bytes);
            Ok(())
        })
        .unwrap();
}

#[test]
fn no_driver_makes_a_disk_panic_hang_or_leave_its_bounds() {
    run_on_random_bytes(1000, 2000, drivers::block::run);
}

#[test]
fn nothing_on_a_serial_port_panics_piles_up_or_depends_on_how_it_is_split() {
    run_on_random_bytes(1500, 1000, drivers::serial::run);
}

#[test]
fn no_image_makes_the_loader_panic_or_gets_a_page_that_is_writable_and_executable() {
    run_on_random_bytes(2000, 400, drivers::loader::run);
}

/// A message without content, and behind it a frame that is too long: whole, the second fault was
/// reported; in pieces, the first.
#[test]
fn a_session_reports_the_same_fault_however_its_bytes_arrive() {
    drivers::serial::run(b"\xff\x02\x90\x08\0\0\0\x1b");
}
