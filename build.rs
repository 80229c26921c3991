//! Builds the guests and hands their ELF images to the VMM, which embeds them.
//!
//! The guests are a workspace of their own with its own lock file, built by a cargo of its own into
//! this build's output folder: plain `cargo build` and `cargo test` need nothing before them.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

/// The guests' programs, and what their images are called in this build's output folder.
const GUESTS: [(&str, &str); 2] = [("copy", "guest.elf"), ("inspect", "inspect.elf")];

fn main() -> ExitCode {
    match build_guests() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            println!("cargo::error={reason}");
            ExitCode::FAILURE
        }
    }
}

fn build_guests() -> Result<(), String> {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(variable("OUT_DIR")?);
    // Not all of guest/: its own target folder, if someone built it by hand, must not trigger this.
    for input in [
        "guest/abi/src",
        "guest/copy",
        "guest/formats/src",
        "guest/formats/Cargo.toml",
        "guest/inspect",
        "guest/kit",
        "guest/link",
        "guest/Cargo.toml",
        "guest/Cargo.lock",
        "proto/src",
        "proto/Cargo.toml",
    ] {
        println!("cargo::rerun-if-changed={input}");
    }

    let target = out.join("guest-target");
    let status = Command::new(variable("CARGO")?)
        .args(["build", "--release", "--bins", "--locked"])
        .arg("--manifest-path")
        .arg(root.join("guest/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        // What this build was asked for (flags, wrappers such as clippy's, another target) is not
        // meant for the guests.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_BUILD_TARGET")
        .status()
        .map_err(|error| format!("cannot run cargo for the guests: {error}"))?;
    if !status.success() {
        return Err(format!("building the guests failed: {status}"));
    }
    let release = target.join("release");
    GUESTS
        .iter()
        .try_for_each(|(program, image)| copy(&release.join(program), &out.join(image)))
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    fs::copy(from, to).map(|_| ()).map_err(|error| {
        format!(
            "cannot copy {} to {}: {error}",
            from.display(),
            to.display()
        )
    })
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}"))
}
