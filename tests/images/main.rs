//! Images: what `vmm info` and `vmm check` say of them, with all parsing done in a guest.
//!
//! The images are made by the writers of the crate of formats, whose hostile ones all go through the
//! whole VM here, and by qemu-img where it is installed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a failure in a test is to panic"
)]

// The images that lie are tests of another crate, too, and do not name the attribute.
#[macro_use]
extern crate test_attribute;

#[path = "../common/mod.rs"]
mod common;
#[path = "../../guest/formats/tests/support/mod.rs"]
mod support;

mod answers;
mod documentation;
mod hostile;
mod parsers;
mod qemu;
mod runs;

use std::path::Path;

use common::{Finished, Vmm};
use serde_json::Value;

fn main() -> std::process::ExitCode {
    common::harness::main()
}

/// Exit statuses.
const SAFE: i32 = 0;
const REFUSED: i32 = 5;
const BROKEN: i32 = 6;
const LEAKS: i32 = 7;

/// The most memory that a run may have, in bytes, whatever the image says.
const MOST_MEMORY: u64 = 32 << 20;

/// Runs `vmm command image arguments`.
fn vmm(command: &str, image: &Path, arguments: &[&str]) -> Finished {
    let vmm = Vmm::bare().arg(command).arg(image).args(arguments);
    vmm.with_memory_limit(MOST_MEMORY).run()
}

/// The object that it prints.
#[track_caller]
fn object(command: &str, image: &Path, arguments: &[&str]) -> (Value, Option<i32>) {
    let run = vmm(command, image, &[arguments, &["--format", "json"]].concat());
    assert_eq!(run.stderr, "", "{run:?}");
    assert_eq!(run.lines().len(), 1, "{run:?}");
    (serde_json::from_str(&run.stdout).unwrap(), run.code())
}

/// The names of its reasons.
fn reasons(object: &Value) -> Vec<&str> {
    let reasons = object["reasons"].as_array().unwrap();
    reasons
        .iter()
        .map(|reason| reason["name"].as_str().unwrap())
        .collect()
}
