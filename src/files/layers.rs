//! Where the bytes of a file or block device lie, as the kernel tells below /sys/dev/block: those of a
//! file on the device of its file system, those of a partition on its disk, those of a loop device in
//! a file, those of device-mapper and md on other devices. What is written to one of two that meet
//! there is read from the other, although they have nothing else in common (Linux,
//! Documentation/ABI/stable/sysfs-block).

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rustix::fs::makedev;

use super::identity::Identity;
use super::loop_device;

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

/// A file or device that another one lies on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Layer {
    identity: Identity,
    /// Which bytes of it the upper one takes, unless the kernel tells nothing of that.
    range: Option<Range<u64>>,
    /// Whether it takes all of them. A file has only some of the bytes of its file system's device, and
    /// the kernel does not tell which.
    whole: bool,
    /// Whether what lies on it has claimed it, as volumes claim their devices. A loop device does not.
    held: bool,
}

impl Layers {
    /// What cannot be found out, without sysfs for example, is left out.
    pub(super) fn of(top: Identity) -> Self {
        let mut below: Vec<Layer> = Vec::new();
        let mut next = vec![Layer {
            identity: top,
            // Without sysfs the end is not known, but that it takes all of itself is.
            range: top
                .block_device()
                .map(|node| size(node).unwrap_or(0..u64::MAX)),
            whole: true,
            held: false,
        }];
        while let Some(upper) = next.pop() {
            for layer in directly_below(&upper) {
                if below.len() < MOST && !below.contains(&layer) {
                    next.push(layer.clone());
                    below.push(layer);
                }
            }
        }
        Self { top, below }
    }

    /// Whether some bytes are in both.
    pub(super) fn meet(&self, other: &Self) -> bool {
        self.lie_on(&other.top) || other.lie_on(&self.top) || self.overlap(other)
    }

    /// Whether some bytes are in a third file or device, and in the same place there.
    fn overlap(&self, other: &Self) -> bool {
        self.below.iter().any(|layer| other.is_met_by(layer))
    }

    /// Whether bytes of `layer` are in what this lies on.
    fn is_met_by(&self, layer: &Layer) -> bool {
        self.below.iter().any(|lower| layer.meets(lower))
    }

    /// Whether the bytes are in `other`, or it is what they are the bytes of.
    pub(super) fn lie_on(&self, other: &Identity) -> bool {
        let is_it = |layer: &Layer| layer.identity.is_same(other);
        self.top.is_same(other) || self.below.iter().any(is_it)
    }

    /// Whether somebody who uses the device `other` uses bytes of this one. A device over a file has none
    /// in common with that of the file's own file system, which knows what is the file's; and who uses a
    /// device that this one has claimed is this one.
    pub(super) fn share_with(&self, other: Identity) -> bool {
        let other = Self::of(other);
        let is_other = |layer: &Layer| !layer.held && layer.identity.is_same(&other.top);
        let meets = |layer: &Layer| layer.whole && (is_other(layer) || other.is_met_by(layer));
        other.lie_on(&self.top) || self.below.iter().any(meets)
    }
}

impl Layer {
    /// Volumes of one device have each a part of it of their own, as long as nothing else is known, and
    /// so have the files of one file system.
    fn meets(&self, other: &Self) -> bool {
        let (Some(one), Some(two)) = (&self.range, &other.range) else {
            return false;
        };
        let same = self.identity.is_same(&other.identity) && (self.whole || other.whole);
        same && one.start < two.end && two.start < one.end
    }
}

/// Where the kernel tells of a device. Links are followed, so that a partition's folder lies in that
/// of its disk.
pub(super) fn folder_of(node: u64) -> std::io::Result<PathBuf> {
    let (major, minor) = (rustix::fs::major(node), rustix::fs::minor(node));
    fs::canonicalize(format!("/sys/dev/block/{major}:{minor}"))
}

/// All bytes of the device with the number `node`.
fn size(node: u64) -> Option<Range<u64>> {
    let folder = folder_of(node).ok()?;
    Some(0..count(&folder.join("size"))?.checked_mul(SECTOR)?)
}

/// What something lies on directly, and where its bytes are there.
fn directly_below(upper: &Layer) -> Vec<Layer> {
    let Some(node) = upper.identity.block_device() else {
        // A file lies somewhere on the device of its file system. Some file systems have none, and
        // some have several, which they do not tell (stat(2), `st_dev`).
        let node = upper.identity.device;
        return Vec::from([Layer {
            identity: Identity::of_block_device(node),
            range: size(node),
            whole: false,
            held: false,
        }]);
    };
    let layer = |identity, range, held| Layer {
        identity,
        range,
        whole: upper.whole,
        held,
    };
    let behind = |start: u64| {
        let range = upper.range.as_ref()?;
        Some(start.checked_add(range.start)?..start.saturating_add(range.end))
    };
    let mut layers = Vec::new();
    let folder = folder_of(node).ok();
    if let Some(folder) = &folder {
        let slaves = fs::read_dir(folder.join("slaves")).into_iter().flatten();
        let device = |folder: &Path| node_in(folder).map(Identity::of_block_device);
        let slaves = slaves
            .flatten()
            .filter_map(|slave| Some(layer(device(&slave.path())?, None, true)));
        let disk = count(&folder.join("start"))
            .filter(|_| folder.join("partition").exists())
            .and_then(|start| {
                let range = behind(start.checked_mul(SECTOR)?);
                // Who claims a part of a disk keeps others from claiming all of it.
                Some(layer(device(folder.parent()?)?, range, upper.held))
            });
        layers.extend(slaves.chain(disk));
    }
    if let Some(backing) = loop_device::backing(node, folder.as_deref()) {
        layers.push(layer(backing.identity, behind(backing.offset), false));
    }
    layers
}

/// The number of the device with this folder.
pub(super) fn node_in(folder: &Path) -> Option<u64> {
    number(fs::read_to_string(folder.join("dev")).ok()?.trim())
}

/// A device number, as `major:minor`.
pub(super) fn number(text: &str) -> Option<u64> {
    let (major, minor) = text.split_once(':')?;
    Some(makedev(major.parse().ok()?, minor.parse().ok()?))
}

fn count(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device of which the kernel knows nothing.
    fn device(minor: u32) -> Identity {
        Identity::of_block_device(makedev(4000, minor))
    }

    #[test]
    fn who_uses_what_a_device_lies_on_uses_its_bytes_unless_the_device_has_claimed_it() {
        let lower = Layer {
            identity: device(1),
            range: None,
            whole: true,
            held: false,
        };
        let over = |lower: Layer| Layers {
            top: device(0),
            below: vec![lower],
        };
        let held = Layer {
            held: true,
            ..lower.clone()
        };
        // The device of a file system, of which a file has some bytes.
        let partly = Layer {
            whole: false,
            ..lower.clone()
        };
        for (lower, shares) in [(lower, true), (held, false), (partly, false)] {
            assert_eq!(over(lower.clone()).share_with(device(1)), shares);
            assert!(!over(lower).share_with(device(2)));
        }
    }
}
