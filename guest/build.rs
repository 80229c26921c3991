//! Links the guest as a bare-metal program: no start files, no libraries, and the addresses and
//! segment permissions of `guest.ld`. The arguments are the build script's and not a
//! configuration file's, so that they hold wherever cargo is started.

fn main() {
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=guest.ld");
    for argument in [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        &format!("-Wl,-T,{folder}/guest.ld"),
    ] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}
