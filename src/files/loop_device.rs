//! What a loop device lies on (loop(4), linux/loop.h). The device itself is asked, since the path that
//! sysfs has may name nothing any more, or something else: the file may have been deleted, or lie in
//! another mount namespace.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, major, minor};
use rustix::ioctl::{Getter, Opcode, ioctl};

use super::identity::Identity;
use super::system::{fstat, open};
use crate::repeat::interrupted;

/// The major number of loop devices (Linux, Documentation/admin-guide/devices.txt).
const LOOP: u32 = 7;
/// `LOOP_GET_STATUS64`, which fills a `struct loop_info64`.
const LOOP_GET_STATUS64: Opcode = 0x4c05;
/// The size of that structure in words of 64 bits. It begins with these: device and inode of the file,
/// its own number if it is a device, and the offset in it, in bytes.
const INFO_WORDS: usize = 29;

/// A file or device, and where in it a loop device begins.
pub(super) struct Backing {
    pub(super) identity: Identity,
    /// In bytes.
    pub(super) offset: u64,
}

/// What the block device with the number `node` lies on, if it is a loop device. `folder` is where sysfs
/// tells of it.
pub(super) fn backing(node: u64, folder: Option<&Path>) -> Option<Backing> {
    if major(node) != LOOP {
        return None;
    }
    ask(node, folder).or_else(|| look_up(folder?))
}

/// Asks the device.
fn ask(node: u64, folder: Option<&Path>) -> Option<Backing> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let device = open(&path(node, folder), flags, Mode::empty()).ok()?;
    let stat = fstat(&device).ok()?;
    if Identity::of(&stat).block_device() != Some(node) {
        return None;
    }
    let info = interrupted(|| {
        // SAFETY: for this request the kernel writes a structure of so many words, all of it numbers
        // or text, and to no other kind of file than a loop device.
        let getter = unsafe { Getter::<LOOP_GET_STATUS64, [u64; INFO_WORDS]>::new() };
        // SAFETY: the request only reads what the device is set to.
        unsafe { ioctl(&device, getter) }
    });
    let [device, inode, node, offset, ..] = info.ok()?;
    let kind = match node {
        0 => FileType::RegularFile,
        _ => FileType::BlockDevice,
    };
    let identity = Identity {
        device,
        inode,
        kind,
        node,
    };
    Some(Backing { identity, offset })
}

/// The name of the device, which sysfs tells.
fn path(node: u64, folder: Option<&Path>) -> PathBuf {
    let event = folder.and_then(|folder| fs::read_to_string(folder.join("uevent")).ok());
    let name = event.as_deref().and_then(|event| {
        let mut lines = event.lines();
        lines.find_map(|line| line.strip_prefix("DEVNAME="))
    });
    match name {
        Some(name) => Path::new("/dev").join(name),
        None => PathBuf::from(format!("/dev/loop{}", minor(node))),
    }
}

/// What sysfs says, for somebody who may not open the device.
fn look_up(folder: &Path) -> Option<Backing> {
    let file = fs::metadata(backing_path(folder)?).ok()?;
    let offset = fs::read_to_string(folder.join("loop/offset")).ok()?;
    Some(Backing {
        identity: Identity {
            device: file.dev(),
            inode: file.ino(),
            kind: FileType::from_raw_mode(file.mode()),
            node: file.rdev(),
        },
        offset: offset.trim().parse().ok()?,
    })
}

/// The path of what the loop device lies on of which sysfs tells in `folder`, as the kernel knows it: it
/// may not lead there any more.
pub(super) fn backing_path(folder: &Path) -> Option<PathBuf> {
    let path = fs::read(folder.join("loop/backing_file")).ok()?;
    Some(OsStr::from_bytes(path.strip_suffix(b"\n")?).into())
}
