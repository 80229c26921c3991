//! Libraries that are loaded before those of the VMM, which a static binary does not allow.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::binary;
use super::skip;

/// A library that makes a socket before each read of a disk, which the sandbox forbids: the disks'
/// threads read with this, and nobody else does.
pub(crate) const SOCKET_AND_READ: &str = "
    #include <sys/socket.h>
    #include <sys/syscall.h>
    #include <sys/uio.h>
    #include <unistd.h>
    ssize_t preadv64(int fd, const struct iovec *pieces, int count, off_t offset) {
        socket(AF_UNIX, SOCK_STREAM, 0);
        return syscall(SYS_preadv, fd, pieces, count, offset, 0);
    }
    ssize_t preadv(int fd, const struct iovec *pieces, int count, off_t offset) {
        return preadv64(fd, pieces, count, offset);
    }
";

/// Whether the binary under test asks for no dynamic loader (PT_INTERP, System V ABI, "Program Header").
pub(crate) fn is_static() -> bool {
    const PT_INTERP: u32 = 3;
    let elf = fs::read(binary()).unwrap();
    let half = |at: usize| usize::from(u16::from_le_bytes(elf[at..at + 2].try_into().unwrap()));
    let table = usize::try_from(u64::from_le_bytes(elf[32..40].try_into().unwrap())).unwrap();
    let (size, count) = (half(54), half(56));
    (0..count).all(|index| {
        let entry = table + index * size;
        elf[entry..entry + 4] != PT_INTERP.to_le_bytes()
    })
}

/// Whether libraries can be loaded before those of the binary under test. If not, the current test is
/// counted as ignored.
pub(crate) fn can_preload() -> bool {
    let is_static = is_static();
    if is_static {
        skip("nothing can be loaded into a static binary");
    }
    !is_static
}

/// A library for LD_PRELOAD, compiled from C. If there can be none the test is counted as ignored.
pub(crate) fn preloaded(folder: &Path, source: &str) -> Option<PathBuf> {
    let (code, library) = (folder.join("preloaded.c"), folder.join("preloaded.so"));
    fs::write(&code, source).unwrap();
    let mut compiler = Command::new("cc");
    compiler
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &code]);
    let Ok(output) = compiler.output() else {
        skip("there is no C compiler (cc)");
        return None;
    };
    assert!(output.status.success(), "{output:?}");
    can_preload().then_some(library)
}
