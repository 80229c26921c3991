//! Guests of one's own, as docs/guest.md describes them: the example in Rust and the one in C.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Files, needs_kvm, skip, test};

fn main() -> std::process::ExitCode {
    common::harness::main()
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Builds the example, in a folder that stays from one run of the tests to the next.
fn rust_guest() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rust-guest");
    let manifest = project().join("examples/rust-guest/Cargo.toml");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "--quiet"])
        .arg("--manifest-path")
        .arg(manifest)
        .arg("--target-dir")
        .arg(&target)
        .env_remove("RUSTFLAGS")
        // That there are no flags overrides those of the user's configuration as well.
        .env("CARGO_ENCODED_RUSTFLAGS", "")
        // A configuration may name one build folder for all builds.
        .env("CARGO_BUILD_BUILD_DIR", &target)
        .env_remove("CARGO_BUILD_TARGET")
        .status();
    assert!(status.unwrap().success());
    target.join("release/rust-guest")
}

#[test]
fn a_guest_in_rust_in_a_crate_of_its_own_reads_the_disk() {
    needs_kvm!();
    let guest = rust_guest();
    let files = Files::random(5 * 512);
    let input = std::fs::read(files.input()).unwrap();
    let sum = input[..512]
        .iter()
        .fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    let finished = files.vmm().args(&["--debug"]).arg(guest).run();
    let line = format!("[DEBUG] 5 sectors, sum {sum}\n");
    assert!(finished.stderr.starts_with(&line), "{}", finished.stderr);
    let reason = format!("the guest ended without a completion (exit status {sum})");
    finished.assert_failed(4, &reason);
}

/// The indented lines of docs/guest.md from the one that begins with `first` to the next empty one
/// that is followed by a line that is not indented.
fn snippet(text: &str, first: &str) -> String {
    let lines = text
        .lines()
        .skip_while(|line| !line.trim_start().starts_with(first));
    let indented = lines.take_while(|line| line.is_empty() || line.starts_with("    "));
    indented.fold(String::new(), |all, line| all + line.trim_start() + "\n")
}

#[test]
fn the_guest_in_c_of_the_document_says_hello_and_exits_with_its_status() {
    needs_kvm!();
    if Command::new("cc").arg("--version").output().is_err() {
        return skip("there is no C compiler `cc`");
    }
    let text = std::fs::read_to_string(project().join("docs/guest.md")).unwrap();
    let mut files = Files::random(512);
    files.add("guest.c", snippet(&text, "/* guest.c */").as_bytes());
    let guest = files.expect("guest");
    let command = snippet(&text, "cc -O2");
    let (command, _) = command.split_once("\n\n").unwrap();
    let linker = Command::new("cc").arg("-Wl,--version").output().unwrap();
    let command = match String::from_utf8_lossy(&linker.stdout).contains("LLD") {
        true => command.replace("-Ttext-segment", "--image-base"),
        false => command.to_owned(),
    };
    let built = Command::new("sh")
        .args(["-c", &command])
        .current_dir(files.folder())
        .status();
    assert!(built.unwrap().success());
    let finished = files.vmm().args(&["--debug"]).arg(guest).run();
    assert!(finished.stderr.starts_with("[DEBUG] hello\n"));
    finished.assert_failed(4, "the guest ended without a completion (exit status 7)");
}
