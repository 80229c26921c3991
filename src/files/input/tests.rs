//! What an input must be, and what its disk shows.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::cast_possible_truncation
)]

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::process::Command;

use tempfile::TempDir;

use super::*;
use crate::files::padded_length;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Bytes that differ from their neighbours and are nowhere zero.
fn content(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 255) as u8 + 1).collect()
}

/// For a look at the holes that nothing ends.
fn go_on() -> Result<(), FileError> {
    Ok(())
}

fn read(input: &InputFile, offset: u64, size: usize) -> io::Result<Vec<u8>> {
    let mut memory = vec![0xee; size];
    let (first, second) = memory.split_at_mut(size / 3);
    let buffers = [VolatileSlice::from(first), VolatileSlice::from(second)];
    input.read_at(offset, &buffers).map(|()| memory)
}

fn refusal(path: &Path) -> String {
    let message = InputFile::open(path, false).unwrap_err().to_string();
    assert!(
        message.contains(&quote_path(path).to_string()) && !message.contains('\n'),
        "{message}"
    );
    message
}

#[test]
fn every_length_is_shown_as_whole_sectors_that_end_in_zeros() {
    let folder = folder();
    let path = folder.path().join("input");
    for length in [0, 1, 511, 512, 513, 65535, 65537] {
        for (sector_size, direct) in [(512, false), (4096, true), (65536, false)] {
            fs::write(&path, content(length)).unwrap();
            let input = InputFile::open(&path, direct).unwrap();
            assert_eq!(input.len(), length as u64);
            assert_eq!(input.is_empty(), length == 0);
            let size = padded_length(input.len(), sector_size) as usize;
            let mut expected = content(length);
            expected.resize(size, 0);
            assert_eq!(read(&input, 0, size).unwrap(), expected, "length {length}");
        }
    }
}

#[test]
fn bytes_far_beyond_the_end_are_zeros() {
    let folder = folder();
    let path = folder.path().join("input");
    fs::write(&path, content(600)).unwrap();
    let input = InputFile::open(&path, false).unwrap();
    assert_eq!(read(&input, 1024, 512).unwrap(), [0; 512]);
    assert_eq!(read(&input, u64::MAX, 512).unwrap(), [0; 512]);
}

#[test]
fn what_a_file_occupies_is_what_the_file_system_says() {
    let folder = folder();
    let path = folder.path().join("input");
    let sparse = fs::File::create(&path).unwrap();
    sparse.set_len(1 << 20).unwrap();
    assert_eq!(InputFile::open(&path, false).unwrap().allocated(), 0);
    fs::write(&path, content(100_000)).unwrap();
    let input = InputFile::open(&path, false).unwrap();
    let blocks = fs::metadata(&path).unwrap().blocks();
    assert_eq!(input.allocated(), blocks * 512);
    assert!(input.allocated() >= 100_000);
    assert_eq!(input.block_size(), None, "it is no device");
    assert_eq!(input.notes(), [""; 0]);
}

#[test]
fn nothing_is_ever_written_to_an_input() {
    let folder = folder();
    let path = folder.path().join("input");
    fs::write(&path, content(512)).unwrap();
    let input = InputFile::open(&path, false).unwrap();
    let mut memory = [1; 512];
    let written = input.write_at(0, &[VolatileSlice::from(&mut memory[..])]);
    assert_eq!(written.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(fs::read(&path).unwrap(), content(512));
}

#[test]
fn data_in_what_was_a_hole_is_found_at_the_end() {
    let folder = folder();
    let path = folder.path().join("input");
    let file = fs::File::create(&path).unwrap();
    file.set_len(1 << 20).unwrap();
    let input = InputFile::open(&path, false).unwrap();
    let list = input.holes(ListBounds::MEMORY).list;
    assert_eq!(list.ranges(1 << 20).count(), 0);
    assert!(input.check_holes(&list, "", go_on).is_ok());
    file.write_all_at(&[1], 700_000).unwrap();
    let error = input.check_holes(&list, ", or else", go_on).unwrap_err();
    assert!(
        matches!(error, FileError::Changed(ChangedError::HoleFilled { offset, .. }) if offset <= 700_000)
    );
    assert!(
        error
            .to_string()
            .ends_with(" when nothing writes to it, or else")
    );
}

#[test]
fn a_file_that_shrinks_is_an_error_and_never_zeros() {
    let folder = folder();
    let path = folder.path().join("input");
    fs::write(&path, content(4096)).unwrap();
    let input = InputFile::open(&path, false).unwrap();
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(700)
        .unwrap();
    assert!(read(&input, 0, 512).is_ok());
    let error = read(&input, 512, 512).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    let message = error.to_string();
    assert!(
        message.contains("shrunk") && message.contains("offset 700"),
        "{message}"
    );
    assert!(input.check_unchanged().unwrap().contains("shrunk"));
}

#[test]
fn a_file_that_loses_a_hole_that_was_not_read_is_an_error() {
    let folder = folder();
    let path = folder.path().join("input");
    let file = fs::File::create(&path).unwrap();
    file.write_all_at(&content(4096), 0).unwrap();
    file.set_len(4 << 20).unwrap();
    let input = InputFile::open(&path, false).unwrap();
    let list = input.holes(ListBounds::MEMORY).list;
    file.set_len(2 << 20).unwrap();
    let error = input.check_holes(&list, "", go_on).unwrap_err();
    let lengths = match error {
        FileError::Changed(ChangedError::Shrank { offset, length, .. }) => Some((offset, length)),
        _ => None,
    };
    assert_eq!(lengths, Some((2 << 20, 4 << 20)));
    // Whoever was told of no hole has read all of it.
    assert!(
        input
            .check_holes(&DataList::everything(), "", go_on)
            .is_ok()
    );
}

#[test]
fn a_file_that_grows_is_a_warning_and_its_old_length_is_shown() {
    let folder = folder();
    let path = folder.path().join("input");
    fs::write(&path, content(700)).unwrap();
    let input = InputFile::open(&path, false).unwrap();
    fs::write(&path, content(900)).unwrap();
    let mut expected = content(700);
    expected.resize(1024, 0);
    assert_eq!(read(&input, 0, 1024).unwrap(), expected);
    let warning = input.check_unchanged().unwrap();
    assert!(warning.contains("grown from 700 to 900"), "{warning}");
}

#[test]
fn a_file_that_is_written_to_in_place_is_a_warning() {
    let folder = folder();
    let path = folder.path().join("input");
    fs::write(&path, content(700)).unwrap();
    let input = InputFile::open(&path, false).unwrap();
    assert_eq!(input.check_unchanged(), None);
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(later)
        .unwrap();
    assert!(input.check_unchanged().unwrap().contains("was written to"));
}

#[test]
fn an_input_cannot_be_written() {
    let folder = folder();
    let path = folder.path().join("input");
    fs::write(&path, content(512)).unwrap();
    let input = InputFile::open(&path, false).unwrap();
    let mut memory = [0; 512];
    let error = input
        .write_at(0, &[VolatileSlice::from(&mut memory[..])])
        .unwrap_err();
    assert!(error.to_string().contains("read-only"));
    assert_eq!(fs::read(&path).unwrap(), content(512));
}

#[test]
fn what_cannot_be_copied_is_refused_with_one_line_that_names_it() {
    let folder = folder();
    let (fifo, socket) = (folder.path().join("fifo"), folder.path().join("socket"));
    let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let _listener = UnixListener::bind(&socket).unwrap();
    assert!(refusal(&folder.path().join("none")).contains("No such file or directory; check"));
    assert!(refusal(folder.path()).contains("it is a directory"));
    assert!(refusal(&fifo).contains("it is a FIFO"));
    assert!(refusal(&socket).contains("it is a socket"));
    assert!(refusal(Path::new("/dev/zero")).contains("it is a character device"));
    assert!(refusal(Path::new("/proc/self/status")).contains("length as 0"));
}

#[test]
fn an_unreadable_file_is_refused() {
    let folder = folder();
    let path = folder.path().join("input");
    fs::write(&path, content(512)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::File::open(&path).is_ok() {
        eprintln!("skipped: this user may read any file");
        return;
    }
    assert!(refusal(&path).contains("Permission denied; you need permission to read it"));
}

/// The signal that tells the holder of a lease (fcntl(2) F_SETSIG): one that is ignored by default.
fn take_write_lease(file: &fs::File) -> bool {
    const F_SETSIG: libc::c_int = 10;
    let fcntl = |command, argument: libc::c_int| {
        // SAFETY: these commands take a number and touch no memory.
        unsafe { libc::fcntl(std::os::fd::AsRawFd::as_raw_fd(file), command, argument) }
    };
    fcntl(F_SETSIG, libc::SIGURG) == 0 && fcntl(libc::F_SETLEASE, libc::F_WRLCK) == 0
}

#[test]
fn a_lease_on_the_input_is_waited_for() {
    let folder = folder();
    let path = folder.path().join("input");
    fs::write(&path, content(700)).unwrap();
    let holder = fs::File::options().write(true).open(&path).unwrap();
    if !take_write_lease(&holder) {
        eprintln!(
            "skipped: no lease to be had here: {}",
            io::Error::last_os_error()
        );
        return;
    }
    let started = std::time::Instant::now();
    let release = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        drop(holder);
    });
    let input = InputFile::open(&path, false).unwrap();
    release.join().unwrap();
    assert!(started.elapsed().as_millis() >= 200);
    assert_eq!(read(&input, 0, 512).unwrap(), content(512));
}

#[test]
fn a_length_that_the_system_makes_up_is_said_and_a_true_one_of_such_a_system_works() {
    let made_up = Path::new("/sys/kernel/mm/transparent_hugepage/enabled");
    let made_up = [made_up, Path::new("/sys/kernel/uevent_seqnum")]
        .into_iter()
        .find(|path| path.exists());
    let Some(made_up) = made_up else {
        eprintln!("skipped: there is no sysfs here");
        return;
    };
    let message = refusal(made_up);
    assert!(
        message.contains("makes up") && message.contains("4096"),
        "{message}"
    );
    let honest = Path::new("/sys/kernel/notes");
    if let Ok(notes) = fs::read(honest) {
        let input = InputFile::open(honest, false).unwrap();
        assert_eq!(input.len(), notes.len() as u64);
        assert_eq!(read(&input, 0, notes.len()).unwrap(), notes);
    }
}

#[test]
fn a_regular_file_that_a_read_waits_for_is_refused_at_once() {
    let log = Path::new("/proc/kmsg");
    if fs::File::open(log).is_err() {
        eprintln!("skipped: this user may not read the kernel's log");
        return;
    }
    assert!(refusal(log).contains("length as 0"));
}

#[test]
fn a_file_of_nothing_but_holes_is_no_made_up_one() {
    let folder = folder();
    let path = folder.path().join("input");
    fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(InputFile::open(&path, false).unwrap().len(), 1 << 40);
}

#[test]
fn a_guests_image_is_checked_as_the_input_is() {
    let folder = folder();
    let path = folder.path().join("guest");
    fs::write(&path, content(700)).unwrap();
    let mut image = Vec::new();
    let opened = crate::files::open_image(&path).unwrap();
    io::Read::read_to_end(&mut opened.file(), &mut image).unwrap();
    assert_eq!(image, content(700));
    let fifo = folder.path().join("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    for (path, part) in [
        (&*fifo, "as the guest: it is a FIFO"),
        (folder.path(), "as the guest: it is a directory"),
        (&*folder.path().join("none"), "open the guest"),
    ] {
        let message = crate::files::open_image(path).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
}
