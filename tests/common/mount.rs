//! File systems that a test mounts, and namespaces in which it is alone, where this user may do so.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{is_root, skip};

/// Whether unshare(1) makes the namespaces that its `options` name. If not, the current test is counted as
/// ignored.
pub(crate) fn can_unshare(options: &[&str]) -> bool {
    let tried = Command::new("unshare").args(options).arg("true").output();
    let can = tried.is_ok_and(|output| output.status.success());
    if !can {
        skip(&format!("unshare {} does not work here", options.join(" ")));
    }
    can
}

/// Something that is mounted. It is unmounted when it is dropped.
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    /// Mounts `source`, which is of the type `kind`, on the folder `target`, which is made; what lies on
    /// a device only to be read. If that is not possible the test is counted as ignored.
    pub(crate) fn new(kind: &str, source: &Path, target: &Path) -> Option<Self> {
        let options = if source.is_absolute() { "ro" } else { "rw" };
        Self::with(options, kind, source, target)
    }

    /// Mounts `source` on `target` with these options. If that is not possible the test is counted as
    /// ignored.
    pub(crate) fn with(options: &str, kind: &str, source: &Path, target: &Path) -> Option<Self> {
        Self::tried(options, kind, source, target)
            .map_err(|reason| skip(&reason))
            .ok()
    }

    /// The same, or why it is not possible.
    pub(crate) fn tried(
        options: &str,
        kind: &str,
        source: &Path,
        target: &Path,
    ) -> Result<Self, String> {
        if !is_root() {
            return Err("only root mounts".into());
        }
        std::fs::create_dir_all(target).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", kind, "-o", options]);
        let mounted = mount.arg(source).arg(target).output();
        match mounted {
            Ok(mounted) if mounted.status.success() => Ok(Self(target.into())),
            failed => Err(format!("{kind} cannot be mounted here: {failed:?}")),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}
