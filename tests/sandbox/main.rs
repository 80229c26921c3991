//! The sandbox holds, and holds up nothing that is good: a forbidden call on any thread ends the
//! process with SIGSYS and a line, nothing can be opened once the process is confined, no run is
//! ended for what the C library does, and no call is allowed that no run needs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

mod audit;
mod conditions;
mod confinement;
mod naming;
mod stress;
mod surroundings;

use std::process::{Command, Output};

fn main() -> std::process::ExitCode {
    common::harness::main()
}

/// Tells a test that it runs as its own child, and what to do there.
const CHILD: &str = "SANDBOX_TEST_CHILD";

/// Runs the test `name` again in a process of its own with `task` to do.
fn child(name: &str, task: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(CHILD, task)
        .stdout(std::process::Stdio::null())
        .output()
        .unwrap()
}

/// What this process is to do, if it is a child.
fn task() -> Option<String> {
    std::env::var(CHILD).ok()
}
