//! Block devices that lie on nothing else: of memory (Linux, admin-guide/blockdev/zram).

use std::fs;
use std::path::{Path, PathBuf};

use super::{is_root, skip};

const CONTROL: &str = "/sys/class/zram-control";

/// A block device of memory. It goes when it is dropped, unless it is still in use.
pub(crate) struct MemoryDevice {
    number: String,
    path: PathBuf,
}

impl MemoryDevice {
    /// A device of `length` bytes, all of them zero. If there can be none the test is counted as
    /// ignored.
    pub(crate) fn new(length: usize) -> Option<Self> {
        if !is_root() {
            skip("only root makes devices of memory");
            return None;
        }
        // To read this makes a device, and gives its number.
        let Ok(number) = fs::read_to_string(format!("{CONTROL}/hot_add")) else {
            skip("no device of memory can be made here (zram)");
            return None;
        };
        let number = number.trim().to_owned();
        let path = PathBuf::from(format!("/dev/zram{number}"));
        let device = Self { number, path };
        let size = format!("/sys/block/zram{}/disksize", device.number);
        if fs::write(size, length.to_string()).is_err() || !device.path.exists() {
            skip("a device of memory (zram) gets no size or no name here");
            return None;
        }
        Some(device)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for MemoryDevice {
    fn drop(&mut self) {
        let _ = fs::write(format!("{CONTROL}/hot_remove"), &self.number);
    }
}
