//! When the output appears, what it contains, and what is left when it does not.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::cast_possible_truncation
)]

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use tempfile::TempDir;
use vm_memory::VolatileSlice;

use super::*;
use crate::files::system::fstat;
use crate::files::{DistinctError, WhyNamed, padded_length};
use crate::storage::Storage;

mod devices;
mod faults;
mod kept;
mod refused;
mod sparse;

const BOTH: [Naming; 2] = [Naming::Unnamed, Naming::Hidden(WhyNamed::FileSystem)];

/// A folder with an input in it, and one for the output.
struct Setup {
    _root: TempDir,
    input: InputFile,
    folder: PathBuf,
}

impl Setup {
    fn new(length: usize) -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("input");
        fs::write(&path, content(length)).unwrap();
        let folder = root.path().join("folder");
        fs::create_dir(&folder).unwrap();
        Self {
            input: InputFile::open(&path, false).unwrap(),
            folder,
            _root: root,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn create(&self, name: &str) -> Result<OutputFile, FileError> {
        OutputFile::create(&self.path(name), &self.input, OutputOptions::default())
    }

    fn create_named(&self, name: &str, naming: Naming) -> OutputFile {
        let options = OutputOptions::default();
        OutputFile::create_named(&self.path(name), &self.input, options, naming).unwrap()
    }

    fn refusal(&self, name: &str) -> String {
        let message = self.create(name).unwrap_err().to_string();
        assert!(
            message.contains(name) && !message.contains('\n'),
            "{message}"
        );
        message
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 255) as u8 + 1).collect()
}

fn write(output: &OutputFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let mut memory = bytes.to_vec();
    let (first, second) = memory.split_at_mut(bytes.len() / 3);
    output.write_at(
        offset,
        &[VolatileSlice::from(first), VolatileSlice::from(second)],
    )
}

fn read(output: &OutputFile, offset: u64, size: usize) -> io::Result<Vec<u8>> {
    let mut memory = vec![0xee; size];
    output.read_at(offset, &[VolatileSlice::from(&mut memory[..])])?;
    Ok(memory)
}

/// Writes the whole input in requests of 4 KiB, the last one filled with 0xff.
fn copy(output: &OutputFile, length: usize) -> io::Result<()> {
    let mut bytes = content(length);
    bytes.resize(padded_length(length as u64, 512) as usize, 0xff);
    for (index, request) in bytes.chunks(4096).enumerate() {
        write(output, index as u64 * 4096, request)?;
    }
    output.flush()
}

/// Copies a program that is to be started. By another process: one that another test starts while
/// this one writes the copy would have it open for writing, and it could not be executed.
fn copy_program(from: &Path, to: &Path) {
    let status = Command::new("cp").arg(from).arg(to).status().unwrap();
    assert!(status.success(), "{status}");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn every_length_is_exact_however_it_is_written() {
    for length in [0, 1, 511, 512, 513, 65535, 65537] {
        let setup = Setup::new(length);
        for (direct, fsync) in [(false, false), (true, false), (false, true), (true, true)] {
            let path = setup.path("copy");
            let options = OutputOptions {
                direct,
                fsync,
                ..OutputOptions::default()
            };
            let output = OutputFile::create(&path, &setup.input, options).unwrap();
            copy(&output, length).unwrap();
            assert_eq!(output.bytes_written(), length as u64);
            output.commit().unwrap();
            assert_eq!(fs::read(&path).unwrap(), content(length), "length {length}");
        }
        assert_eq!(setup.names(), ["copy"]);
    }
}

#[test]
fn the_output_appears_only_when_it_is_committed() {
    for naming in BOTH {
        let setup = Setup::new(5000);
        let output = setup.create_named("copy", naming);
        copy(&output, 5000).unwrap();
        assert!(!setup.path("copy").exists());
        output.commit().unwrap();
        assert_eq!(setup.names(), ["copy"]);
        drop(output);
        assert_eq!(fs::read(setup.path("copy")).unwrap(), content(5000));
    }
}

#[test]
fn without_a_commit_nothing_is_left_and_the_old_output_stays() {
    for naming in BOTH {
        let setup = Setup::new(5000);
        drop(setup.create_named("new", naming));
        assert_eq!(setup.names(), [""; 0]);
        fs::write(setup.path("old"), "old").unwrap();
        let output = setup.create_named("old", naming);
        copy(&output, 5000).unwrap();
        drop(output);
        assert_eq!(setup.names(), ["old"]);
        assert_eq!(fs::read(setup.path("old")).unwrap(), b"old");
    }
}

#[test]
fn a_copy_that_is_given_up_leaves_nothing_while_somebody_still_holds_it() {
    for naming in BOTH {
        let setup = Setup::new(5000);
        let output = setup.create_named("copy", naming);
        copy(&output, 5000).unwrap();
        OutputFile::discard(&output);
        assert_eq!(setup.names(), [""; 0]);
        assert!(write(&output, 0, &[1; 512]).is_err());
        let error = output.commit().unwrap_err();
        assert!(matches!(error, FileError::Sealed { .. }), "{error}");
        assert_eq!(setup.names(), [""; 0]);
    }
}

#[test]
fn a_durable_copy_on_an_ordinary_file_system_gives_no_reason_for_a_warning() {
    let setup = Setup::new(5000);
    let options = OutputOptions {
        fsync: true,
        ..OutputOptions::default()
    };
    let output = OutputFile::create(&setup.path("copy"), &setup.input, options).unwrap();
    copy(&output, 5000).unwrap();
    assert_eq!(output.commit().unwrap(), [""; 0]);
    assert_eq!(output.block_size(), None, "it is no device");
}

#[test]
fn an_existing_output_is_replaced_and_its_mode_kept() {
    for naming in BOTH {
        for kept in [0o600, 0o640, 0o755, 0o777] {
            let setup = Setup::new(700);
            fs::write(setup.path("copy"), "something that was longer".repeat(100)).unwrap();
            set_mode(&setup.path("copy"), kept);
            let output = setup.create_named("copy", naming);
            copy(&output, 700).unwrap();
            output.commit().unwrap();
            assert_eq!(fs::read(setup.path("copy")).unwrap(), content(700));
            assert_eq!(mode(&setup.path("copy")), kept);
            assert_eq!(setup.names(), ["copy"]);
        }
    }
}

#[test]
fn the_owner_and_group_of_an_existing_output_are_kept_where_the_system_allows_it() {
    let setup = Setup::new(700);
    let path = setup.path("copy");
    fs::write(&path, "old").unwrap();
    if std::os::unix::fs::chown(&path, Some(12345), Some(23456)).is_err() {
        eprintln!("skipped: this user may not give files away");
        return;
    }
    let output = setup.create("copy").unwrap();
    copy(&output, 700).unwrap();
    output.commit().unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (12345, 23456));
}

#[test]
fn a_new_output_has_the_permissions_of_any_new_file() {
    for naming in BOTH {
        let setup = Setup::new(700);
        let output = setup.create_named("copy", naming);
        copy(&output, 700).unwrap();
        output.commit().unwrap();
        fs::write(setup.path("other"), "").unwrap();
        assert_eq!(mode(&setup.path("copy")), mode(&setup.path("other")));
    }
}

#[test]
fn a_name_without_a_folder_is_one_in_the_current_folder() {
    let setup = Setup::new(100);
    let path = Path::new("a copy in the folder that this process is in");
    let output = OutputFile::create(path, &setup.input, OutputOptions::default()).unwrap();
    let folder = fstat(output.placing().unwrap().folder).unwrap();
    let current = fs::metadata(".").unwrap();
    assert_eq!(
        (folder.st_dev, folder.st_ino),
        (current.dev(), current.ino())
    );
}

#[test]
fn what_comes_to_the_name_during_the_copy_is_replaced_and_nobody_gets_more() {
    for naming in BOTH {
        for had in [false, true] {
            let setup = Setup::new(700);
            let path = setup.path("copy");
            if had {
                fs::write(&path, "old").unwrap();
                set_mode(&path, 0o644);
            }
            let output = setup.create_named("copy", naming);
            copy(&output, 700).unwrap();
            fs::write(setup.path("other"), "of another").unwrap();
            set_mode(&setup.path("other"), 0o600);
            fs::rename(setup.path("other"), &path).unwrap();
            let warnings = output.commit().unwrap();
            let said = if had {
                "exchanged"
            } else {
                "had come to its name"
            };
            assert!(warnings[0].contains(said), "{warnings:?}");
            assert_eq!(fs::read(&path).unwrap(), content(700));
            assert_eq!(mode(&path), 0o600);
            assert_eq!(setup.names(), ["copy"]);
        }
    }
}

#[test]
fn an_old_output_that_is_removed_during_the_copy_leaves_what_it_allowed() {
    for naming in BOTH {
        let setup = Setup::new(700);
        let path = setup.path("copy");
        fs::write(&path, "old").unwrap();
        set_mode(&path, 0o640);
        let output = setup.create_named("copy", naming);
        copy(&output, 700).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(output.commit().unwrap(), [""; 0]);
        assert_eq!(mode(&path), 0o640);
    }
}

#[test]
fn the_input_is_never_the_output_whatever_its_name() {
    let setup = Setup::new(700);
    let input = setup.input.path().to_owned();
    fs::hard_link(&input, setup.path("hard")).unwrap();
    symlink(&input, setup.path("soft")).unwrap();
    symlink("soft", setup.path("softer")).unwrap();
    for path in [
        input.clone(),
        setup.path("hard"),
        setup.path("soft"),
        setup.path("softer"),
    ] {
        let error = OutputFile::create(&path, &setup.input, OutputOptions::default()).unwrap_err();
        assert!(
            matches!(error, FileError::Distinct(DistinctError::SameFile { .. })),
            "{error}"
        );
    }
    assert_eq!(fs::read(&input).unwrap(), content(700));
}

#[test]
fn a_symbolic_link_is_followed_and_stays_a_link() {
    for naming in BOTH {
        let setup = Setup::new(700);
        let other = setup.folder.parent().unwrap().join("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("real"), "old").unwrap();
        symlink("../other/real", setup.path("there")).unwrap();
        symlink(other.join("new"), setup.path("dangling")).unwrap();
        symlink("dangling", setup.path("chain")).unwrap();
        for (link, target) in [("there", "real"), ("chain", "new")] {
            let output = setup.create_named(link, naming);
            copy(&output, 700).unwrap();
            output.commit().unwrap();
            assert!(fs::symlink_metadata(setup.path(link)).unwrap().is_symlink());
            assert_eq!(fs::read(other.join(target)).unwrap(), content(700));
        }
        assert_eq!(setup.names(), ["chain", "dangling", "there"]);
        assert_eq!(fs::read_dir(&other).unwrap().count(), 2);
    }
}

#[test]
fn what_cannot_be_an_output_is_refused_and_nothing_is_made() {
    let setup = Setup::new(700);
    fs::create_dir(setup.path("folder")).unwrap();
    fs::write(setup.path("file"), "").unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(setup.path("fifo"))
            .status()
            .unwrap()
            .success()
    );
    symlink("loop", setup.path("loop")).unwrap();
    let before = setup.names();
    assert!(setup.refusal("folder").contains("it is a directory"));
    assert!(setup.refusal("folder/..").contains("it is a directory"));
    assert!(setup.refusal("fifo").contains("it is a FIFO"));
    assert!(
        setup
            .refusal("loop")
            .contains("Too many levels of symbolic links")
    );
    assert!(
        setup
            .refusal("none/copy")
            .contains("create the folder first")
    );
    assert!(setup.refusal("file/copy").contains("Not a directory"));
    assert!(setup.refusal("copy/").contains("it ends in a slash"));
    assert!(setup.refusal("").contains("it is a directory"));
    assert_eq!(setup.names(), before);
}

#[test]
fn a_folder_or_file_that_cannot_be_written_is_refused() {
    let setup = Setup::new(700);
    fs::write(setup.path("copy"), "old").unwrap();
    set_mode(&setup.path("copy"), 0o444);
    if fs::OpenOptions::new()
        .write(true)
        .open(setup.path("copy"))
        .is_ok()
    {
        eprintln!("skipped: this user may write any file");
        return;
    }
    assert!(setup.refusal("copy").contains("make it writable"));
    set_mode(&setup.folder, 0o555);
    assert!(
        setup
            .refusal("new")
            .contains("choose a folder that you can write to")
    );
    set_mode(&setup.folder, 0o755);
    assert_eq!(setup.names(), ["copy"]);
}

#[test]
fn a_copy_with_a_gap_is_not_put_in_place() {
    for naming in BOTH {
        let setup = Setup::new(2000);
        fs::write(setup.path("copy"), "old").unwrap();
        let output = setup.create_named("copy", naming);
        write(&output, 0, &content(512)).unwrap();
        write(&output, 1024, &content(1024)).unwrap();
        let error = output.commit().unwrap_err();
        assert!(
            matches!(
                error,
                FileError::Incomplete {
                    offset: 512,
                    length: 2000,
                    ..
                }
            ),
            "{error}"
        );
        assert!(!error.to_string().contains("scattered"));
        drop(output);
        assert_eq!(setup.names(), ["copy"]);
        assert_eq!(fs::read(setup.path("copy")).unwrap(), b"old");
    }
}

#[test]
fn progress_counts_each_byte_once_and_no_padding() {
    let setup = Setup::new(700);
    let output = setup.create("copy").unwrap();
    write(&output, 512, &content(512)).unwrap();
    assert_eq!(output.bytes_written(), 188);
    write(&output, 512, &content(512)).unwrap();
    write(&output, 4096, &content(512)).unwrap();
    assert_eq!(output.bytes_written(), 188);
    write(&output, 0, &content(1024)).unwrap();
    assert_eq!(output.bytes_written(), 700);
}

#[test]
fn what_was_written_can_be_read_back_and_the_rest_reads_as_zeros() {
    let setup = Setup::new(2000);
    let output = setup.create("copy").unwrap();
    assert_eq!(read(&output, 0, 2048).unwrap(), [0; 2048]);
    write(&output, 512, &content(512)).unwrap();
    let mut expected = vec![0; 512];
    expected.extend(content(512));
    expected.resize(2048, 0);
    assert_eq!(read(&output, 0, 2048).unwrap(), expected);
}

#[test]
fn an_output_that_is_judged_in_place_or_given_up_cannot_be_written_any_more() {
    let ends: [fn(&OutputFile); 3] = [
        |output| output.seal().unwrap(),
        |output| drop(output.commit().unwrap()),
        OutputFile::discard,
    ];
    for (end, is_kept) in ends.into_iter().zip([true, true, false]) {
        let setup = Setup::new(700);
        let output = setup.create("copy").unwrap();
        copy(&output, 700).unwrap();
        end(&output);
        let error = write(&output, 0, &[0; 512]).unwrap_err().to_string();
        // It says no more than what is true of all three.
        assert!(error.contains("finished or given up"), "{error}");
        assert!(!error.contains("in place"), "{error}");
        if is_kept {
            output.commit().unwrap();
            assert_eq!(fs::read(setup.path("copy")).unwrap(), content(700));
        }
    }
}

#[test]
fn hard_links_and_hidden_names_are_told_to_the_user() {
    let setup = Setup::new(700);
    fs::write(setup.path("copy"), "old").unwrap();
    assert_eq!(setup.create("copy").unwrap().notes(), [""; 0]);
    fs::hard_link(setup.path("copy"), setup.path("link")).unwrap();
    assert!(setup.create("copy").unwrap().notes()[0].contains("hard links"));
    let notes = setup
        .create_named("new", Naming::Hidden(WhyNamed::FileSystem))
        .notes();
    assert!(notes[0].contains("/.vmm-"), "{notes:?}");
}

#[test]
fn what_fills_up_the_last_sector_does_not_count_once_the_length_is_known() {
    let setup = Setup::new(10);
    let options = OutputOptions {
        open_ended: true,
        max_length: Some(4096),
        ..OutputOptions::default()
    };
    let path = setup.path("output");
    let output = OutputFile::create(&path, &setup.input, options).unwrap();
    write(&output, 0, &content(1024)).unwrap();
    assert_eq!(output.bytes_written(), 1024);
    output.declare_length(1001).unwrap();
    assert_eq!(output.bytes_written(), 1001);
    output.commit().unwrap();
    assert_eq!(fs::metadata(path).unwrap().len(), 1001);
}
