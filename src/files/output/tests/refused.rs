//! What cannot be replaced is found out before the copy; names that only look like files.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;

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
    let hidden = OutputFile::create_named(
        &setup.path("new"),
        &setup.input,
        options,
        Naming::Hidden(WhyNamed::FileSystem),
    );
    assert!(matches!(
        hidden,
        Err(FileError::Failed {
            action: Action::Create { .. },
            ..
        })
    ));
    assert_eq!(setup.names(), ["copy"]);
}

#[test]
fn a_copy_that_keeps_another_name_in_a_folder_that_becomes_append_only_is_pointed_to() {
    for (naming, is_written) in BOTH.into_iter().flat_map(|n| [(n, false), (n, true)]) {
        let setup = Setup::new(700);
        fs::write(setup.path("copy"), "old").unwrap();
        let output = setup.create_named("copy", naming);
        copy(&output, 700).unwrap();
        if is_written {
            // The times of a file may count in hundredths of a second.
            std::thread::sleep(std::time::Duration::from_millis(20));
            fs::write(setup.path("copy"), "old").unwrap();
        }
        let Some(attribute) = Attribute::set(&setup.folder, 'a') else {
            return;
        };
        let error = output.commit().unwrap_err().to_string();
        drop(output);
        let mut left = setup.names();
        left.retain(|name| name != "copy");
        // Which file has the output's name is looked at by a second name for it.
        assert_eq!(left.len(), 1 + usize::from(is_written), "{left:?}");
        let path = |name: &String| setup.path(name).display().to_string();
        let pointed_to = format!("all of it is in {}, ", path(&left[0]));
        assert!(error.contains(&pointed_to), "{error}");
        if let Some(second) = left.get(1) {
            let told = format!("{}, a second name of the file", path(second));
            assert!(error.contains(&told), "{error}");
            assert_eq!(fs::read(setup.path(second)).unwrap(), b"old");
        }
        assert_eq!(fs::read(setup.path(&left[0])).unwrap(), content(700));
        assert_eq!(fs::read(setup.path("copy")).unwrap(), b"old");
        // What it is told to do is possible, in this order and in no other.
        let steps = ["chattr -ia", "(mv)"].map(|step| error.find(step).unwrap());
        assert!(steps.is_sorted(), "{error}");
        let rename = || fs::rename(setup.path(&left[0]), setup.path("copy"));
        assert!(rename().is_err());
        drop(attribute);
        rename().unwrap();
        for second in &left[1..] {
            fs::remove_file(setup.path(second)).unwrap();
        }
        assert_eq!(setup.names(), ["copy"]);
    }
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

#[test]
#[ignore = "run by a_file_of_another_in_a_sticky_folder_is_refused_before_the_copy"]
fn replace_anothers_file() {
    let Some(folder) = std::env::var_os("VMM_TEST_FOLDER") else {
        return;
    };
    let mut setup = Setup::new(700);
    setup.folder = folder.into();
    let message = setup.refusal("copy");
    assert!(
        message.contains("only its owner may replace it"),
        "{message}"
    );
}

#[test]
fn a_file_of_another_in_a_sticky_folder_is_refused_before_the_copy() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: it takes root to become another user");
        return;
    }
    let (program, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    set_mode(program.path(), 0o755);
    set_mode(folder.path(), 0o1777);
    let tests = program.path().join("tests");
    copy_program(&std::env::current_exe().unwrap(), &tests);
    set_mode(&tests, 0o755);
    fs::write(folder.path().join("copy"), "old").unwrap();
    set_mode(&folder.path().join("copy"), 0o666);
    // The second is root, but in a namespace that does not know the file's owner.
    for prefix in [&["env"][..], &["unshare", "--map-root-user"]] {
        let output = Command::new(prefix[0])
            .args(&prefix[1..])
            .arg(&tests)
            .args([
                "--exact",
                "files::output::tests::refused::replace_anothers_file",
            ])
            .args(["--ignored", "--nocapture"])
            .env("VMM_TEST_FOLDER", folder.path())
            .uid(40_001)
            .gid(40_002)
            .output()
            .unwrap();
        if String::from_utf8_lossy(&output.stderr).contains("unshare:") {
            eprintln!("skipped: no user namespace to be had here: {output:?}");
            return;
        }
        assert!(output.status.success(), "{output:?}");
    }
}

/// An NTFS file system in a file, mounted with ntfs-3g.
struct Ntfs {
    folder: TempDir,
}

impl Ntfs {
    fn mount(image: &Path) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        fs::File::create(image).unwrap().set_len(16 << 20).unwrap();
        for (program, arguments) in [
            ("mkfs.ntfs", vec!["-F".as_ref(), "-Q".as_ref(), image]),
            ("ntfs-3g", vec![image, folder.path()]),
        ] {
            let done = Command::new(program).args(arguments).output();
            if !done.as_ref().is_ok_and(|done| done.status.success()) {
                eprintln!("skipped: no NTFS to be had here: {program}: {done:?}");
                return None;
            }
        }
        Some(Self { folder })
    }
}

impl Drop for Ntfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.folder.path()).status();
    }
}

#[test]
fn a_long_name_works_where_names_are_counted_in_letters() {
    let mut setup = Setup::new(700);
    let Some(ntfs) = Ntfs::mount(&setup.path("image")) else {
        return;
    };
    setup.folder = ntfs.folder.path().join("folder");
    fs::create_dir(&setup.folder).unwrap();
    for count in [121, 127] {
        let name = "é".repeat(count);
        for _ in 0..2 {
            let output = setup.create(&name).unwrap();
            copy(&output, 700).unwrap();
            output.commit().unwrap();
        }
        assert_eq!(fs::read(setup.path(&name)).unwrap(), content(700));
    }
    assert_eq!(setup.names().len(), 2);
}
