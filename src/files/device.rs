//! What a block device says of itself (ioctl_blkgetsize64(2) and the like, linux/fs.h).

use std::io;
use std::os::fd::AsFd;

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use rustix::ioctl::{Getter, ioctl, opcode};

use super::system::seek;
use crate::repeat::interrupted;

/// `BLKGETSIZE64`: the size in bytes.
const BLKGETSIZE64: rustix::ioctl::Opcode = opcode::read::<usize>(0x12, 114);
/// `BLKSSZGET`: the size of a logical block in bytes.
const BLKSSZGET: rustix::ioctl::Opcode = opcode::none(0x12, 104);

/// `BLKROGET`: whether it is set to be read only.
const BLKROGET: rustix::ioctl::Opcode = opcode::none(0x12, 94);

/// Whether an open block device is set to be read only (blockdev(8)).
pub(super) fn is_read_only(device: impl AsFd) -> bool {
    let set = interrupted(|| {
        // SAFETY: the kernel writes an `int` for this request, and to no other kind of file.
        let getter = unsafe { Getter::<BLKROGET, u32>::new() };
        // SAFETY: the request only reads what the device is set to.
        unsafe { ioctl(&device, getter) }
    });
    set.is_ok_and(|set| set != 0)
}

/// The size of an open block device in bytes.
pub(super) fn size(device: impl AsFd) -> io::Result<u64> {
    let size = interrupted(|| {
        // SAFETY: the kernel writes a 64-bit number for this request, and to no other kind of file.
        let getter = unsafe { Getter::<BLKGETSIZE64, u64>::new() };
        // SAFETY: the request only reads the device's size.
        unsafe { ioctl(&device, getter) }
    })?;
    Ok(size)
}

/// The size of an open block device in bytes, as the sandbox allows to ask for it (lseek(2)).
pub(super) fn size_now(device: impl AsFd) -> Result<u64, Errno> {
    seek(device, SeekFrom::End(0))
}

/// The smallest that an open block device transfers, in bytes; `None` for anything else.
pub(super) fn block_size(device: impl AsFd) -> Option<u32> {
    let size = interrupted(|| {
        // SAFETY: the kernel writes an `int` for this request, and to no other kind of file.
        let getter = unsafe { Getter::<BLKSSZGET, u32>::new() };
        // SAFETY: the request only reads the device's block size.
        unsafe { ioctl(&device, getter) }
    });
    size.ok()
}
