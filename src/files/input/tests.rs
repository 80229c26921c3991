//! What an input must be, and what its disk shows.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::cast_possible_truncation
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
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

fn read(input: &InputFile, offset: u64, size: usize) -> io::Result<Vec<u8>> {
    let mut memory = vec![0xee; size];
    let (first, second) = memory.split_at_mut(size / 3);
    let buffers = [VolatileSlice::from(first), VolatileSlice::from(second)];
    input.read_at(offset, &buffers).map(|()| memory)
}

fn refusal(path: &Path) -> String {
    let message = InputFile::open(path, false).unwrap_err().to_string();
    assert!(
        message.contains(&path.display().to_string()) && !message.contains('\n'),
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
