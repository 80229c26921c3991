//! What a file that is replaced keeps, and that nobody can do more with the new one.

use std::os::unix::process::CommandExt;

use rustix::fs::{XattrFlags, getxattr, listxattr, lsetxattr, removexattr, setxattr};
use rustix::io::Errno;

use super::*;
use crate::files::acl::{ATTRIBUTE, Acl, testing::list};

const DEFAULT_ATTRIBUTE: &str = "system.posix_acl_default";

fn attribute(path: &Path, name: &str) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 65536];
    let size = getxattr(path, name, &mut value[..])?;
    value.truncate(size);
    Ok(value)
}

/// Sets an attribute; says so if the file system does not have such.
fn set(path: &Path, name: &str, value: &[u8]) -> bool {
    match setxattr(path, name, value, XattrFlags::empty()) {
        Ok(()) => true,
        Err(errno) => {
            eprintln!(
                "skipped: {name} cannot be set on {}: {errno}",
                path.display()
            );
            false
        }
    }
}

fn replace(setup: &Setup, naming: Naming) -> Vec<String> {
    let output = setup.create_named("copy", naming);
    let notes = output.notes();
    copy(&output, 700).unwrap();
    output.commit().unwrap();
    assert_eq!(fs::read(setup.path("copy")).unwrap(), content(700));
    assert_eq!(setup.names(), ["copy"]);
    notes
        .into_iter()
        .filter(|note| !note.contains("unnamed"))
        .collect()
}

#[test]
fn an_access_control_list_is_kept_and_its_mask_is_not_taken_for_the_group() {
    // The group may do nothing, or less than a user and another group.
    let groups = |naming| [0, 4].map(|group| (naming, group));
    for (naming, group) in BOTH.into_iter().flat_map(groups) {
        let setup = Setup::new(700);
        let path = setup.path("copy");
        fs::write(&path, "old").unwrap();
        let acl = list(6, 6, group, 4, 6, 0);
        if !set(&path, ATTRIBUTE, acl.value()) {
            return;
        }
        assert_eq!(mode(&path), 0o660);
        assert_eq!(replace(&setup, naming), [""; 0]);
        let kept = Acl::parse(attribute(&path, ATTRIBUTE).unwrap()).unwrap();
        assert_eq!(kept, acl);
        assert_eq!(mode(&path), 0o660);
    }
}

#[test]
fn a_folders_default_list_does_not_open_a_file_that_had_none() {
    for naming in BOTH {
        let setup = Setup::new(700);
        let path = setup.path("copy");
        if !set(
            &setup.folder,
            DEFAULT_ATTRIBUTE,
            list(7, 7, 7, 7, 7, 7).value(),
        ) {
            return;
        }
        fs::write(&path, "old").unwrap();
        removexattr(&path, ATTRIBUTE).unwrap();
        set_mode(&path, 0o640);
        assert_eq!(replace(&setup, naming), [""; 0]);
        assert_eq!(attribute(&path, ATTRIBUTE), Err(Errno::NODATA));
        assert_eq!(mode(&path), 0o640);
    }
}

#[test]
fn a_new_output_gets_the_folders_default_list_as_any_new_file_does() {
    for naming in BOTH {
        let setup = Setup::new(700);
        if !set(
            &setup.folder,
            DEFAULT_ATTRIBUTE,
            list(7, 4, 5, 4, 7, 0).value(),
        ) {
            return;
        }
        let output = setup.create_named("copy", naming);
        copy(&output, 700).unwrap();
        output.commit().unwrap();
        fs::write(setup.path("other"), "").unwrap();
        let acl = |name| attribute(&setup.path(name), ATTRIBUTE).unwrap();
        assert_eq!(acl("copy"), acl("other"));
        assert_eq!(mode(&setup.path("copy")), mode(&setup.path("other")));
    }
}

#[test]
fn extended_attributes_are_kept_but_for_those_of_the_old_content() {
    for naming in BOTH {
        let setup = Setup::new(700);
        let path = setup.path("copy");
        fs::write(&path, "old").unwrap();
        if !set(&path, "user.origin", b"a camera") || !set(&path, "user.empty", b"") {
            return;
        }
        // A capability to bind low ports (linux/capability.h, revision 2).
        let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let name = "security.capability";
        let capable = lsetxattr(&path, name, &capability, XattrFlags::empty()).is_ok();
        let notes = replace(&setup, naming);
        assert_eq!(attribute(&path, "user.origin").unwrap(), b"a camera");
        assert_eq!(attribute(&path, "user.empty").unwrap(), b"");
        assert_eq!(attribute(&path, name), Err(Errno::NODATA));
        let mut names = vec![0; 65536];
        assert!(listxattr(&path, &mut names[..]).is_ok());
        assert_eq!(
            notes.iter().any(|note| note.contains(name)),
            capable,
            "{notes:?}"
        );
        assert!(notes.len() <= 1, "{notes:?}");
    }
}

#[test]
fn set_id_bits_are_dropped_and_that_is_said() {
    let setup = Setup::new(700);
    fs::write(setup.path("copy"), "old").unwrap();
    set_mode(&setup.path("copy"), 0o4755);
    let notes = replace(&setup, Naming::Unnamed);
    assert!(notes[0].contains("set-user-ID"), "{notes:?}");
    assert_eq!(mode(&setup.path("copy")), 0o755);
}

#[test]
fn permissions_that_are_changed_during_the_copy_are_a_warning_and_nobody_gets_more() {
    for naming in BOTH {
        for (before, after, kept) in [(0o644, 0o600, 0o600), (0o640, 0o666, 0o640)] {
            let setup = Setup::new(700);
            let path = setup.path("copy");
            fs::write(&path, "old").unwrap();
            set_mode(&path, before);
            let output = setup.create_named("copy", naming);
            copy(&output, 700).unwrap();
            set_mode(&path, after);
            let warnings = output.commit().unwrap();
            assert!(
                warnings[0].contains("permissions of the old file"),
                "{warnings:?}"
            );
            assert_eq!(mode(&path), kept);
        }
    }
}

/// Only another user can lose the owner: the test runs itself again as one.
#[test]
#[ignore = "run by an_owner_and_group_that_cannot_be_kept_are_told_and_nobody_gets_more"]
fn replace_as_another_user() {
    let Some(folder) = std::env::var_os("VMM_TEST_FOLDER") else {
        return;
    };
    let mut setup = Setup::new(700);
    setup.folder = folder.into();
    let notes = replace(&setup, Naming::Unnamed).join("\n");
    assert!(
        notes.contains("its owner, user 40003, cannot be kept"),
        "{notes}"
    );
    assert!(notes.contains("its group 40004 cannot be kept"), "{notes}");
}

#[test]
fn an_owner_and_group_that_cannot_be_kept_are_told_and_nobody_gets_more() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: it takes root to become another user");
        return;
    }
    // Where anyone can run it.
    let program = tempfile::tempdir().unwrap();
    set_mode(program.path(), 0o755);
    let tests = program.path().join("tests");
    copy_program(&std::env::current_exe().unwrap(), &tests);
    set_mode(&tests, 0o755);
    for (old, new) in [(0o606, 0o600), (0o666, 0o666), (0o662, 0o622)] {
        let folder = tempfile::tempdir().unwrap();
        set_mode(folder.path(), 0o777);
        let path = folder.path().join("copy");
        fs::write(&path, "old").unwrap();
        std::os::unix::fs::chown(&path, Some(40_003), Some(40_004)).unwrap();
        set_mode(&path, old);
        let output = Command::new(&tests)
            .uid(40_001)
            .gid(40_002)
            .args([
                "--exact",
                "files::output::tests::kept::replace_as_another_user",
            ])
            .args(["--ignored", "--nocapture"])
            .env("VMM_TEST_FOLDER", folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let now = fs::metadata(&path).unwrap();
        assert_eq!((now.uid(), now.gid()), (40_001, 40_002));
        assert_eq!(mode(&path), new, "{old:o}");
    }
}
