//! A confined process can give its files their names on every file system, and can do no more with
//! names than that.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RenameFlags, linkat, openat, renameat, renameat_with, unlinkat,
};
use rustix::io::Errno;
use vmm::sandbox::{Support, confine_process};

use crate::common::fuse::{Hanging, Silence};
use crate::common::mount::Mounted;
use crate::common::{leave_out, test};
use crate::{child, task};

/// Makes an image with `command` and mounts it below `folder`.
fn image(folder: &Path, kind: &str) -> Result<(Mounted, PathBuf), String> {
    let (image, target) = (folder.join(format!("{kind}.image")), folder.join(kind));
    let file = File::create(&image).unwrap();
    // XFS takes no less.
    file.set_len(320 << 20).unwrap();
    let made = Command::new(format!("mkfs.{kind}"))
        .arg("-q")
        .arg(&image)
        .output();
    match made {
        Ok(made) if made.status.success() => {}
        failed => return Err(format!("mkfs.{kind}: {failed:?}")),
    }
    let mounted = Mounted::tried("loop,rw", kind, &image, &target)?;
    Ok((mounted, target))
}

fn in_memory(folder: &Path) -> Result<(Mounted, PathBuf), String> {
    let target = folder.join("tmpfs");
    let mounted = Mounted::tried("rw", "tmpfs", Path::new("none"), &target)?;
    Ok((mounted, target))
}

/// Layers over a folder with a file that is to be replaced, which lies in the lower one.
fn layers(folder: &Path) -> Result<(Mounted, PathBuf), String> {
    let [lower, upper, work, target] =
        ["lower", "upper", "work", "overlay"].map(|name| folder.join(name));
    for folder in [&lower, &upper, &work] {
        fs::create_dir(folder).unwrap();
    }
    fs::write(lower.join("old"), "old").unwrap();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    let mounted = Mounted::tried(&options, "overlay", Path::new("none"), &target)?;
    Ok((mounted, target))
}

/// Gives files names in `folder` in all the ways in which an output gets one, confined.
fn name_confined(folder: &Path) {
    let handle = File::open(folder).unwrap();
    let below =
        fs::create_dir(folder.join("below")).and_then(|()| File::open(folder.join("below")));
    if !folder.join("old").exists() {
        File::create(folder.join("old")).unwrap();
    }
    File::create(folder.join("hidden")).unwrap();
    let flags = OFlags::TMPFILE | OFlags::RDWR;
    let unnamed = openat(&handle, ".", flags, Mode::RUSR | Mode::WUSR);
    let refuses = Support::of_this_kernel().landlock.is_some();
    confine_process(&[handle.as_fd()]).unwrap();

    let (none, follow) = (AtFlags::empty(), AtFlags::SYMLINK_FOLLOW);
    if let Ok(file) = &unnamed {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        linkat(CWD, &path, &handle, "new", follow).unwrap();
        linkat(CWD, &path, &handle, "temporary", follow).unwrap();
        renameat(&handle, "temporary", &handle, "old").unwrap();
    }
    linkat(&handle, "old", &handle, "old~", none).unwrap();
    unlinkat(&handle, "old~", none).unwrap();
    match renameat_with(&handle, "hidden", &handle, "free", RenameFlags::NOREPLACE) {
        // Not every file system can do that.
        Err(Errno::INVAL) => {
            linkat(&handle, "hidden", &handle, "free", none).unwrap();
            unlinkat(&handle, "hidden", none).unwrap();
        }
        renamed => renamed.unwrap(),
    }
    renameat(&handle, "free", &handle, "old").unwrap();
    if refuses && let Ok(below) = below {
        linkat(&handle, "old", &below, "linked", none).unwrap_err();
        renameat(&handle, "old", &below, "moved").unwrap_err();
    }
}

#[test]
fn an_output_gets_its_name_on_any_file_system_and_nothing_moves_between_folders() {
    let name =
        "naming::an_output_gets_its_name_on_any_file_system_and_nothing_moves_between_folders";
    if let Some(folder) = task() {
        name_confined(Path::new(&folder));
        std::process::exit(7);
    }
    let confined = |folder: &Path| {
        let output = child(name, folder.to_str().unwrap());
        assert_eq!(output.status.code(), Some(7), "{folder:?}: {output:?}");
    };
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().join("here");
    fs::create_dir(&here).unwrap();
    confined(&here);
    let mounts = [
        in_memory(folder.path()),
        layers(folder.path()),
        image(folder.path(), "ext4"),
        image(folder.path(), "xfs"),
        image(folder.path(), "btrfs"),
    ];
    for mount in mounts {
        match mount {
            Ok((_mounted, target)) => confined(&target),
            Err(reason) => leave_out(&reason),
        }
    }
    match Hanging::mount(Silence::SlowSeeks, true) {
        Some(served) => confined(&served.folder()),
        None => leave_out("nothing can be mounted over /dev/fuse here"),
    }
}
