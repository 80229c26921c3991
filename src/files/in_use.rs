//! Whether somebody uses a block device by way of another one. To open a device for oneself alone
//! (O_EXCL, open(2)) tells of its file systems, swap space and volumes; it does not tell of those on a
//! loop device that lies on it, since a loop device does not claim what it lies on.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::identity::Identity;
use super::layers::{Layers, folder_of, node_in, number};
use super::loop_device;
use super::swap::Swaps;
use super::system::{open, statat};

/// Whether a file system or swap space in use has bytes in common with the device with this number, or a
/// device with such bytes is claimed, as volumes claim theirs: one that lies on this device, that this
/// device lies on, or that lies in the same place as this one. What cannot be found out is taken for no.
pub(super) fn is_in_use(device: u64) -> bool {
    let layers = Layers::of(Identity::of_block_device(device));
    let swaps = Swaps::now();
    // A device in use may have no name in /dev, as in a container.
    let mut used = mounted()
        .into_iter()
        .chain(btrfs_devices())
        .chain(swaps.devices())
        .chain(devices_over_files_of(&swaps));
    used.any(|node| layers.share_with(Identity::of_block_device(node)))
        || swaps.files().any(|file| layers.lie_on(&file))
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

/// The loop devices over files that the system swaps to, by the paths of both: where another file system
/// is mounted over such a file, its path does not lead to it. Two files that have one path in two mount
/// namespaces are taken for one.
fn devices_over_files_of(swaps: &Swaps) -> impl Iterator<Item = u64> {
    let files: Vec<_> = swaps.file_paths().collect();
    // Most systems swap to no file, and then no device need be looked at.
    let devices = match files.is_empty() {
        true => Vec::new(),
        false => devices(),
    };
    let lies_on_one = move |device: &Device| {
        let below = device.folder.as_deref().and_then(loop_device::backing_path);
        below.is_some_and(|path| files.contains(&path.as_path()))
    };
    let devices = devices.into_iter().filter(lies_on_one);
    devices.map(|device| device.number)
}

/// A block device.
struct Device {
    number: u64,
    path: PathBuf,
    /// Where sysfs tells of it.
    folder: Option<PathBuf>,
}

/// All block devices; without sysfs, those that have a name in /dev itself.
fn devices() -> Vec<Device> {
    match fs::read_dir("/sys/class/block") {
        Ok(entries) => entries.flatten().filter_map(device_of).collect(),
        Err(_) => named_devices().collect(),
    }
}

/// The device with this folder in sysfs.
fn device_of(entry: fs::DirEntry) -> Option<Device> {
    let folder = entry.path();
    Some(Device {
        number: node_in(&folder)?,
        path: device_path(&entry.file_name().to_string_lossy()),
        folder: Some(folder),
    })
}

fn named_devices() -> impl Iterator<Item = Device> {
    let entries = fs::read_dir("/dev").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let path = entry.path();
        let node = statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(Device {
            number: Identity::of(&node).block_device()?,
            path,
            folder: None,
        })
    })
}

/// Whether a device that has bytes in common with this one can be opened by nobody else. The parts of
/// one disk know of each other's claims, also of the one that this process has.
fn is_claimed(layers: &Layers, device: u64) -> bool {
    let own_disk = disk_of(device);
    let is_own = |other: u64| other == device || (own_disk.is_some() && disk_of(other) == own_disk);
    let shares = |other: u64| layers.share_with(Identity::of_block_device(other));
    devices().iter().any(|other| {
        !is_own(other.number)
            && shares(other.number)
            && claim(other) == Err(Errno::BUSY)
            && !has_other_claims(parts_of(other).map(|part| (shares(part.number), claim(&part))))
    })
}

/// Whether a disk that is claimed is claimed by way of partitions without bytes of the output, as far as
/// its partitions show, of which each has such bytes or not and can be claimed or not. If one can be
/// claimed, whoever has claimed the disk has claimed another partition, and none of what lies between
/// them. A partition that is claimed is a device of its own here; one that cannot be tried, as it
/// has no name in a container, may be the one.
fn has_other_claims(parts: impl Iterator<Item = (bool, Result<(), Errno>)>) -> bool {
    let mut has_free_one = false;
    for (shares, claimed) in parts {
        match claimed {
            Ok(()) => has_free_one = true,
            Err(Errno::BUSY) => {}
            Err(_) if shares => return false,
            Err(_) => {}
        }
    }
    has_free_one
}

/// The partitions of a disk.
fn parts_of(disk: &Device) -> impl Iterator<Item = Device> {
    let folder = disk.folder.iter();
    let entries = folder.flat_map(|folder| fs::read_dir(folder).into_iter().flatten());
    let parts = entries
        .flatten()
        .filter(|entry| entry.path().join("partition").exists());
    parts.filter_map(device_of)
}

/// The path of the device that sysfs has under this name, which stands for slashes by exclamation marks.
fn device_path(name: &str) -> PathBuf {
    Path::new("/dev").join(name.replace('!', "/"))
}

/// Claims the device for a moment, unless its name leads to something else, as in a container.
fn claim(device: &Device) -> Result<(), Errno> {
    let named = statat(CWD, &device.path, AtFlags::empty())?;
    if Identity::of(&named).block_device() != Some(device.number) {
        return Err(Errno::NODEV);
    }
    let flags = OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC;
    open(&device.path, flags, Mode::empty()).map(drop)
}

/// The folder of the whole disk that the device with this number is or is a partition of.
fn disk_of(node: u64) -> Option<PathBuf> {
    let folder = folder_of(node).ok()?;
    match folder.join("partition").exists() {
        true => folder.parent().map(Path::to_path_buf),
        false => Some(folder),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices_in_folders_become_paths() {
        for (name, path) in [
            ("loop7p1", "/dev/loop7p1"),
            ("cciss!c0d0p1", "/dev/cciss/c0d0p1"),
        ] {
            assert_eq!(device_path(name), Path::new(path));
        }
    }

    #[test]
    fn a_claimed_disk_is_in_use_unless_its_partitions_show_that_others_are_claimed() {
        let [free, busy, unknown] = [Ok(()), Err(Errno::BUSY), Err(Errno::NOENT)];
        for (parts, is_elsewhere) in [
            (&[][..], false),
            (&[(true, busy), (false, busy)], false),
            (&[(true, free), (false, busy)], true),
            (&[(true, free), (false, unknown)], true),
            // The one with bytes of the output may be the one that is claimed.
            (&[(false, free), (true, unknown)], false),
            (&[(true, unknown), (false, free)], false),
            (&[(true, free), (true, unknown)], false),
            // That one is a device of its own.
            (&[(true, busy), (false, free)], true),
        ] {
            let found = has_other_claims(parts.iter().copied());
            assert_eq!(found, is_elsewhere, "{parts:?}");
        }
    }
}
