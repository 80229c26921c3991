//! QEMU's programs for disk images, where they are installed.

use std::path::Path;
use std::process::Command;

use super::skip;

/// Ends the test here, as ignored, where one of these programs is missing.
macro_rules! needs_qemu {
    ($($program:literal),+) => {
        $(if !$crate::common::qemu::is_installed($program) {
            return;
        })+
    };
}
pub(crate) use needs_qemu;

/// Whether this program is installed. If not, the current test is counted as ignored.
pub(crate) fn is_installed(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        skip(&format!("{program} is not installed"));
    }
    there
}

/// Runs one of them, which must succeed, and returns what it prints.
#[track_caller]
pub(crate) fn qemu(program: &str, arguments: &[&str]) -> String {
    let done = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8(done.stdout).unwrap()
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
