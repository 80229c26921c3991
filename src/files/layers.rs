//! What a block device lies on, as the kernel tells below /sys/dev/block: a partition on its disk, a
//! loop device on a file, device-mapper and md on other devices. What is written to the one is read
//! from the other, although the two have nothing else in common (Linux,
//! Documentation/ABI/stable/sysfs-block).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, makedev};

use super::identity::Identity;

/// More devices than this are not gone through: there is no end to what can be built of them.
const MOST: usize = 64;

/// All that the block device with the number `node` lies on, at whatever depth. What cannot be found
/// out, without sysfs for example, is left out.
pub(super) fn below(node: u64) -> Vec<Identity> {
    let mut found: Vec<Identity> = Vec::new();
    let mut next = vec![node];
    while let Some(node) = next.pop() {
        let Ok(folder) = folder_of(node) else {
            continue;
        };
        let devices = devices_below(&folder).map(Identity::of_block_device);
        for lower in devices.chain(file_below(&folder)) {
            if found.len() < MOST && !found.iter().any(|other| other.is_same(&lower)) {
                found.push(lower);
                next.extend(lower.block_device());
            }
        }
    }
    found
}

/// Where the kernel tells of a device. Links are followed, so that a partition's folder lies in that
/// of its disk.
fn folder_of(node: u64) -> std::io::Result<PathBuf> {
    let (major, minor) = (rustix::fs::major(node), rustix::fs::minor(node));
    fs::canonicalize(format!("/sys/dev/block/{major}:{minor}"))
}

/// The numbers of the devices on which the one with this folder lies directly.
fn devices_below(folder: &Path) -> impl Iterator<Item = u64> {
    let slaves = fs::read_dir(folder.join("slaves")).into_iter().flatten();
    let mut folders: Vec<PathBuf> = slaves.flatten().map(|entry| entry.path()).collect();
    if folder.join("partition").exists() {
        folders.extend(folder.parent().map(Path::to_owned));
    }
    folders
        .into_iter()
        .filter_map(|folder| number(&fs::read_to_string(folder.join("dev")).ok()?))
}

/// A device number, as `major:minor`.
fn number(text: &str) -> Option<u64> {
    let (major, minor) = text.trim().split_once(':')?;
    Some(makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// The file, or another device, on which a loop device lies.
fn file_below(folder: &Path) -> Option<Identity> {
    let path = fs::read_to_string(folder.join("loop/backing_file")).ok()?;
    let file = fs::metadata(path.strip_suffix('\n')?).ok()?;
    Some(Identity {
        device: file.dev(),
        inode: file.ino(),
        kind: FileType::from_raw_mode(file.mode()),
        node: file.rdev(),
    })
}
