//! Block devices over files, where this user may make some.

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use super::mount::Mounted;
use super::{is_root, random, skip};

/// A loop device. It goes when it is dropped.
pub(crate) struct Loop {
    path: String,
    /// Nodes of partitions that were made here.
    nodes: RefCell<Vec<PathBuf>>,
}

impl Loop {
    /// A device over the file at `path`. If there can be none the test is counted as ignored.
    pub(crate) fn over(path: &Path) -> Option<Self> {
        Self::with(path, &[])
    }

    /// The same with options of losetup(8).
    pub(crate) fn with(path: &Path, options: &[&str]) -> Option<Self> {
        if !is_root() {
            skip("only root makes loop devices");
            return None;
        }
        let arguments = [&["--find", "--show"], options].concat();
        let made = Command::new("losetup").args(arguments).arg(path).output();
        match made {
            Ok(made) if made.status.success() => Some(Self {
                path: text(&made),
                nodes: RefCell::default(),
            }),
            failed => {
                skip(&format!("no loop device can be made here: {failed:?}"));
                None
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        Path::new(&self.path)
    }

    /// What the kernel says of the device's queue of requests (sysfs, `queue/`).
    pub(crate) fn limit(&self, name: &str) -> Option<u64> {
        let device = self.path().file_name()?.to_str()?;
        let path = format!("/sys/block/{device}/queue/{name}");
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    }

    /// The device of a partition, by its number from 1 up, which the partition table in the file
    /// describes. A kernel that reads no such tables is told of its first block and its length, in
    /// blocks of 512 bytes.
    pub(crate) fn partition(&self, number: usize, start: u64, length: u64) -> Option<PathBuf> {
        let path = PathBuf::from(format!("{}p{number}", self.path));
        if !path.exists() {
            let numbers = [number.to_string(), start.to_string(), length.to_string()];
            let told = Command::new("addpart")
                .arg(&self.path)
                .args(numbers)
                .output();
            if !told.is_ok_and(|told| told.status.success()) {
                skip("no partition can be made here");
                return None;
            }
        }
        // The name may be made by a program that is told of the device.
        let patience = if Path::new("/run/udev").exists() {
            5
        } else {
            0
        };
        let deadline = Instant::now() + Duration::from_secs(patience);
        while !path.exists() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        if path.exists() {
            return Some(path);
        }
        let made = self.make_node(&path.file_name()?.to_string_lossy());
        if made.is_none() {
            skip("a partition gets no name here");
        }
        made
    }

    /// Makes a node for the partition that sysfs knows under this name, where nothing else does or may.
    fn make_node(&self, name: &str) -> Option<PathBuf> {
        let number = std::fs::read_to_string(format!("/sys/class/block/{name}/dev")).ok()?;
        let (major, minor) = number.trim().split_once(':')?;
        let device = makedev(major.parse().ok()?, minor.parse().ok()?);
        let path = std::env::temp_dir().join(format!("{name}-of-{}", std::process::id()));
        let mode = Mode::RUSR | Mode::WUSR;
        mknodat(CWD, &path, FileType::BlockDevice, mode, device).ok()?;
        self.nodes.borrow_mut().push(path.clone());
        // A folder may be mounted so that no device in it can be opened.
        std::fs::File::open(&path).is_ok().then_some(path)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // What was written to a device reaches the file below when its last user closes it, and that
        // may be another program that looks at new devices.
        if let Ok(device) = std::fs::File::open(&self.path) {
            let _ = device.sync_all();
        }
        let nodes = self.nodes.take();
        nodes.iter().for_each(|node| {
            let _ = std::fs::remove_file(node);
        });
        let _ = Command::new("losetup")
            .args(["--detach", &self.path])
            .status();
    }
}

/// Makes a file system on `device`, with what is in the folder `content`, if that is given. If that is not
/// possible the test is counted as ignored.
pub(crate) fn make_ext4(device: &Path, content: Option<&Path>) -> Option<()> {
    let mut mkfs = Command::new("mkfs.ext4");
    mkfs.args(["-q", "-F"]);
    if let Some(content) = content {
        mkfs.arg("-d").arg(content);
    }
    let made = mkfs.arg(device).output();
    if !made.is_ok_and(|made| made.status.success()) {
        skip("there is no mkfs.ext4, or it cannot do that");
        return None;
    }
    Some(())
}

/// Makes a file system without extents, as those of ext2 and ext3 are, in a new file in `folder`, and mounts
/// it there as ext4, which gives data its place late. If that is not possible the test is counted as
/// ignored.
pub(crate) fn mount_without_extents(folder: &Path) -> Option<(Mounted, PathBuf)> {
    let (image, target) = (folder.join("without.image"), folder.join("without"));
    File::create(&image).unwrap().set_len(64 << 20).unwrap();
    let made = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-b", "1024", "-O", "^extents,^64bit"])
        .arg(&image)
        .output();
    if !made.is_ok_and(|made| made.status.success()) {
        skip("there is no mkfs.ext4, or it cannot leave out extents");
        return None;
    }
    Some((Mounted::with("loop,rw", "ext4", &image, &target)?, target))
}

/// Makes a file of which 1 MiB has its place, and what lies behind two holes of 2 KiB has none yet: the
/// second one seems to go on to the end.
pub(crate) fn make_with_late_data(path: &Path) {
    let file = File::create(path).unwrap();
    file.write_all_at(&random(1 << 20, 1), 0).unwrap();
    file.sync_all().unwrap();
    for (start, length) in [(1026 << 10, 38 << 10), (1066 << 10, 80 << 10)] {
        file.write_all_at(&random(length, start), start).unwrap();
    }
}

/// Somebody who has claimed the device, as a file system, swap space or device-mapper does.
pub(crate) fn claim(device: &Path) -> File {
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_EXCL);
    options.open(device).unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
