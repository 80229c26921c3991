//! Limits on what a process may have (getrlimit(2)), a folder that is gone and a mask that takes
//! all permissions away.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;

use crate::HOST_FAILED;
use crate::common::{Files, Operation, Vmm, needs_kvm, test};

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
            let finished = vmm.with_limit(libc::RLIMIT_AS, limit * KIB).run();
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
            .with_limit(libc::RLIMIT_AS, 32 << 20)
            .with_limit(libc::RLIMIT_STACK, 160 << 10)
            .with_limit(libc::RLIMIT_NOFILE, 48)
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
            let finished = vmm.with_limit(libc::RLIMIT_STACK, limit * KIB).run();
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
    for operation in Operation::ALL {
        let files = Operation::files();
        let finished = operation.vmm(&files).with_file_size_limit(70_000).run();
        let succeeded = operation.assert_done_or_failed("70000", &files, &finished, HOST_FAILED);
        assert_eq!(succeeded, !operation.writes(), "{finished:?}");
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
                .with_limit(libc::RLIMIT_NOFILE, open)
                .run();
            if finished.code() != Some(127) {
                let what = format!("{open} files");
                operation.assert_done_or_failed(&what, &files, &finished, HOST_FAILED);
            }
        }
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
        let arguments = operation.arguments_of(&files.image(), "relative".as_ref());
        let vmm = arguments.into_iter().fold(Vmm::bare(), Vmm::arg);
        let finished = in_a_folder_that_is_gone(vmm, &files).run();
        finished.assert_failed(HOST_FAILED, "that folder has been removed");
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
        let arguments = operation.arguments_of(&source, &output);
        let vmm = arguments.into_iter().fold(Vmm::bare(), Vmm::arg);
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
