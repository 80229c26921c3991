//! When the file appears, and what it must not be.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use tempfile::TempDir;

use super::*;
use fuse::{Hanging, Silence};

#[allow(dead_code, reason = "these tests use a part of it")]
#[path = "../../../tests/common/fuse.rs"]
mod fuse;

use crate::files::{
    Action, DistinctError, InputFile, OutputFile, OutputOptions, TrialError, WhyNamed,
    check_distinct, open_image,
};

const BOTH: [Naming; 2] = [Naming::Unnamed, Naming::Hidden(WhyNamed::FileSystem)];

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn create(path: &Path) -> Result<NewFile, FileError> {
    NewFile::create(Role::Statistics, path)
}

fn names(folder: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_file_appears_when_it_is_saved_and_what_it_replaces_stays_until_then() {
    for naming in BOTH {
        let folder = folder();
        let path = folder.path().join("stats.json");
        let file = NewFile::create_named(Role::Statistics, &path, naming).unwrap();
        assert!(!path.exists());
        file.save(b"{}").unwrap();
        assert!(matches!(file.save(b"{}"), Err(FileError::Sealed { .. })));
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), b"{}");

        fs::write(&path, "what was there before").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let file = NewFile::create_named(Role::Statistics, &path, naming).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"what was there before");
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), b"what was there before");
        let file = NewFile::create_named(Role::Statistics, &path, naming).unwrap();
        file.save(b"[]").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"[]");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        assert_eq!(names(&folder), ["stats.json"]);
    }
}

#[test]
fn devices_are_written_in_place_and_a_full_one_is_an_error() {
    let null = create("/dev/null".as_ref()).unwrap();
    assert!(null.placing().is_none());
    null.save(b"{}").unwrap();
    let error = create("/dev/full".as_ref())
        .unwrap()
        .save(b"{}")
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("write the statistics file /dev/full at offset 0: No space left"),
        "{error}"
    );
}

#[test]
fn a_fifo_a_folder_and_a_terminal_are_refused_at_once() {
    let folder = folder();
    let fifo = folder.path().join("fifo");
    let mode = rustix::fs::Mode::RWXU;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let refusal = |path: &Path| create(path).unwrap_err().to_string();
    assert!(refusal(&fifo).contains("as the statistics file: it is a FIFO"));
    assert!(refusal(folder.path()).contains("it is a directory"));
    if fs::File::open("/dev/ptmx").is_ok() {
        assert!(refusal("/dev/ptmx".as_ref()).contains("it is a terminal"));
    }
    assert_eq!(names(&folder), ["fifo"]);
}

/// The files of a run with these names in one folder, which are distinct or not.
fn run(folder: &Path, [input, image, output, stats]: [&str; 4]) -> Result<(), FileError> {
    let input = InputFile::open(&folder.join(input), false)?;
    let image = open_image(&folder.join(image))?;
    let output = OutputFile::create(&folder.join(output), &input, OutputOptions::default())?;
    let stats = create(&folder.join(stats))?;
    check_distinct(
        &[input.known(), image.known()],
        &[output.known(), stats.known()],
    )
}

#[test]
fn what_a_run_writes_is_nothing_that_it_reads_or_writes_as_well() {
    let folder = folder();
    for name in ["input", "image", "old"] {
        fs::write(folder.path().join(name), name).unwrap();
    }
    for name in ["input", "image", "old"] {
        fs::hard_link(
            folder.path().join(name),
            folder.path().join(format!("{name}.hard")),
        )
        .unwrap();
        symlink(name, folder.path().join(format!("{name}.soft"))).unwrap();
    }
    symlink("new", folder.path().join("new.soft")).unwrap();
    let before = names(&folder);
    run(folder.path(), ["input", "image", "out", "stats"]).unwrap();
    run(folder.path(), ["input", "image", "old", "stats"]).unwrap();
    run(folder.path(), ["input", "input", "out", "stats"]).unwrap();
    for (output, stats) in [
        ("out", "input"),
        ("out", "input.hard"),
        ("out", "image.soft"),
        ("image", "stats"),
        ("image.hard", "stats"),
        ("old", "old"),
        ("old", "old.hard"),
        ("old.soft", "old"),
        ("new", "new"),
        ("new.soft", "new"),
        ("new", "./new"),
    ] {
        let error = run(folder.path(), ["input", "image", output, stats]).unwrap_err();
        assert!(
            matches!(error, FileError::Distinct(DistinctError::SameFile { .. })),
            "{output} {stats}: {error}"
        );
    }
    let error = run(folder.path(), ["input", "image", "New", "nEW"]).unwrap_err();
    assert!(
        matches!(error, FileError::Distinct(DistinctError::SameName { .. })),
        "{error}"
    );
    assert_eq!(names(&folder), before);
    for name in ["input", "image", "old"] {
        assert_eq!(fs::read(folder.path().join(name)).unwrap(), name.as_bytes());
    }
}

#[test]
fn one_device_without_content_may_be_written_twice() {
    let folder = folder();
    fs::write(folder.path().join("input"), "input").unwrap();
    run(folder.path(), ["input", "input", "/dev/null", "/dev/null"]).unwrap();
}

#[test]
fn what_has_come_to_the_name_meanwhile_is_not_replaced() {
    let folder = folder();
    let path = folder.path().join("statistics");
    for naming in [Naming::Unnamed, Naming::Hidden(WhyNamed::FileSystem)] {
        let file = NewFile::create_named(Role::Statistics, &path, naming).unwrap();
        // Perhaps the copy itself, where the file system takes two names for one.
        std::fs::write(&path, "the copy").unwrap();
        let error = file.save(b"statistics").unwrap_err().to_string();
        assert!(error.contains("something has come to its name"), "{error}");
        drop(file);
        assert_eq!(std::fs::read(&path).unwrap(), b"the copy");
        assert_eq!(names(&folder), ["statistics"]);
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_file_that_was_exchanged_meanwhile_is_not_replaced() {
    let folder = folder();
    let path = folder.path().join("statistics");
    for naming in [Naming::Unnamed, Naming::Hidden(WhyNamed::FileSystem)] {
        std::fs::write(&path, "old").unwrap();
        let file = NewFile::create_named(Role::Statistics, &path, naming).unwrap();
        std::fs::write(folder.path().join("other"), "other").unwrap();
        std::fs::rename(folder.path().join("other"), &path).unwrap();
        let error = file.save(b"statistics").unwrap_err().to_string();
        assert!(error.contains("something has come to its name"), "{error}");
        drop(file);
        assert_eq!(std::fs::read(&path).unwrap(), b"other");
        assert_eq!(names(&folder), ["statistics"]);
    }
}

#[test]
fn a_file_that_comes_to_the_name_of_one_that_is_written_to_meanwhile_is_not_replaced() {
    let folder = folder();
    let [path, renamed] = ["statistics", "statistics.old"].map(|name| folder.path().join(name));
    for naming in [Naming::Unnamed, Naming::Hidden(WhyNamed::FileSystem)] {
        std::fs::write(&path, "old").unwrap();
        let file = NewFile::create_named(Role::Statistics, &path, naming).unwrap();
        // The times of a file may count in hundredths of a second.
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::fs::rename(&path, &renamed).unwrap();
        std::fs::write(&path, "other").unwrap();
        std::fs::write(&renamed, "older").unwrap();
        let error = file.save(b"statistics").unwrap_err().to_string();
        assert!(error.contains("something has come to its name"), "{error}");
        drop(file);
        assert_eq!(std::fs::read(&path).unwrap(), b"other");
        assert_eq!(std::fs::read(&renamed).unwrap(), b"older");
        assert_eq!(names(&folder), ["statistics", "statistics.old"]);
    }
}

#[test]
fn a_file_whose_old_one_was_removed_meanwhile_gets_the_free_name() {
    let folder = folder();
    let path = folder.path().join("statistics");
    for naming in [Naming::Unnamed, Naming::Hidden(WhyNamed::FileSystem)] {
        std::fs::write(&path, "old").unwrap();
        let file = NewFile::create_named(Role::Statistics, &path, naming).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(file.save(b"statistics").unwrap(), [""; 0]);
        assert_eq!(std::fs::read(&path).unwrap(), b"statistics");
        assert_eq!(names(&folder), ["statistics"]);
    }
}

#[test]
fn a_file_that_is_written_to_is_replaced_where_no_names_are_counted() {
    let Some(mounted) = Hanging::mount(Silence::CountOfNames, true) else {
        eprintln!("skipped: no FUSE file system can be mounted here");
        return;
    };
    let path = mounted.file();
    for naming in BOTH {
        let file = NewFile::create_named(Role::Statistics, &path, naming).unwrap();
        fs::write(&path, "as a log is").unwrap();
        assert_eq!(file.save(b"statistics").unwrap(), [""; 0], "{naming:?}");
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), b"statistics");
    }
}

#[test]
fn a_name_that_is_free_is_given_where_every_renaming_replaces_what_has_it() {
    for silence in [
        Silence::LostAnswers,
        Silence::CountOfNames,
        Silence::SecondNames,
    ] {
        let Some(mounted) = Hanging::mount(silence, true) else {
            eprintln!("skipped: no FUSE file system can be mounted here");
            return;
        };
        let old = mounted.file();
        for path in [mounted.folder().join("new"), old.clone()] {
            let file = NewFile::create_named(
                Role::Statistics,
                &path,
                Naming::Hidden(WhyNamed::FileSystem),
            )
            .unwrap();
            if path == old {
                fs::remove_file(&path).unwrap();
            }
            assert_eq!(file.save(b"statistics").unwrap(), [""; 0]);
            drop(file);
            assert_eq!(fs::read(&path).unwrap(), b"statistics");
            assert_eq!(fs::metadata(&path).unwrap().nlink(), 1);
        }
    }
}

#[test]
fn a_second_name_that_cannot_be_removed_is_told() {
    for is_old in [false, true] {
        let Some(mounted) = Hanging::mount(Silence::RemovalsInTheEnd, true) else {
            eprintln!("skipped: no FUSE file system can be mounted here");
            return;
        };
        let path = match is_old {
            true => mounted.file(),
            false => mounted.folder().join("new"),
        };
        let file = NewFile::create_named(
            Role::Statistics,
            &path,
            Naming::Hidden(WhyNamed::FileSystem),
        )
        .unwrap();
        if is_old {
            fs::write(&path, "as a log is").unwrap();
        }
        let warnings = file.save(b"statistics").unwrap();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        // That of the old file, or of the new one.
        let told = if is_old {
            ".tmp~, a second name"
        } else {
            ".tmp, a second name"
        };
        assert!(warnings[0].contains(told), "{warnings:?}");
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), b"statistics");
    }
}

#[test]
fn a_mode_that_a_file_system_leaves_as_it_was_is_told() {
    let Some(mounted) = Hanging::mount(Silence::CountOfNames, true) else {
        eprintln!("skipped: no FUSE file system can be mounted here");
        return;
    };
    let folder = folder();
    let input = folder.path().join("input");
    fs::write(&input, "").unwrap();
    let input = InputFile::open(&input, false).unwrap();
    let path = mounted.folder().join("new");
    let output = OutputFile::create(&path, &input, OutputOptions::default()).unwrap();
    fs::write(&path, "another").unwrap();
    let warnings = output.commit().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o666);
    let end =
        "was replaced; the new one was to allow less, but its file system leaves its mode at 666";
    assert!(warnings[0].ends_with(end), "{warnings:?}");
}

#[test]
fn both_names_of_an_empty_file_that_cannot_be_removed_are_told() {
    let Some(mounted) = Hanging::mount(Silence::Removals, true) else {
        eprintln!("skipped: no FUSE file system can be mounted here");
        return;
    };
    let path = mounted.file();
    let hidden = Naming::Hidden(WhyNamed::FileSystem);
    let failed = NewFile::create_named(Role::Statistics, &path, hidden).unwrap_err();
    let (one, other) = match failed {
        FileError::Trial(TrialError::Left {
            left,
            second: Some(second),
            ..
        }) => (left, second),
        failed => unreachable!("{failed}"),
    };
    assert_ne!(one, other);
    for path in [one, other] {
        assert_eq!(fs::metadata(path).unwrap().len(), 0);
    }
}

/// A file system with `silence`, if one can be mounted here.
fn mounted(silence: Silence) -> Option<Hanging> {
    let mounted = Hanging::mount(silence, true);
    if mounted.is_none() {
        eprintln!("skipped: no FUSE file system can be mounted here");
    }
    mounted
}

#[test]
fn what_is_said_to_be_lost_when_it_is_closed_replaces_nothing() {
    for naming in BOTH {
        let Some(mounted) = mounted(Silence::Room) else {
            return;
        };
        let path = mounted.file();
        let file = NewFile::create_named(Role::Statistics, &path, naming).unwrap();
        let error = file.save(b"{}").unwrap_err().to_string();
        assert!(error.starts_with("cannot store the statistics"), "{error}");
        assert!(error.contains("make room"), "{error}");
        assert!(matches!(file.save(b"{}"), Err(FileError::Sealed { .. })));
        drop(file);
        assert_eq!(fs::metadata(&path).unwrap().len(), fuse::LENGTH);
        assert_eq!(fs::metadata(mounted.folder()).unwrap().len(), 1);
    }
}

#[test]
fn an_output_gets_its_length_where_files_grow_by_writes_alone() {
    use crate::storage::Storage;

    let Some(mounted) = mounted(Silence::Lengths) else {
        return;
    };
    let folder = folder();
    let input = folder.path().join("input");
    fs::write(&input, [0; 700]).unwrap();
    let input = InputFile::open(&input, false).unwrap();
    let path = mounted.folder().join("new");
    let output = OutputFile::create(&path, &input, OutputOptions::default()).unwrap();
    output.write_zeroes(0, 1024, true).unwrap();
    output.commit().unwrap();
    assert_eq!(fs::read(&path).unwrap(), [0; 700]);
}

#[test]
fn an_input_that_has_more_bytes_than_its_file_system_says_is_told() {
    let Some(mounted) = mounted(Silence::EndsOfFiles) else {
        return;
    };
    let input = InputFile::open(&mounted.file(), false).unwrap();
    assert_eq!(input.len(), fuse::LENGTH - 10);
    let warning = input.check_unchanged().unwrap();
    assert!(warning.contains("more than the 1048566 bytes"), "{warning}");
}

#[test]
fn a_hidden_file_that_was_made_although_the_answer_says_no_is_removed() {
    let Some(mounted) = mounted(Silence::Creations) else {
        return;
    };
    let path = mounted.folder().join("new");
    let error = NewFile::create_named(Role::Statistics, &path, BOTH[1]).unwrap_err();
    assert!(
        matches!(error.action(), Some(Action::Create { .. })),
        "{error}"
    );
    assert_eq!(fs::metadata(mounted.folder()).unwrap().len(), 1);
}

#[test]
fn a_folder_in_which_nothing_can_be_renamed_is_refused_at_once() {
    let Some(mounted) = mounted(Silence::Renames) else {
        return;
    };
    for path in [mounted.folder().join("new"), mounted.file()] {
        let error = NewFile::create_named(Role::Statistics, &path, BOTH[1]).unwrap_err();
        let told = error.to_string();
        assert!(told.contains("cannot be renamed: Permission"), "{told}");
        assert_eq!(fs::metadata(mounted.folder()).unwrap().len(), 1);
    }
}

#[test]
fn a_file_that_may_be_in_place_is_not_said_to_have_lost_its_folder() {
    for naming in BOTH {
        let Some(mounted) = mounted(Silence::LostRenamesInTheEnd) else {
            return;
        };
        let path = mounted.file();
        let file = NewFile::create_named(Role::Statistics, &path, naming).unwrap();
        let error = file.save(b"{}").unwrap_err().to_string();
        assert!(error.contains("it may be in place"), "{error}");
        mounted.answer();
        assert_eq!(fs::read(&path).unwrap(), b"{}");
    }
}
