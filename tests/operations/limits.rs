//! Limits on what a process may have (getrlimit(2)), a folder that is gone and a mask that takes
//! all permissions away.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::common::mount::can_unshare;
use crate::common::process::{binary, copy_program};
use crate::common::{Files, Operation, Vmm, is_root, needs_kvm, skip, test};
use crate::{HOST_FAILED, TIMED_OUT};

const KIB: u64 = 1 << 10;

#[test]
fn every_limit_on_address_space_is_enough_or_a_reason() {
    needs_kvm!();
    for operation in Operation::ALL {
        let mut succeeded = 0;
        let mut failed = 0;
        for limit in (4000..14_000)
            .step_by(400)
            .chain((14_000..40_000).step_by(1000))
        {
            let files = Operation::files();
            let vmm = operation.vmm(&files);
            let finished = vmm.with_limit(Resource::As, limit * KIB).run();
            // Too little for the program's libraries.
            if finished.code() == Some(127)
                || finished.stderr.is_empty() && finished.code().is_none()
            {
                files.assert_untouched();
                continue;
            }
            let what = format!("{limit} KiB of address space");
            match operation.assert_done_or_failed(&what, &files, &finished, HOST_FAILED) {
                true => succeeded += 1,
                false => {
                    assert!(
                        finished.stderr.contains("ulimit -v"),
                        "{what}: {finished:?}"
                    );
                    failed += 1;
                }
            }
        }
        assert!(succeeded > 5 && failed > 2, "{succeeded}, {failed}");
    }
}

#[test]
fn the_limits_that_the_documentation_gives_are_enough() {
    needs_kvm!();
    let page = include_str!("../../docs/troubleshooting.md");
    let given = "32 MiB of address space (`ulimit -v`), 160 KiB of stack (`-s`), 48 open files";
    assert!(page.contains(given));
    for operation in Operation::ALL {
        let files = Operation::files();
        operation
            .vmm(&files)
            .with_limit(Resource::As, 32 << 20)
            .with_limit(Resource::Stack, 160 << 10)
            .with_limit(Resource::Nofile, 48)
            .succeed();
        operation.assert_done(&files);
    }
}

#[test]
fn every_limit_on_the_stack_is_enough_or_a_reason() {
    needs_kvm!();
    for operation in Operation::ALL {
        for limit in (32..260).step_by(16) {
            let files = Operation::files();
            let vmm = operation.vmm(&files);
            let finished = vmm.with_limit(Resource::Stack, limit * KIB).run();
            let what = format!("{limit} KiB of stack");
            let succeeded = operation.assert_done_or_failed(&what, &files, &finished, HOST_FAILED);
            assert_eq!(succeeded, limit >= 160, "{what}: {finished:?}");
            assert!(
                succeeded || finished.stderr.contains("ulimit -s 160"),
                "{what}"
            );
        }
    }
}

#[test]
fn a_limit_on_the_size_of_files_matters_only_to_those_who_write() {
    needs_kvm!();
    const WHOLE: u64 = 200 * 512;
    for operation in Operation::ALL {
        for limit in [0, 1, 511, 70_000, WHOLE - 1, WHOLE, WHOLE + 1] {
            let files = Operation::files();
            let finished = operation.vmm(&files).with_file_size_limit(limit).run();
            let what = format!("files of {limit} bytes");
            let succeeded = operation.assert_done_or_failed(&what, &files, &finished, HOST_FAILED);
            let enough = limit >= WHOLE || !operation.writes();
            assert_eq!(succeeded, enough, "{what}: {finished:?}");
            assert!(
                enough || finished.stderr.contains("ulimit -f"),
                "{what}: {finished:?}"
            );
        }
    }
}

#[test]
fn the_look_at_the_host_finds_the_limits_that_a_copy_meets() {
    needs_kvm!();
    for (resource, limits) in [
        (Resource::Nofile, [28, 31, 33, 34, 36, 48]),
        (
            Resource::As,
            [12, 16, 18, 20, 24, 32].map(|limit| limit << 20),
        ),
        (
            Resource::Data,
            [8, 10, 11, 12, 16, 32].map(|limit| limit << 20),
        ),
    ] {
        for (index, limit) in limits.into_iter().enumerate() {
            let files = Files::random(512);
            let limited = |vmm: Vmm| vmm.with_limit(resource, limit).run();
            let (checked, copied) = (limited(Vmm::bare().arg("--check")), limited(files.vmm()));
            // A copy may do with a little less than is looked for.
            let fails_unseen = checked.code() == Some(0) && copied.code() != Some(0);
            assert!(!fails_unseen, "{resource:?} {limit}: {copied:?}");
            // The last one is enough for both.
            if index + 1 == limits.len() {
                for finished in [checked, copied] {
                    assert_eq!(
                        finished.code(),
                        Some(0),
                        "{resource:?} {limit}: {finished:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_program_is_told_of_limits_that_no_run_begins_with() {
    for (resource, limit) in [(Resource::Stack, 64 << 10), (Resource::As, 16 << 20)] {
        let files = Files::random(512);
        let vmm = files.vmm().args(&["--format", "json"]);
        let finished = vmm.with_limit(resource, limit).run();
        assert_eq!(finished.code(), Some(HOST_FAILED), "{finished:?}");
        let last = finished.stdout.lines().last().unwrap_or_default();
        assert!(
            last.starts_with(r#"{"type":"result","outcome":"host_error""#),
            "{finished:?}"
        );
    }
}

#[test]
fn every_limit_on_open_files_is_enough_or_a_reason() {
    needs_kvm!();
    for operation in [Operation::Convert, Operation::Info] {
        for open in (4..48).step_by(3) {
            let files = Operation::files();
            let finished = operation
                .vmm(&files)
                .with_limit(Resource::Nofile, open)
                .run();
            if finished.code() != Some(127) {
                let what = format!("{open} files");
                operation.assert_done_or_failed(&what, &files, &finished, HOST_FAILED);
            }
        }
    }
}

#[test]
fn every_limit_on_data_is_enough_or_a_reason() {
    needs_kvm!();
    for operation in Operation::ALL {
        let (mut succeeded, mut failed) = (0, 0);
        for limit in (0..16_000)
            .step_by(400)
            .chain((16_000..33_000).step_by(2000))
        {
            let files = Operation::files();
            let vmm = operation.vmm(&files);
            let finished = vmm.with_limit(Resource::Data, limit * KIB).run();
            // Too little for the program's libraries.
            if finished.code() == Some(127)
                || finished.stderr.is_empty() && finished.code().is_none()
            {
                files.assert_untouched();
                continue;
            }
            let what = format!("{limit} KiB of data");
            match operation.assert_done_or_failed(&what, &files, &finished, HOST_FAILED) {
                true => succeeded += 1,
                false => {
                    let named = ["ulimit -d", "raise the limits on it"];
                    let named = named.iter().any(|name| finished.stderr.contains(name));
                    assert!(named, "{what}: {finished:?}");
                    failed += 1;
                }
            }
        }
        assert!(succeeded > 5 && failed > 2, "{succeeded}, {failed}");
    }
}

#[test]
fn a_limit_on_locked_memory_does_not_matter() {
    needs_kvm!();
    for operation in Operation::ALL {
        let files = Operation::files();
        let vmm = operation.vmm(&files);
        vmm.with_limit(Resource::Memlock, 0).succeed();
        operation.assert_done(&files);
    }
}

/// The system ends such a process by itself; with the usual hard limit it cannot even be asked to.
#[test]
fn a_limit_on_processor_time_ends_a_run_and_leaves_nothing() {
    needs_kvm!();
    for (hard, signal) in [(1, libc::SIGKILL), (100, libc::SIGXCPU)] {
        let mut files = Operation::files();
        let spin = files.add("spin", &[0xeb, 0xfe]);
        let vmm = Operation::Copy.vmm(&files).arg(spin);
        let vmm = vmm.with_limits(Resource::Cpu, 1, hard);
        let finished = vmm.run();
        assert_eq!(finished.status.signal(), Some(signal), "{finished:?}");
        files.assert_untouched();
    }
}

/// Puts another node of the same device over `/dev/kvm`, which everybody may use, for this process
/// alone; and becomes a user who has no other process, with room for so many threads.
fn as_a_lonely_user(node: &CStr, threads: u64) -> io::Result<()> {
    let check = |result: libc::c_int| match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    let none = std::ptr::null();
    // SAFETY: the call takes a number.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    let private = libc::MS_PRIVATE | libc::MS_REC;
    // SAFETY: the paths end with a zero, and the other texts are not needed.
    check(unsafe { libc::mount(none, c"/".as_ptr(), none, private, none.cast()) })?;
    let kvm = c"/dev/kvm".as_ptr();
    // SAFETY: as above.
    check(unsafe { libc::mount(node.as_ptr(), kvm, none, libc::MS_BIND, none.cast()) })?;
    // SAFETY: there is no group in the list.
    check(unsafe { libc::setgroups(0, std::ptr::null()) })?;
    // SAFETY: the calls take numbers.
    check(unsafe { libc::setgid(LONELY) })?;
    // SAFETY: as above.
    check(unsafe { libc::setuid(LONELY) })?;
    let (current, maximum) = (Some(threads), Some(threads));
    setrlimit(Resource::Nproc, Rlimit { current, maximum }).map_err(io::Error::from)
}

/// The number of a user and a group that nothing runs as.
const LONELY: u32 = 3_141_592;

#[test]
fn every_limit_on_threads_is_enough_or_a_reason() {
    needs_kvm!();
    if !is_root() {
        return skip("only root can become a user without other processes");
    }
    if !can_unshare(&["--mount"]) {
        return;
    }
    let mut nodes = Operation::files();
    let node = nodes.expect("kvm");
    let number = fs::metadata("/dev/kvm").unwrap().rdev();
    let everybody = Mode::from_raw_mode(0o666);
    if mknodat(CWD, &node, FileType::CharacterDevice, everybody, number).is_err() {
        return skip("no device can be made here");
    }
    fs::set_permissions(&node, fs::Permissions::from_mode(0o666)).unwrap();
    let node = CString::new(node.as_os_str().as_bytes()).unwrap();
    // Nor need it be able to come to where the tests were built.
    let program = nodes.expect("vmm");
    copy_program(&binary(), &program);
    fs::set_permissions(nodes.folder(), fs::Permissions::from_mode(0o755)).unwrap();
    for operation in Operation::ALL {
        let (mut least, mut most) = (None, None);
        for threads in 1..=12 {
            let files = Operation::files();
            fs::set_permissions(files.folder(), fs::Permissions::from_mode(0o777)).unwrap();
            fs::set_permissions(files.output(), fs::Permissions::from_mode(0o666)).unwrap();
            let arguments = operation.arguments(&files);
            let vmm = arguments.into_iter().fold(Vmm::of(&program), Vmm::arg);
            let node = node.clone();
            let vmm = vmm.before_start(move || as_a_lonely_user(&node, threads));
            let finished = vmm.args(&["--timeout", "20"]).run();
            let what = format!("{threads} threads");
            // The owner is another, and that is said.
            let mut told = finished;
            let warning = |line: &&str| !line.starts_with("vmm: warning: ");
            told.stderr = told
                .stderr
                .lines()
                .filter(warning)
                .collect::<Vec<_>>()
                .join("\n");
            match operation.assert_done_or_failed(&what, &files, &told, HOST_FAILED) {
                true => least = least.or(Some(threads)),
                false => {
                    assert!(told.stderr.contains("ulimit -u"), "{what}: {told:?}");
                    most = Some(threads);
                }
            }
        }
        // What is enough is known, and more is enough as well.
        assert!(
            most.is_some() && most < least,
            "{operation:?}: {most:?}, {least:?}"
        );
        assert!(
            least <= Some(8),
            "the documentation promises that 8 are enough"
        );
    }
}

#[test]
fn any_time_limit_is_enough_or_ends_the_run() {
    needs_kvm!();
    for operation in Operation::ALL {
        let (mut succeeded, mut late) = (0, 0);
        // Shorter than a start takes, than the first tick of the clock (50 ms), and long enough.
        for limit in [
            "0.000001", "0.001", "0.005", "0.01", "0.02", "0.03", "0.045", "0.06", "0.1", "30",
        ] {
            let files = Operation::files();
            let finished = operation.vmm(&files).args(&["--timeout", limit]).run();
            let what = format!("{limit} seconds");
            match operation.assert_done_or_failed(&what, &files, &finished, TIMED_OUT) {
                true => succeeded += 1,
                false => {
                    let reason = format!(
                        "within the time limit of {} s",
                        limit.parse::<f64>().unwrap()
                    );
                    assert!(finished.stderr.contains(&reason), "{what}: {finished:?}");
                    late += 1;
                }
            }
        }
        assert!(
            succeeded > 0 && late > 0,
            "{operation:?}: {succeeded}, {late}"
        );
    }
}

/// The product, in a folder that is gone when it starts.
fn in_a_folder_that_is_gone(vmm: Vmm, files: &Files) -> Vmm {
    let gone = files.path("gone");
    fs::create_dir(&gone).unwrap();
    let name = std::ffi::CString::new(gone.to_str().unwrap()).unwrap();
    vmm.current_dir(&gone).before_start(move || {
        // SAFETY: the path ends with a zero.
        match unsafe { libc::rmdir(name.as_ptr()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    })
}

#[test]
fn a_current_folder_that_is_gone_matters_only_to_paths_within_it() {
    needs_kvm!();
    for operation in Operation::ALL {
        let files = Operation::files();
        let vmm = in_a_folder_that_is_gone(operation.vmm(&files), &files);
        vmm.succeed();
        operation.assert_done(&files);
    }
    for operation in Operation::WRITING {
        let files = Operation::files();
        let vmm = operation.vmm_of(&files.image(), "relative".as_ref());
        let finished = in_a_folder_that_is_gone(vmm, &files).run();
        finished.assert_failed(HOST_FAILED, "it has been removed; choose another");
        files.assert_untouched();
    }
}

#[test]
fn a_mask_that_takes_all_permissions_away_costs_a_new_output_them_and_nothing_else() {
    needs_kvm!();
    for operation in Operation::WRITING {
        let mut files = Operation::files();
        let output = files.expect("new");
        let source = match operation {
            Operation::Convert => files.image(),
            _ => files.input(),
        };
        let vmm = operation.vmm_of(&source, &output);
        let mask = || {
            // SAFETY: the call takes a number and cannot fail.
            unsafe { libc::umask(0o777) };
            Ok(())
        };
        vmm.before_start(mask).succeed();
        let mode = fs::metadata(&output).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0, "{mode:o}");
        fs::set_permissions(&output, fs::Permissions::from_mode(0o600)).unwrap();
        crate::common::files::assert_same(&output, &fs::read(files.input()).unwrap());
        files.assert_untouched();
    }
}
