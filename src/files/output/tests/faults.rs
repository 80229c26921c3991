//! Faults of the host: full and limited file systems, folders that vanish, devices that refuse.

use std::process::Output;

use rustix::process::{Resource, Rlimit, setrlimit};

use super::*;

/// Where a test that is run a second time, under a fault, has to write.
const FAULTY_FOLDER: &str = "VMM_TEST_FAULTY_FOLDER";

/// The exit status of a shell command that could not set its fault up.
const NO_FAULT: Option<i32> = Some(77);

/// Runs one ignored test of this program under a shell command that sets a fault up for it alone.
fn rerun(test: &str, command: &[&str], folder: &Path) -> Output {
    let name = format!("files::output::tests::faults::{test}");
    Command::new(command[0])
        .args(&command[1..])
        .arg("sh")
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            &name,
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(FAULTY_FOLDER, folder)
        .output()
        .unwrap()
}

fn check(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == NO_FAULT || errors.contains("unshare:") {
        eprintln!("skipped: the fault cannot be set up here: {errors}");
        return;
    }
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{errors}"
    );
}

/// Copies into the faulty folder, after `fault`, which must fail with `kind` and leave nothing.
fn fail_to_copy(kind: io::ErrorKind, fault: impl FnOnce()) {
    let Some(folder) = std::env::var_os(FAULTY_FOLDER) else {
        return;
    };
    let mut setup = Setup::new(300_000);
    setup.folder = folder.into();
    fault();
    for naming in BOTH {
        let output = setup.create_named("copy", naming);
        let error = copy(&output, 300_000).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains("at offset "), "{error}");
        assert!(
            matches!(output.commit(), Err(FileError::Incomplete { offset, .. })
            if offset == output.bytes_written() && offset > 0)
        );
        drop(output);
        assert_eq!(setup.names(), [""; 0]);
    }
}

#[test]
#[ignore = "run by a_full_file_system_is_reported_and_nothing_is_left"]
fn copy_to_a_full_file_system() {
    fail_to_copy(io::ErrorKind::StorageFull, || {});
}

#[test]
fn a_full_file_system_is_reported_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let shell =
        "mount -t tmpfs -o size=64k none \"$VMM_TEST_FAULTY_FOLDER\" || exit 77; exec \"$@\"";
    let command = ["unshare", "--mount", "--map-root-user", "sh", "-c", shell];
    check(&rerun(
        "copy_to_a_full_file_system",
        &command,
        folder.path(),
    ));
}

#[test]
#[ignore = "run by a_file_size_limit_is_reported_and_nothing_is_left"]
fn copy_beyond_a_file_size_limit() {
    let Some(folder) = std::env::var_os(FAULTY_FOLDER) else {
        return;
    };
    let mut setup = Setup::new(300_000);
    setup.folder = folder.into();
    let limit = |current| {
        let maximum = None;
        setrlimit(Resource::Fsize, Rlimit { current, maximum }).unwrap();
    };
    for naming in BOTH {
        limit(None);
        let output = setup.create_named("copy", naming);
        limit(Some(50_000));
        let options = OutputOptions::default();
        let error = OutputFile::create_named(&setup.path("other"), &setup.input, options, naming);
        let error = error.unwrap_err();
        assert!(
            matches!(error.action(), Some(Action::Resize { .. })),
            "{error}"
        );
        let error = copy(&output, 300_000).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge, "{error}");
        drop(output);
        assert_eq!(setup.names(), [""; 0]);
    }
}

#[test]
fn a_file_size_limit_is_reported_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let command = ["sh", "-c", "trap '' XFSZ; exec \"$@\""];
    check(&rerun(
        "copy_beyond_a_file_size_limit",
        &command,
        folder.path(),
    ));
}

#[test]
fn a_folder_that_vanishes_is_an_error_of_the_commit() {
    for naming in BOTH {
        let setup = Setup::new(700);
        let output = setup.create_named("copy", naming);
        copy(&output, 700).unwrap();
        fs::remove_dir_all(&setup.folder).unwrap();
        let error = output.commit().unwrap_err();
        assert!(
            matches!(error.action(), Some(Action::Place { .. })),
            "{error}"
        );
        assert!(error.to_string().contains("folder is gone"), "{error}");
    }
}

#[test]
fn a_folder_that_is_renamed_still_gets_the_output() {
    for naming in BOTH {
        let setup = Setup::new(700);
        let output = setup.create_named("copy", naming);
        copy(&output, 700).unwrap();
        let moved = setup.folder.with_extension("moved");
        fs::rename(&setup.folder, &moved).unwrap();
        output.commit().unwrap();
        assert_eq!(fs::read(moved.join("copy")).unwrap(), content(700));
    }
}

#[test]
fn a_directory_that_takes_the_name_stays_and_nothing_else_is_left() {
    for naming in BOTH {
        let setup = Setup::new(700);
        let output = setup.create_named("copy", naming);
        copy(&output, 700).unwrap();
        fs::create_dir(setup.path("copy")).unwrap();
        let error = output.commit().unwrap_err();
        assert!(
            error.to_string().contains("a directory has taken its name"),
            "{error}"
        );
        drop(output);
        assert_eq!(setup.names(), ["copy"]);
        assert!(setup.path("copy").is_dir());
    }
}

#[test]
#[ignore = "run by a_file_that_is_mounted_by_itself_is_refused_before_the_copy"]
fn replace_a_mount_point() {
    let Some(folder) = std::env::var_os(FAULTY_FOLDER) else {
        return;
    };
    let mut setup = Setup::new(700);
    setup.folder = folder.into();
    assert!(setup.refusal("copy").contains("it is a mount point"));
    assert_eq!(fs::read(setup.path("copy")).unwrap(), b"old");
}

#[test]
fn a_file_that_is_mounted_by_itself_is_refused_before_the_copy() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("copy"), "old").unwrap();
    let shell = "cd \"$VMM_TEST_FAULTY_FOLDER\" && mount --bind copy copy || exit 77; exec \"$@\"";
    let command = ["unshare", "--mount", "--map-root-user", "sh", "-c", shell];
    check(&rerun("replace_a_mount_point", &command, folder.path()));
}
