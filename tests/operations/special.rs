//! What is neither a file nor a disk: devices, pipes, sockets, terminals, files that the kernel makes.
//! Each is refused with its reason before anything is done to it, or is done right, whatever name it
//! comes by.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use crate::HOST_FAILED;
use crate::common::terminal::Terminal;
use crate::common::{Files, Operation, Vmm, leave_out, needs_kvm, skip, test};

/// Fails unless `vmm` ends with one line that has `reason` in it, and nothing happens to `files`.
#[track_caller]
fn refused(operation: Operation, path: &Path, files: &Files, vmm: Vmm, reason: &str) {
    let finished = vmm.run();
    let what = format!("{operation:?}: {}: {finished:?}", path.display());
    assert_eq!(finished.code(), Some(HOST_FAILED), "{what}");
    assert!(finished.stderr.starts_with("vmm: cannot "), "{what}");
    assert_eq!(finished.stderr.lines().count(), 1, "{what}");
    assert_eq!(finished.stdout, "", "{what}");
    assert!(finished.stderr.contains(reason), "{reason:?}: {what}");
    files.assert_untouched();
}

#[track_caller]
fn refused_as_input(path: &Path, reason: &str) {
    for operation in Operation::ALL {
        let mut files = Operation::files();
        let link = files.expect("link");
        symlink(path, &link).unwrap();
        for path in [path, &link] {
            let vmm = operation.vmm_of(path, &files.output());
            refused(operation, path, &files, vmm, reason);
        }
    }
}

#[track_caller]
fn refused_as_output(path: &Path, reason: &str) {
    for operation in Operation::WRITING {
        let mut files = Operation::files();
        let link = files.expect("link");
        symlink(path, &link).unwrap();
        for path in [path, &link] {
            let vmm = operation.vmm_of(&files.image(), path);
            refused(operation, path, &files, vmm, reason);
        }
    }
}

/// A node in `files` of a kind that is no regular file, if this user may make it.
fn node(files: &mut Files, name: &str, kind: FileType, device: (u32, u32)) -> Option<PathBuf> {
    let path = files.expect(name);
    let number = makedev(device.0, device.1);
    mknodat(CWD, &path, kind, Mode::RUSR | Mode::WUSR, number).ok()?;
    Some(path)
}

/// Names that are there on most systems, and why each is no input.
const NO_INPUTS: [(&str, &str); 14] = [
    ("/dev/zero", "it is a character device"),
    ("/dev/null", "it is a character device"),
    ("/dev/full", "it is a character device"),
    ("/dev/urandom", "it is a character device"),
    ("/dev/ptmx", "it is a character device"),
    ("/dev/kvm", "it is a character device"),
    ("/proc/self/status", "the system gives its length as 0"),
    ("/proc/mounts", "the system gives its length as 0"),
    ("/proc/self/environ", "the system gives its length as 0"),
    ("/proc/self/fd", "it is a directory"),
    ("/proc/self/mem", "at offset 0: Input/output error"),
    ("/proc/self/fd/77", "No such file or directory"),
    ("/sys/kernel/uevent_seqnum", "the system makes up"),
    ("/", "it is a directory"),
];

/// The same for outputs. Of all that stand here nothing may be written to: some would do harm.
const NO_OUTPUTS: [(&str, &str); 16] = [
    ("/dev/urandom", "it is a character device"),
    ("/dev/kmsg", "it is a character device"),
    ("/dev/kvm", "it is a character device"),
    ("/dev/ptmx", "it is a terminal"),
    ("/dev/tty", "it is a terminal"),
    ("/dev/console", "it is a terminal"),
    ("/proc/self/mem", "whose files the kernel makes"),
    ("/proc/self/oom_score_adj", "whose files the kernel makes"),
    ("/proc/sys/vm/drop_caches", "whose files the kernel makes"),
    ("/proc/new", "whose files the kernel makes"),
    ("/proc/self/fd/77", "whose files the kernel makes"),
    ("/proc/self/fd", "it is a directory"),
    ("/sys/kernel/mm/ksm/run", "whose files the kernel makes"),
    ("/sys/new", "whose files the kernel makes"),
    ("/dev/pts/new", "whose files the kernel makes"),
    ("/", "it is a directory"),
];

/// Whether `path` is there, or its folder is, if it is a name for something new.
fn can_be_tried(path: &str) -> bool {
    let path = Path::new(path);
    let new = path.ends_with("new") || path.ends_with("77");
    let wanted = if new { path.parent().unwrap() } else { path };
    let there = wanted.exists();
    if !there {
        leave_out(&format!("{} is not here", path.display()));
    }
    there
}

#[test]
fn what_the_kernel_makes_and_devices_without_a_length_are_no_inputs() {
    for (path, reason) in NO_INPUTS {
        if can_be_tried(path) {
            refused_as_input(path.as_ref(), reason);
        }
    }
}

#[test]
fn what_the_kernel_makes_and_devices_that_keep_nothing_are_no_outputs() {
    for (path, reason) in NO_OUTPUTS {
        if can_be_tried(path) {
            refused_as_output(path.as_ref(), reason);
        }
    }
}

/// FIFOs and sockets, and devices that are not opened at all: to open a watchdog starts it, and to
/// write to memory or to a processor's registers needs no more than an offset.
#[test]
fn nodes_that_stand_for_something_else_are_refused_and_not_opened() {
    let mut nodes = Operation::files();
    let fifo = node(&mut nodes, "fifo", FileType::Fifo, (0, 0)).unwrap();
    let socket = nodes.expect("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let mut cases = vec![(fifo, "it is a FIFO"), (socket, "it is a socket")];
    for (name, device) in [
        ("mem", (1, 1)),
        ("port", (1, 4)),
        ("watchdog", (10, 130)),
        ("msr", (202, 0)),
        ("nobody's", (240, 7)),
    ] {
        match node(&mut nodes, name, FileType::CharacterDevice, device) {
            Some(path) => cases.push((path, "it is a character device")),
            None => leave_out("only root makes device nodes"),
        }
    }
    for (path, reason) in &cases {
        refused_as_input(path, reason);
        refused_as_output(path, reason);
    }
    if let Some(path) = node(&mut nodes, "disk", FileType::BlockDevice, (240, 7)) {
        refused_as_input(&path, "No such device or address");
        refused_as_output(&path, "No such device or address");
    }
}

#[test]
fn a_link_that_leads_to_itself_or_nowhere_is_refused() {
    let mut links = Operation::files();
    let (itself, nowhere) = (links.expect("itself"), links.expect("nowhere"));
    symlink("itself", &itself).unwrap();
    symlink("missing/file", &nowhere).unwrap();
    refused_as_input(&itself, "Too many levels of symbolic links");
    refused_as_output(&itself, "Too many levels of symbolic links");
    refused_as_input(&nowhere, "No such file or directory");
    refused_as_output(&nowhere, "create the folder first");
}

/// `vmm`, which has `open` open too.
fn having(vmm: Vmm, open: &OwnedFd) -> Vmm {
    let descriptor = open.as_raw_fd();
    vmm.before_start(move || {
        // SAFETY: the descriptor is open; this process is about to become another program.
        unsafe { libc::fcntl(descriptor, libc::F_SETFD, 0) };
        Ok(())
    })
}

/// The paths by which a process reaches what it has open already.
fn names(open: &OwnedFd) -> [PathBuf; 2] {
    let descriptor = open.as_raw_fd();
    ["/dev/fd", "/proc/self/fd"].map(|folder| format!("{folder}/{descriptor}").into())
}

#[test]
fn what_is_open_already_is_what_it_is_by_that_name_too() {
    needs_kvm!();
    if !Path::new("/dev/fd").exists() {
        return skip("there is no /dev/fd");
    }
    let open = |path: &str| -> OwnedFd { File::open(path).unwrap().into() };
    let (reader, writer) = std::io::pipe().unwrap();
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let terminal = Terminal::open().hang_up();
    let unnamed = tempfile::tempfile().unwrap();
    unnamed.set_len(4096).unwrap();
    for (open, as_input, as_output) in [
        (reader.into(), "it is a FIFO", "it is a FIFO"),
        (writer.into(), "it is a FIFO", "it is a FIFO"),
        (socket.into(), "it is a socket", "it is a socket"),
        (terminal, "it is a character device", "it is a terminal"),
        (open("/"), "it is a directory", "it is a directory"),
        (
            open("/dev/urandom"),
            "it is a character device",
            "it is a character device",
        ),
        (
            open("/proc/self/status"),
            "the system gives its length as 0",
            "whose files the kernel makes",
        ),
        (unnamed.into(), "", "it has no name in a folder"),
    ] {
        for path in names(&open) {
            for operation in Operation::ALL {
                let files = Operation::files();
                if !as_input.is_empty() {
                    let vmm = having(operation.vmm_of(&path, &files.output()), &open);
                    refused(operation, &path, &files, vmm, as_input);
                }
                if operation.writes() {
                    let vmm = having(operation.vmm_of(&files.image(), &path), &open);
                    refused(operation, &path, &files, vmm, as_output);
                }
            }
        }
    }
}

#[test]
fn a_file_that_is_open_already_is_read_or_replaced_by_that_name() {
    needs_kvm!();
    if !Path::new("/dev/fd").exists() {
        return skip("there is no /dev/fd");
    }
    for operation in Operation::ALL {
        for way in 0..2 {
            let files = Operation::files();
            let source = match operation {
                Operation::Copy | Operation::Verified => files.input(),
                _ => files.image(),
            };
            let source: OwnedFd = File::open(source).unwrap().into();
            let output: OwnedFd = File::open(files.output()).unwrap().into();
            let vmm = operation.vmm_of(&names(&source)[way], &names(&output)[way]);
            having(having(vmm, &source), &output).succeed();
            operation.assert_done(&files);
        }
    }
}

#[test]
fn devices_that_throw_everything_away_take_an_output_unless_it_is_to_be_read_back() {
    needs_kvm!();
    for operation in Operation::WRITING {
        for (device, status, reason) in [
            ("/dev/null", 0, ""),
            ("/dev/zero", 0, ""),
            (
                "/dev/full",
                HOST_FAILED,
                "/dev/full at offset 0: No space left",
            ),
        ] {
            let mut files = Operation::files();
            let source = match operation {
                Operation::Convert => files.image(),
                _ => files.input(),
            };
            let (status, reason) = match operation {
                Operation::Verified => (HOST_FAILED, "it does not keep what is written to it"),
                _ => (status, reason),
            };
            let link = files.expect("link");
            symlink(device, &link).unwrap();
            let open: OwnedFd = File::options().write(true).open(device).unwrap().into();
            let [by_number, _] = names(&open);
            for path in [Path::new(device), &link, &by_number] {
                let finished = having(operation.vmm_of(&source, path), &open).run();
                let what = format!("{operation:?}: {}: {finished:?}", path.display());
                assert_eq!(finished.code(), Some(status), "{what}");
                // `/dev/full` by another name is called by that name.
                let reason = reason.trim_start_matches("/dev/full");
                assert!(finished.stderr.contains(reason), "{what}");
                files.assert_untouched();
                assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
            }
        }
    }
}

#[test]
fn nothing_special_is_a_statistics_file_either() {
    needs_kvm!();
    let paths = NO_OUTPUTS.iter().filter(|(path, _)| can_be_tried(path));
    for (path, reason) in paths {
        let files = Operation::files();
        let vmm = Operation::Copy.vmm(&files).args(&["--stats-file", path]);
        refused(Operation::Copy, path.as_ref(), &files, vmm, reason);
    }
    let files = Operation::files();
    let vmm = Operation::Copy.vmm(&files);
    vmm.args(&["--stats-file", "/dev/null"]).succeed();
    Operation::Copy.assert_done(&files);
}
