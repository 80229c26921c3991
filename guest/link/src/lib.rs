//! How a guest's program is linked: as a bare-metal program without start files or libraries, at
//! the addresses and with the segment permissions of `guest.ld`.
//!
//! The `main` of a program's build script is this line:
//!
//! ```no_run
//! guest_link::program();
//! ```

use std::env;

/// Tells cargo how the binaries of the package that is being built are linked.
///
/// The arguments are the build script's and not a configuration file's, so that they hold wherever
/// cargo is started.
#[allow(clippy::print_stdout)] // A build script speaks to cargo by its standard output.
pub fn program() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/guest.ld");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={script}");
    if env::var("CARGO_CFG_TARGET_ARCH").as_deref() != Ok("x86_64") {
        println!(
            "cargo::error=a guest runs on x86-64 only: build it with --target x86_64-unknown-linux-gnu"
        );
        return;
    }
    for argument in [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        &format!("-Wl,-T,{script}"),
    ] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
