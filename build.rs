//! Builds the guests and hands their ELF images to the VMM, which embeds them.
//!
//! The guests are a workspace of their own with its own lock file, built by a cargo of its own into
//! this build's output folder: plain `cargo build` and `cargo test` need nothing before them.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

/// The guests' programs, and what their images are called in this build's output folder.
const GUESTS: [(&str, &str); 3] = [
    ("copy", "guest.elf"),
    ("convert", "convert.elf"),
    ("inspect", "inspect.elf"),
];
/// What no configuration of the user's may change, such as one for all Rust programs that this user
/// builds: a guest has no unwinding, little room, and its machine has no state but that of SSE.
const PROFILE: [&str; 7] = [
    "profile.release.panic='abort'",
    "profile.release.lto='fat'",
    "profile.release.codegen-units=1",
    "profile.release.opt-level=3",
    "profile.release.strip='symbols'",
    "profile.release.debug-assertions=false",
    "profile.release.overflow-checks=false",
];
/// How the codecs in C are compiled that a guest holds: it has neither a thread's memory, where a
/// stack protector has its value, nor the functions that checks of buffers call.
const CFLAGS: &str = "-fno-stack-protector -U_FORTIFY_SOURCE -fcf-protection=none";

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
        "Cargo.toml",
        "guest/abi/src",
        "guest/abi/Cargo.toml",
        "guest/convert",
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
    println!("cargo::rerun-if-env-changed=CC");

    let target = out.join("guest-target");
    let mut cargo = Command::new(variable("CARGO")?);
    // What cargo tells this script of the VMM's own build, such as its sanitizer, would reach the
    // scripts that compile the guests' codecs: cargo sets for those what it has to say, and leaves
    // the rest as it is. Flags for a target (`CFLAGS_x86_64_unknown_linux_gnu`) would come before those
    // below. And a codec of this system (`ZSTD_SYS_USE_PKG_CONFIG`) is not built for a guest.
    env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| {
            let name = name.to_string_lossy();
            name.starts_with("CARGO_CFG_")
                || name.contains("CFLAGS")
                || name.ends_with("_PKG_CONFIG")
        })
        .for_each(|name| {
            cargo.env_remove(name);
        });
    for setting in PROFILE {
        cargo.args(["--config", setting]);
    }
    let host = variable("HOST")?;
    let status = cargo
        .args(["build", "--release", "--bins", "--locked"])
        .args(["--target", &host])
        .arg("--manifest-path")
        .arg(root.join("guest/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        // The cargo that runs this script holds the lock of its own build folder until the end, and a
        // configuration may name one folder for all builds.
        .env("CARGO_BUILD_BUILD_DIR", &target)
        .env("CFLAGS", CFLAGS)
        // What this build was asked for (flags, wrappers such as clippy's) is not meant for the guests.
        // That there are no flags overrides those of the user's configuration as well.
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", "")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .status()
        .map_err(|error| format!("cannot run cargo for the guests: {error}"))?;
    if !status.success() {
        return Err(format!("building the guests failed: {status}"));
    }
    let release = target.join(host).join("release");
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
