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

#[test]
fn what_is_done_to_the_old_file_during_the_copy_gives_nobody_more() {
    let only_owner = "only the owner may use the new one";
    let only_user = "only the user who ran vmm may use the new one";
    type Act = fn(&Path);
    let acts: [(&str, Act, &str); 6] = [
        (
            "a list of access loses an entry",
            |path| set_list(path, &list(6, 0, 4, 4, 4, 0)),
            only_owner,
        ),
        (
            "another file takes its name, and it gets another",
            |path| {
                fs::rename(path, path.with_extension("old")).unwrap();
                fs::write(path, "another").unwrap();
                set_mode(path, 0o600);
            },
            only_user,
        ),
        (
            "another file takes its name, and it is written to under another",
            |path| {
                fs::rename(path, path.with_extension("old")).unwrap();
                fs::write(path, "another").unwrap();
                set_mode(path, 0o600);
                fs::write(path.with_extension("old"), "as a log is").unwrap();
            },
            only_user,
        ),
        (
            "another file is renamed over it",
            |path| {
                let other = path.with_extension("other");
                fs::write(&other, "another").unwrap();
                fs::rename(&other, path).unwrap();
            },
            only_user,
        ),
        (
            "it gets another name as well",
            |path| fs::hard_link(path, path.with_extension("link")).unwrap(),
            only_owner,
        ),
        (
            "it loses another name",
            |path| fs::remove_file(path.with_extension("kept")).unwrap(),
            only_owner,
        ),
    ];
    for (naming, (what, act, expected)) in BOTH.into_iter().flat_map(|n| acts.map(|act| (n, act))) {
        let setup = Setup::new(700);
        let path = setup.path("copy");
        fs::write(&path, "old").unwrap();
        fs::hard_link(&path, path.with_extension("kept")).unwrap();
        set_mode(&path, 0o644);
        if what.contains("list") && !set(&path, ATTRIBUTE, list(6, 4, 4, 4, 4, 0).value()) {
            continue;
        }
        let output = setup.create_named("copy", naming);
        copy(&output, 700).unwrap();
        // The times of a file may count in hundredths of a second.
        std::thread::sleep(std::time::Duration::from_millis(20));
        act(&path);
        let warnings = output.commit().unwrap();
        assert!(warnings[0].contains(expected), "{what}: {warnings:?}");
        assert_eq!(mode(&path), 0o600, "{what}");
        assert_eq!(fs::read(&path).unwrap(), content(700));
        assert!(!setup.names().iter().any(|name| name.starts_with('.')));
    }
}

/// Both times of the old file are those of the write then, and its mode may be what it was.
#[test]
fn a_list_that_the_old_file_gets_before_it_is_written_to_gives_nobody_more() {
    let changed = "the permissions of the old file were changed";
    let masks = [(6, "only the owner may use the new one"), (4, changed)];
    for (naming, (mask, expected)) in BOTH.into_iter().flat_map(|n| masks.map(|mask| (n, mask))) {
        let setup = Setup::new(700);
        let path = setup.path("copy");
        fs::write(&path, "old").unwrap();
        set_mode(&path, 0o664);
        let output = setup.create_named("copy", naming);
        copy(&output, 700).unwrap();
        // The times of a file may count in hundredths of a second.
        std::thread::sleep(std::time::Duration::from_millis(20));
        if !set(&path, ATTRIBUTE, list(6, 0, 6, 6, mask, 4).value()) {
            return;
        }
        assert_eq!(mode(&path), 0o604 | u32::from(mask) << 3);
        fs::write(&path, "as a log is").unwrap();
        let warnings = output.commit().unwrap();
        assert!(warnings[0].contains(expected), "{mask}: {warnings:?}");
        assert_eq!(mode(&path), 0o600, "{mask}");
    }
}

#[test]
fn a_list_that_stays_as_it_is_is_kept_of_a_file_that_is_written_to() {
    for naming in BOTH {
        let setup = Setup::new(700);
        let path = setup.path("copy");
        fs::write(&path, "old").unwrap();
        let acl = list(6, 4, 4, 4, 4, 0);
        if !set(&path, ATTRIBUTE, acl.value()) {
            return;
        }
        let output = setup.create_named("copy", naming);
        copy(&output, 700).unwrap();
        fs::write(&path, "as a log is").unwrap();
        assert_eq!(output.commit().unwrap(), [""; 0]);
        assert_eq!(attribute(&path, ATTRIBUTE).unwrap(), acl.value());
    }
}

fn set_list(path: &Path, acl: &Acl) {
    assert!(set(path, ATTRIBUTE, acl.value()));
}

#[test]
fn who_writes_to_the_old_file_during_the_copy_changes_nothing_else() {
    let setup = Setup::new(700);
    let path = setup.path("copy");
    fs::write(&path, "old").unwrap();
    set_mode(&path, 0o644);
    let output = setup.create_named("copy", Naming::Unnamed);
    copy(&output, 700).unwrap();
    fs::write(&path, "older").unwrap();
    assert_eq!(output.commit().unwrap(), [""; 0]);
    assert_eq!(mode(&path), 0o644);
}

#[test]
fn an_owner_who_loses_the_old_file_during_the_copy_does_not_get_the_new_one() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root gives files away");
        return;
    }
    for (naming, loses_a_name) in BOTH.into_iter().flat_map(|n| [(n, false), (n, true)]) {
        let setup = Setup::new(700);
        let path = setup.path("copy");
        fs::write(&path, "old").unwrap();
        fs::hard_link(&path, path.with_extension("kept")).unwrap();
        std::os::unix::fs::chown(&path, Some(40_003), None).unwrap();
        let output = setup.create_named("copy", naming);
        copy(&output, 700).unwrap();
        std::os::unix::fs::chown(&path, Some(40_001), None).unwrap();
        if loses_a_name {
            fs::remove_file(path.with_extension("kept")).unwrap();
        }
        let warnings = output.commit().unwrap();
        assert!(
            warnings[0].contains("belongs to the user who ran vmm"),
            "{warnings:?}"
        );
        assert_eq!(
            (fs::metadata(&path).unwrap().uid(), mode(&path)),
            (0, 0o600)
        );
    }
}

/// A command that runs one ignored test of this file, from `program`, on what is in `folder`.
fn again(program: &Path, test: &str, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args(["--exact", &format!("files::output::tests::kept::{test}")])
        .args(["--ignored", "--nocapture"])
        .env("VMM_TEST_FOLDER", folder);
    command
}

/// A user 40001 of the group 40002 who runs tests [`again`].
struct AnotherUser {
    /// This program where anyone can run it.
    program: PathBuf,
    _folder: tempfile::TempDir,
}

impl AnotherUser {
    /// Nothing, which is said, if this user can become no other.
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: it takes root to become another user");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        set_mode(folder.path(), 0o755);
        let program = folder.path().join("tests");
        copy_program(&std::env::current_exe().unwrap(), &program);
        set_mode(&program, 0o755);
        Some(Self {
            program,
            _folder: folder,
        })
    }

    fn run(&self, test: &str, folder: &Path) {
        let mut command = again(&self.program, test, folder);
        let output = command.uid(40_001).gid(40_002).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

/// Replaces another user's file in the folder of a test that was run [`again`], which cannot keep its
/// owner; returns what is said of it.
fn replace_of_another() -> Option<String> {
    let mut setup = Setup::new(700);
    setup.folder = std::env::var_os("VMM_TEST_FOLDER")?.into();
    let notes = replace(&setup, Naming::Unnamed).join("\n");
    assert!(
        notes.contains("its owner, user 40003, cannot be kept"),
        "{notes}"
    );
    Some(notes)
}

/// Only who may give files away, but not change those of others, meets this: the test runs itself
/// again so.
#[test]
#[ignore = "run by who_may_not_change_files_of_others_keeps_the_copy_and_its_mode"]
fn replace_without_a_capability() {
    replace_of_another();
}

#[test]
fn who_may_not_change_files_of_others_keeps_the_copy_and_its_mode() {
    const CAP_DAC_OVERRIDE: libc::c_ulong = 1;
    const CAP_DAC_READ_SEARCH: libc::c_ulong = 2;
    const CAP_FOWNER: libc::c_ulong = 3;
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root has capabilities to drop");
        return;
    }
    for dropped in [
        &[CAP_FOWNER][..],
        &[CAP_FOWNER, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH],
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("copy");
        fs::write(&path, "old").unwrap();
        std::os::unix::fs::chown(&path, Some(40_003), None).unwrap();
        set_mode(&path, 0o666);
        let program = std::env::current_exe().unwrap();
        let mut command = again(&program, "replace_without_a_capability", folder.path());
        let without = move || {
            for capability in dropped {
                // SAFETY: the call takes numbers.
                if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, *capability) } != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: between fork and exec it makes system calls and nothing else.
        unsafe { command.pre_exec(without) };
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(
            (fs::metadata(&path).unwrap().uid(), mode(&path)),
            (0, 0o666)
        );
    }
}

/// Only another user can lose the owner: the test runs itself again as one.
#[test]
#[ignore = "run by an_owner_and_group_that_cannot_be_kept_are_told_and_nobody_gets_more"]
fn replace_as_another_user() {
    let Some(notes) = replace_of_another() else {
        return;
    };
    assert!(notes.contains("its group 40004 cannot be kept"), "{notes}");
}

#[test]
fn an_owner_and_group_that_cannot_be_kept_are_told_and_nobody_gets_more() {
    let Some(user) = AnotherUser::new() else {
        return;
    };
    for (old, new) in [(0o606, 0o600), (0o666, 0o666), (0o662, 0o622)] {
        let folder = tempfile::tempdir().unwrap();
        set_mode(folder.path(), 0o777);
        let path = folder.path().join("copy");
        fs::write(&path, "old").unwrap();
        std::os::unix::fs::chown(&path, Some(40_003), Some(40_004)).unwrap();
        set_mode(&path, old);
        user.run("replace_as_another_user", folder.path());
        let now = fs::metadata(&path).unwrap();
        assert_eq!((now.uid(), now.gid()), (40_001, 40_002));
        assert_eq!(mode(&path), new, "{old:o}");
    }
}

/// It takes another user to meet files that one may not link: the test runs itself again as one.
#[test]
#[ignore = "run by a_file_of_another_user_that_comes_to_the_name_is_found_out"]
fn replace_what_was_exchanged_for_a_file_of_another() {
    let Some(folder) = std::env::var_os("VMM_TEST_FOLDER") else {
        return;
    };
    let mut setup = Setup::new(700);
    setup.folder = folder.into();
    for naming in BOTH {
        let path = setup.path(&format!("{naming:?}"));
        let [log, private] = ["log", "private"].map(|end| path.with_extension(end));
        let output = setup.create_named(&format!("{naming:?}"), naming);
        copy(&output, 700).unwrap();
        // The times of a file may count in hundredths of a second.
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::rename(&path, &log).unwrap();
        fs::rename(&private, &path).unwrap();
        fs::write(&log, "as a log is").unwrap();
        let warnings = output.commit().unwrap();
        assert!(
            warnings[0].contains("only the user who ran vmm may use the new one"),
            "{naming:?}: {warnings:?}"
        );
        assert_eq!(mode(&path), 0o600, "{naming:?}");
    }
}

#[test]
fn a_file_of_another_user_that_comes_to_the_name_is_found_out() {
    let Some(user) = AnotherUser::new() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let give = |path: &Path, permissions| {
        std::os::unix::fs::chown(path, Some(40_003), Some(40_002)).unwrap();
        set_mode(path, permissions);
    };
    give(folder.path(), 0o775);
    for naming in BOTH {
        let path = folder.path().join(format!("{naming:?}"));
        for (path, permissions) in [(path.with_extension("private"), 0o600), (path, 0o664)] {
            fs::write(&path, "of another").unwrap();
            give(&path, permissions);
        }
    }
    let test = "replace_what_was_exchanged_for_a_file_of_another";
    user.run(test, folder.path());
}
