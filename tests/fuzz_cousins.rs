//! The deterministic cousins of the fuzz targets: the same drivers, with the same assertions, on
//! honest sessions and on random bytes from a fixed seed. They run on any toolchain and find a
//! broken invariant without a fuzzer; what a fuzzer has found once is here as an input of its own.
//!
//! The honest sessions are also files below `fuzz/seeds`, where the fuzzer starts. With `BLESS=1`
//! in the environment these are written anew.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::any;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

#[path = "../fuzz/src/lib.rs"]
mod drivers;

use drivers::Seed;

/// How many random inputs each target gets.
const DISK: u32 = 1500;
const SERIAL: u32 = 2000;
const LOADER: u32 = 2500;
const CONSOLE: u32 = 1500;
const SESSIONS: u32 = 2000;
const FORMATS: u32 = 1500;
const RACING: u32 = 500;

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

/// Compares the files of a target's seeds with what they are to be.
fn assert_files(target: &str, seeds: &[Seed]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(target);
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(&folder).unwrap();
        for (name, bytes) in seeds {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
    }
    for (name, bytes) in seeds {
        let file = folder.join(name);
        let held = std::fs::read(&file).unwrap_or_default();
        assert!(
            held == *bytes,
            "{}: write it anew with BLESS=1",
            file.display()
        );
    }
    let files = std::fs::read_dir(&folder).unwrap();
    let files: BTreeSet<_> = files.map(|file| file.unwrap().file_name()).collect();
    let names: BTreeSet<_> = seeds.iter().map(|(name, _)| (*name).into()).collect();
    assert_eq!(files, names, "{}", folder.display());
}

#[test]
fn no_driver_makes_a_disk_panic_hang_or_leave_its_bounds() {
    run_on_random_bytes(DISK, 2000, drivers::block::run);
}

#[test]
fn nothing_on_a_serial_port_panics_piles_up_or_depends_on_how_it_is_split() {
    run_on_random_bytes(SERIAL, 1000, drivers::serial::run);
}

#[test]
fn no_image_makes_the_loader_panic_or_gets_a_page_that_is_writable_and_executable() {
    run_on_random_bytes(LOADER, 400, drivers::loader::run);
}

#[test]
fn no_driver_makes_a_console_panic_hang_lose_a_byte_or_leave_its_bounds() {
    run_on_random_bytes(CONSOLE, 1500, drivers::console::run);
}

#[test]
fn nothing_said_of_an_image_or_a_conversion_panics_piles_up_or_forges_a_line() {
    run_on_random_bytes(SESSIONS, 1000, drivers::sessions::run);
}

#[test]
fn no_image_makes_a_parser_panic_read_behind_its_end_or_work_without_bound() {
    run_on_random_bytes(FORMATS, 400, drivers::formats::run);
}

#[test]
fn no_driver_that_writes_to_its_requests_makes_a_disk_panic_hang_or_leave_its_bounds() {
    run_on_random_bytes(RACING, 200, drivers::block::racing::run);
}

#[test]
fn the_page_about_fuzzing_says_how_many_inputs_these_are() {
    let page = include_str!("../docs/fuzzing.md");
    let all = DISK + SERIAL + LOADER + CONSOLE + SESSIONS + FORMATS + RACING;
    let told = format!(
        "{},{:03} inputs, the same ones each time",
        all / 1000,
        all % 1000
    );
    assert!(page.contains(&told), "{told}");
}

/// The second time on a machine that has been used.
#[test]
fn an_honest_driver_gets_its_answers_and_the_fuzzer_starts_from_it() {
    let mut seeds = Vec::new();
    for session in drivers::block::seeds::sessions() {
        for time in 1..=2 {
            let answers = drivers::block::answers(&session.bytes);
            assert_eq!(answers, session.answers, "{}, {time}", session.name);
        }
        seeds.push((session.name, session.bytes));
    }
    assert_files("block", &seeds);
}

#[test]
fn an_honest_guest_is_heard_and_the_fuzzer_starts_from_it() {
    let mut seeds = Vec::new();
    for session in drivers::serial::seeds::sessions() {
        let heard = drivers::serial::heard(&session.bytes);
        assert_eq!(heard, session.heard, "{}", session.name);
        seeds.push((session.name, session.bytes));
    }
    for (name, bytes) in drivers::serial::seeds::others() {
        drivers::serial::run(&bytes);
        seeds.push((name, bytes));
    }
    assert_files("serial", &seeds);
}

#[test]
fn an_honest_driver_sends_and_receives_and_the_fuzzer_starts_from_it() {
    let mut seeds = Vec::new();
    for session in drivers::console::seeds::sessions() {
        for time in 1..=2 {
            let passed = drivers::console::passed(&session.bytes);
            assert_eq!(passed, session.passed, "{}, {time}", session.name);
        }
        seeds.push((session.name, session.bytes));
    }
    assert_files("console", &seeds);
}

#[test]
fn an_honest_guest_is_believed_in_what_it_says_of_an_image_and_the_fuzzer_starts_from_it() {
    let mut seeds = Vec::new();
    for session in drivers::sessions::seeds::sessions() {
        let heard = drivers::sessions::heard(&session.bytes);
        assert_eq!(heard, session.heard, "{}", session.name);
        seeds.push((session.name, session.bytes));
    }
    assert_files("sessions", &seeds);
}

#[test]
fn a_good_disk_image_is_read_and_the_fuzzer_starts_from_it() {
    let mut seeds = Vec::new();
    for ((name, bytes), is_read) in drivers::formats::seeds() {
        assert_eq!(drivers::formats::is_read(&bytes), is_read, "{name}");
        seeds.push((name, bytes));
    }
    assert_files("formats", &seeds);
}

#[test]
fn requests_that_change_do_no_harm_and_the_fuzzer_starts_from_them() {
    let seeds = drivers::block::racing::seeds();
    for (_, bytes) in &seeds {
        drivers::block::racing::run(bytes);
    }
    assert_files("racing", &seeds);
}

#[test]
fn an_honest_image_is_loaded_and_the_fuzzer_starts_from_it() {
    let seeds = drivers::loader::seeds();
    for (name, bytes) in &seeds {
        assert!(drivers::loader::is_loaded(bytes), "{name}");
    }
    assert_files("loader", &seeds);
}

/// A message without content, and behind it a frame that is too long: whole, the second fault was
/// reported; in pieces, the first.
#[test]
fn a_session_reports_the_same_fault_however_its_bytes_arrive() {
    drivers::serial::run(b"\x02\0\0\0\x04\0\0\0\x1b\x01");
}
