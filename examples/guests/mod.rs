//! Builds a guest in C with the C compiler that is there, as docs/guest.md shows.

use std::io;
use std::path::Path;
use std::process::Command;

/// The ELF image of the guest whose source is `examples/NAME/guest.c`.
pub(crate) fn build(name: &str) -> io::Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("guest");
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let built = Command::new("cc")
        .args(["-O2", "-ffreestanding", "-nostdlib", "-static", "-no-pie"])
        .args([
            "-fno-stack-protector",
            "-fcf-protection=none",
            "-fno-asynchronous-unwind-tables",
        ])
        .args(["-Wl,--build-id=none", "-Wl,-z,noexecstack"])
        // GNU's linker and lld have no option in common for the address.
        .arg("-T")
        .arg(examples.join("../guest/link/guest.ld"))
        .arg("-I")
        .arg(examples.join("guests"))
        .arg("-o")
        .arg(&image)
        .arg(examples.join(name).join("guest.c"))
        .status()?;
    if !built.success() {
        return Err(io::Error::other(format!("cc failed: {built}")));
    }
    std::fs::read(image)
}
