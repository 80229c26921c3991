//! What cannot be replaced is found out before the copy; names that only look like files.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::*;

/// A file attribute (chattr(1)) for as long as this lives.
struct Attribute {
    path: PathBuf,
    letter: char,
}

impl Attribute {
    fn set(path: &Path, letter: char) -> Option<Self> {
        let flag = format!("+{letter}");
        let set = Command::new("chattr").arg(flag).arg(path).output();
        match set {
            Ok(set) if set.status.success() => Some(Self {
                path: path.into(),
                letter,
            }),
            failed => {
                eprintln!("skipped: chattr +{letter} is not possible here: {failed:?}");
                None
            }
        }
    }
}

impl Drop for Attribute {
    fn drop(&mut self) {
        let flag = format!("-{}", self.letter);
        let _ = Command::new("chattr").arg(flag).arg(&self.path).status();
    }
}

#[test]
fn an_immutable_or_append_only_file_or_folder_is_refused_before_the_copy() {
    for letter in ['a', 'i'] {
        let setup = Setup::new(700);
        fs::write(setup.path("copy"), "old").unwrap();
        {
            let Some(_attribute) = Attribute::set(&setup.path("copy"), letter) else {
                return;
            };
            assert!(
                setup
                    .refusal("copy")
                    .contains("it is immutable or append-only")
            );
        }
        let _attribute = Attribute::set(&setup.folder, letter).unwrap();
        assert!(
            setup
                .refusal("copy")
                .contains("its folder is immutable or append-only")
        );
        assert_eq!(setup.names(), ["copy"]);
    }
}

#[test]
fn a_new_file_in_an_append_only_folder_is_possible_and_leaves_nothing_else() {
    let setup = Setup::new(700);
    let Some(_attribute) = Attribute::set(&setup.folder, 'a') else {
        return;
    };
    let output = setup.create("copy").unwrap();
    copy(&output, 700).unwrap();
    output.commit().unwrap();
    assert_eq!(setup.names(), ["copy"]);
    let options = OutputOptions::default();
    let hidden =
        OutputFile::create_named(&setup.path("new"), &setup.input, options, Naming::Hidden);
    assert!(matches!(hidden, Err(FileError::Folder { .. })));
    assert_eq!(setup.names(), ["copy"]);
}

#[test]
fn a_name_that_ends_in_a_dot_entry_is_no_name_of_a_file() {
    let setup = Setup::new(700);
    for name in ["new/.", "new//.", "new/./.", "new/..", "."] {
        let message = setup.refusal(name);
        assert!(
            message.contains("folder")
                || message.contains("directory")
                || message.contains("not the name of a file"),
            "{message}"
        );
    }
    symlink("new/.", setup.path("link")).unwrap();
    assert!(setup.refusal("link").contains("ends in a dot"));
    assert_eq!(setup.names(), ["link"]);
    // A dot that is a part of the name is none.
    drop(setup.create("new.").unwrap());
    drop(setup.create("...").unwrap());
}

#[test]
fn names_of_any_bytes_work_and_are_shown_on_one_line() {
    let setup = Setup::new(700);
    let name = OsStr::from_bytes(b"caf\xe9\n\x1b[2J");
    let path = setup.folder.join(name);
    for naming in BOTH {
        let options = OutputOptions::default();
        let output = OutputFile::create_named(&path, &setup.input, options, naming).unwrap();
        for note in output.notes() {
            assert!(!note.contains(char::is_control), "{note:?}");
        }
        copy(&output, 700).unwrap();
        output.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), content(700));
        fs::remove_file(&path).unwrap();
    }
    fs::create_dir(&path).unwrap();
    let error = OutputFile::create(&path, &setup.input, OutputOptions::default()).unwrap_err();
    let message = error.to_string();
    assert!(message.contains(r"caf\xe9\n\x1b[2J'"), "{message:?}");
}

#[test]
fn a_name_as_long_as_the_file_system_takes_it_works_both_ways() {
    for naming in BOTH {
        let setup = Setup::new(700);
        // 127 letters of two bytes; some file systems count letters, others bytes.
        for name in ["é".repeat(127), "x".repeat(255)] {
            for _ in 0..2 {
                let output = setup.create_named(&name, naming);
                copy(&output, 700).unwrap();
                output.commit().unwrap();
            }
            assert_eq!(fs::read(setup.path(&name)).unwrap(), content(700));
        }
        assert_eq!(setup.names().len(), 2);
    }
}
