//! The examples run, each as what it shows: they use the library from outside.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Once;

use common::{Files, needs_kvm, skip, test};

fn main() -> std::process::ExitCode {
    common::harness::main()
}

/// An example, built. `cargo test` builds the examples, `cargo test --test examples` does not.
fn example(name: &str) -> Command {
    static BUILT: Once = Once::new();
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().unwrap().parent().unwrap();
    BUILT.call_once(|| build(profile.parent().unwrap()));
    Command::new(profile.join("examples").join(name))
}

/// Builds what is not built or has changed, as the tests were built.
fn build(target: &Path) {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--examples", "--locked", "--quiet", "--target-dir"]);
    cargo.arg(target);
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    assert!(cargo.status().unwrap().success());
}

#[track_caller]
fn shows(output: &Output, expected: &str) {
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(shown, format!("{expected}\n"), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

fn has_c_compiler() -> bool {
    let found = Command::new("cc").arg("--version").output().is_ok();
    if !found {
        skip("there is no C compiler `cc`");
    }
    found
}

#[test]
fn the_smallest_machine_runs_a_guest_of_seven_bytes() {
    needs_kvm!();
    shows(&example("smallest").output().unwrap(), "the guest answered");
}

#[test]
fn devices_of_another_crate_can_be_put_on_the_buses_and_end_the_run() {
    needs_kvm!();
    let output = example("ports").output().unwrap();
    shows(&output, "the guest knows what time it is");
}

#[test]
fn a_virtio_device_from_outside_serves_a_guest_in_c() {
    needs_kvm!();
    if has_c_compiler() {
        let output = example("entropy").output().unwrap();
        shows(&output, "the guest has 16 random bytes");
    }
}

#[test]
fn another_operation_has_a_success_and_failures_of_its_own() {
    needs_kvm!();
    if !has_c_compiler() {
        return;
    }
    for len in [0, 1, 511, 70_000, 1 << 20] {
        let files = Files::random(len);
        let bytes = std::fs::read(files.input()).unwrap();
        let sum: u64 = bytes.iter().copied().map(u64::from).sum();
        let output = example("checksum").arg(files.input()).output().unwrap();
        shows(&output, &format!("the sum is {sum}"));
    }
    let output = example("checksum").arg("/nowhere/at/all").output().unwrap();
    let reason = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(reason.contains("/nowhere/at/all"), "{reason}");
    assert_eq!(reason.lines().count(), 1, "{reason}");
}
