//! What the system swaps to (proc_swaps(5)). A path there is one of the mount namespace in which it was
//! turned on: in a container, or where something is mounted over it, it may lead to nothing, or to
//! something else. So what it leads to here, and what sysfs has under the same name, are both taken for
//! swap space: one too many is only refused, and one too few would be written over.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Stat};

use super::identity::Identity;
use super::layers::node_in;
use super::system::statat;

/// What the kernel says behind a path that has been removed since.
const REMOVED: &str = " (deleted)";

/// All that the system swaps to at one moment.
pub(super) struct Swaps(Vec<Swap>);

/// A file or device that the system swaps to.
struct Swap {
    path: PathBuf,
    is_file: bool,
}

impl Swaps {
    /// What it swaps to now.
    pub(super) fn now() -> Self {
        Self::parse(&fs::read("/proc/swaps").unwrap_or_default())
    }

    fn parse(swaps: &[u8]) -> Self {
        // The first line says what is in the others.
        let lines = swaps.split(|&byte| byte == b'\n').skip(1);
        let swap = |line: &[u8]| {
            let mut fields = line.split(u8::is_ascii_whitespace);
            let path = unescape(fields.next()?).into();
            let kind = fields.find(|field| !field.is_empty())?;
            let is_file = kind == b"file";
            Some(Swap { path, is_file })
        };
        Self(lines.filter_map(swap).collect())
    }

    /// The numbers of the block devices.
    pub(super) fn devices(&self) -> impl Iterator<Item = u64> {
        let devices = self.0.iter().filter(|swap| !swap.is_file);
        devices.flat_map(|swap| swap.named_device().into_iter().chain(swap.known_device()))
    }

    /// The files, as far as their paths lead to them.
    pub(super) fn files(&self) -> impl Iterator<Item = Identity> {
        self.file_paths().filter_map(found)
    }

    pub(super) fn file_paths(&self) -> impl Iterator<Item = &Path> {
        let files = self.0.iter().filter(|swap| swap.is_file);
        files.map(|swap| swap.path.as_path())
    }

    /// Whether this file is one of them.
    pub(super) fn have_file(&self, file: &Stat) -> bool {
        self.files().any(|other| other == Identity::of(file))
    }
}

impl Swap {
    /// The device that the path leads to.
    fn named_device(&self) -> Option<u64> {
        found(&self.path)?.block_device()
    }

    /// The device that sysfs has under this name, for which exclamation marks stand for slashes.
    fn known_device(&self) -> Option<u64> {
        let name = self.path.strip_prefix("/dev").ok()?;
        let name = name.to_string_lossy().replace('/', "!");
        let name = name.strip_suffix(REMOVED).unwrap_or(&name);
        node_in(&Path::new("/sys/class/block").join(name))
    }
}

fn found(path: &Path) -> Option<Identity> {
    let found = statat(CWD, path, AtFlags::empty()).ok()?;
    Some(Identity::of(&found))
}

/// The path that a file of /proc gives, which stands for white space and backslashes by a backslash and
/// three octal digits.
fn unescape(mut escaped: &[u8]) -> OsString {
    let mut path = Vec::with_capacity(escaped.len());
    while let Some((&first, mut rest)) = escaped.split_first() {
        let mut byte = first;
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) = (first, rest) {
            byte = (a - b'0') << 6 | (b - b'0') << 3 | (c - b'0');
            rest = &rest[3..];
        }
        path.push(byte);
        escaped = rest;
    }
    OsString::from_vec(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_proc_have_their_own_characters_again() {
        for (escaped, path) in [
            (&b"/swap"[..], &b"/swap"[..]),
            (br"/a\040b\011c\012d\134040", b"/a b\tc\nd\\040"),
            (b"/\xff\\400\\08", b"/\xff\\400\\08"),
            (b"\\", b"\\"),
        ] {
            assert_eq!(unescape(escaped).into_vec(), path);
        }
    }

    #[test]
    fn each_line_but_the_first_is_a_file_or_a_device() {
        let swaps = Swaps::parse(
            b"Filename\t\t\t\tType\t\tSize\tUsed\tPriority\n\
              /swap\\040space                           file\t\t1020\t\t0\t\t-2\n\
              /dev/sda2                               partition\t1020\t\t0\t\t-3\n",
        );
        assert!(swaps.file_paths().eq(["/swap space"].map(Path::new)));
        assert!(swaps.0.iter().map(|swap| swap.is_file).eq([true, false]));
        assert!(Swaps::parse(b"").0.is_empty());
    }

    /// Any device will do that the system knows.
    #[test]
    fn a_swap_device_is_known_whatever_has_its_name() {
        let entries = fs::read_dir("/sys/class/block").into_iter().flatten();
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().replace('!', "/");
            for removed in ["", REMOVED] {
                let swap = Swap {
                    path: format!("/dev/{name}{removed}").into(),
                    is_file: false,
                };
                assert_eq!(swap.known_device(), node_in(&entry.path()), "{name}");
            }
        }
    }
}
