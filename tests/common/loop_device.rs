//! A block device for tests: a loop device over a file.

use std::path::Path;
use std::process::Command;

use super::{is_root, skip};

/// A loop device over a file, where this user may make one.
pub(crate) struct Loop(String);

impl Loop {
    pub(crate) fn over(path: &Path) -> Option<Self> {
        if !is_root() {
            skip("only root makes loop devices");
            return None;
        }
        let made = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(path)
            .output();
        match made {
            Ok(made) if made.status.success() => Some(Self(
                String::from_utf8(made.stdout).unwrap().trim().to_owned(),
            )),
            failed => {
                skip(&format!("no loop device can be made here: {failed:?}"));
                None
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}
