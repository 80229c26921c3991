//! Whether the system uses a file as swap space, and whether somebody uses a block device by way of
//! another one. To open a device for oneself alone (O_EXCL, open(2)) tells of its file systems, swap
//! space and volumes; it does not tell of those on a loop device that lies on it, since a loop device
//! does not claim what it lies on.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::identity::Identity;
use super::layers::{Layers, folder_of, node_in, number};
use super::system::{open, statat};

/// Whether a file system or swap space in use has bytes in common with the device with this number, or a
/// device with such bytes is claimed, as volumes claim theirs: one that lies on this device, that this
/// device lies on, or that lies in the same place as this one. What cannot be found out is taken for no.
pub(super) fn is_in_use(device: u64) -> bool {
    let layers = Layers::of(Identity::of_block_device(device));
    // A device in use may have no name in /dev, as in a container.
    let mut used = mounted()
        .into_iter()
        .chain(btrfs_devices())
        .chain(swap_devices());
    used.any(|node| layers.share_with(Identity::of_block_device(node)))
        || swap_files().any(|file| layers.lie_on(&file))
        || is_claimed(&layers, device)
}

/// The devices of all file systems that are mounted. The third field is the device
/// (proc_pid_mountinfo(5)).
fn mounted() -> Vec<u64> {
    // The paths in it need not be UTF-8.
    let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let mounts = String::from_utf8_lossy(&mounts);
    let devices = mounts.lines().filter_map(|line| line.split(' ').nth(2));
    let mut devices: Vec<u64> = devices.filter_map(number).collect();
    devices.sort_unstable();
    devices.dedup();
    devices
}

/// The devices of all Btrfs file systems that are mounted, which have a device number of their own there.
fn btrfs_devices() -> impl Iterator<Item = u64> {
    let folders = fs::read_dir("/sys/fs/btrfs").into_iter().flatten();
    let folders = folders.flatten().map(|entry| entry.path().join("devices"));
    let devices = folders.flat_map(|folder| fs::read_dir(folder).into_iter().flatten());
    devices
        .flatten()
        .filter_map(|device| node_in(&device.path()))
}

/// The devices that the system swaps to.
fn swap_devices() -> impl Iterator<Item = u64> {
    swaps().into_iter().filter_map(|swap| {
        let below = swap
            .path
            .strip_prefix("/dev")
            .ok()
            .filter(|_| !swap.is_file)?;
        match statat(CWD, &swap.path, AtFlags::empty()) {
            Ok(found) => Identity::of(&found).block_device(),
            // In a container it may have no name.
            Err(_) => {
                let name = below.to_string_lossy().replace('/', "!");
                node_in(&Path::new("/sys/class/block").join(name))
            }
        }
    })
}

/// Whether a device that has bytes in common with this one can be opened by nobody else. The parts of
/// one disk know of each other's claims, also of the one that this process has.
fn is_claimed(layers: &Layers, device: u64) -> bool {
    let own_disk = disk_of(device);
    let devices = fs::read_dir("/sys/class/block").into_iter().flatten();
    devices.flatten().any(|entry| {
        let shares =
            |node| disk_of(node) != own_disk && layers.share_with(Identity::of_block_device(node));
        node_in(&entry.path()).is_some_and(shares)
            && claim(&entry.file_name()) == Err(Errno::BUSY)
            && !has_free_part(&entry.path())
    })
}

/// Whether a disk has a partition that can be claimed. Then whoever has claimed the disk has claimed
/// another of its partitions, which is a device of its own here, and none of what lies between them.
fn has_free_part(disk: &Path) -> bool {
    let entries = fs::read_dir(disk).into_iter().flatten().flatten();
    let mut parts = entries.filter(|entry| entry.path().join("partition").exists());
    parts.any(|part| claim(&part.file_name()).is_ok())
}

/// The path of the device that sysfs has under this name, which stands for slashes by exclamation marks.
fn device_path(name: &str) -> PathBuf {
    Path::new("/dev").join(name.replace('!', "/"))
}

/// Claims the device that sysfs has under this name for a moment.
fn claim(name: &OsStr) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC;
    open(&device_path(&name.to_string_lossy()), flags, Mode::empty()).map(drop)
}

/// The folder of the whole disk that the device with this number is or is a partition of.
fn disk_of(node: u64) -> Option<PathBuf> {
    let folder = folder_of(node).ok()?;
    match folder.join("partition").exists() {
        true => folder.parent().map(Path::to_path_buf),
        false => Some(folder),
    }
}

/// Whether the system swaps to this file.
pub(super) fn is_swap_file(file: &Stat) -> bool {
    swap_files().any(|other| other == Identity::of(file))
}

/// The files that the system swaps to.
fn swap_files() -> impl Iterator<Item = Identity> {
    let files = swaps().into_iter().filter(|swap| swap.is_file);
    let found = files.filter_map(|swap| statat(CWD, &swap.path, AtFlags::empty()).ok());
    found.map(|file| Identity::of(&file))
}

/// A file or device that the system swaps to.
struct Swap {
    path: PathBuf,
    is_file: bool,
}

/// All that the system swaps to (proc_swaps(5)).
fn swaps() -> Vec<Swap> {
    let swaps = fs::read("/proc/swaps").unwrap_or_default();
    // The first line says what is in the others.
    let lines = swaps.split(|&byte| byte == b'\n').skip(1);
    let swap = |line: &[u8]| {
        let mut fields = line.split(u8::is_ascii_whitespace);
        let path = unescape(fields.next()?).into();
        let kind = fields.find(|field| !field.is_empty())?;
        let is_file = kind == b"file";
        Some(Swap { path, is_file })
    };
    lines.filter_map(swap).collect()
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
    fn names_of_devices_in_folders_become_paths() {
        for (name, path) in [
            ("loop7p1", "/dev/loop7p1"),
            ("cciss!c0d0p1", "/dev/cciss/c0d0p1"),
        ] {
            assert_eq!(device_path(name), Path::new(path));
        }
    }
}
