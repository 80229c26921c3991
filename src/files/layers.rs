//! Where the bytes of a block device lie, as the kernel tells below /sys/dev/block: those of a
//! partition on its disk, those of a loop device in a file, those of device-mapper and md on other
//! devices. What is written to one of two that meet there is read from the other, although they have
//! nothing else in common (Linux, Documentation/ABI/stable/sysfs-block).

use std::fs;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, makedev};

use super::identity::Identity;

/// More places than this are not gone through: there is no end to what can be built of devices.
const MOST: usize = 64;

/// The kernel counts the sizes of all devices in sectors of this many bytes.
const SECTOR: u64 = 512;

/// All places in which the bytes of a file or device are.
#[derive(Debug)]
pub(super) struct Layers {
    top: Identity,
    below: Vec<Layer>,
}

/// A file or device that another device lies on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Layer {
    identity: Identity,
    /// Which bytes of it the device takes, unless the kernel tells nothing of that.
    range: Option<Range<u64>>,
}

impl Layers {
    /// What cannot be found out, without sysfs for example, is left out.
    pub(super) fn of(top: Identity) -> Self {
        let mut below: Vec<Layer> = Vec::new();
        let all = |node| folder_of(node).ok().as_deref().and_then(size);
        let mut next: Vec<_> = (top.block_device().map(|node| (node, all(node))))
            .into_iter()
            .collect();
        while let Some((node, range)) = next.pop() {
            let Ok(folder) = folder_of(node) else {
                continue;
            };
            for layer in directly_below(&folder, range.as_ref()) {
                if below.len() < MOST && !below.contains(&layer) {
                    let device = layer.identity.block_device();
                    next.extend(device.map(|node| (node, layer.range.clone())));
                    below.push(layer);
                }
            }
        }
        Self { top, below }
    }

    /// Whether some bytes are in both.
    pub(super) fn meet(&self, other: &Self) -> bool {
        let covers =
            |top: &Identity, below: &[Layer]| below.iter().any(|layer| layer.identity.is_same(top));
        self.top.is_same(&other.top)
            || covers(&self.top, &other.below)
            || covers(&other.top, &self.below)
            || self
                .below
                .iter()
                .any(|layer| other.below.iter().any(|lower| layer.meets(lower)))
    }
}

impl Layer {
    /// Volumes of one device have each a part of it of their own, as long as nothing else is known.
    fn meets(&self, other: &Self) -> bool {
        let (Some(one), Some(two)) = (&self.range, &other.range) else {
            return false;
        };
        self.identity.is_same(&other.identity) && one.start < two.end && two.start < one.end
    }
}

/// Where the kernel tells of a device. Links are followed, so that a partition's folder lies in that
/// of its disk.
fn folder_of(node: u64) -> std::io::Result<PathBuf> {
    let (major, minor) = (rustix::fs::major(node), rustix::fs::minor(node));
    fs::canonicalize(format!("/sys/dev/block/{major}:{minor}"))
}

/// All bytes of the device with this folder.
fn size(folder: &Path) -> Option<Range<u64>> {
    Some(0..count(&folder.join("size"))?.checked_mul(SECTOR)?)
}

/// What the device with this folder lies on directly, and where these bytes of it are there.
fn directly_below(folder: &Path, range: Option<&Range<u64>>) -> Vec<Layer> {
    let behind = |start: u64| {
        let range = range?;
        Some(start.checked_add(range.start)?..start.checked_add(range.end)?)
    };
    let slaves = fs::read_dir(folder.join("slaves")).into_iter().flatten();
    let slaves = slaves
        .flatten()
        .filter_map(|slave| device(&slave.path(), None));
    let disk = count(&folder.join("start"))
        .filter(|_| folder.join("partition").exists())
        .and_then(|start| device(folder.parent()?, behind(start.checked_mul(SECTOR)?)));
    let file = file_below(folder, count(&folder.join("loop/offset")).and_then(behind));
    slaves.chain(disk).chain(file).collect()
}

/// These bytes of the device with this folder.
fn device(folder: &Path, range: Option<Range<u64>>) -> Option<Layer> {
    let text = fs::read_to_string(folder.join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    let node = makedev(major.parse().ok()?, minor.parse().ok()?);
    Some(Layer {
        identity: Identity::of_block_device(node),
        range,
    })
}

/// The file, or another device, on which a loop device lies.
fn file_below(folder: &Path, range: Option<Range<u64>>) -> Option<Layer> {
    let path = fs::read_to_string(folder.join("loop/backing_file")).ok()?;
    let file = fs::metadata(path.strip_suffix('\n')?).ok()?;
    let identity = Identity {
        device: file.dev(),
        inode: file.ino(),
        kind: FileType::from_raw_mode(file.mode()),
        node: file.rdev(),
    };
    Some(Layer { identity, range })
}

fn count(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
