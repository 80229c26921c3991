//! Landlock (landlock(7)): no file can be opened, created or removed any more, but for giving the
//! output its name in its folder; no socket can be bound or connected.

use std::error::Error;
use std::fs::read_link;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;

use ::landlock::{
    ABI, Access, AccessFs, AccessNet, AddRuleError, AddRulesError, CompatError, CompatLevel,
    Compatible, PathBeneath, PathBeneathError, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, Scope, make_bitflags,
};

use super::SandboxError;

/// The rights of this ABI are denied; a kernel that knows fewer denies those.
const ABI_VERSION: ABI = ABI::V6;

/// What came of the wish to restrict a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// As far as the kernel can.
    AsFarAsPossible,
    /// The system offers it and does not let this process have it: a container's own filter forbids one of
    /// its calls, or the process lies in as many restrictions as there can be (16, landlock(7)). Seccomp
    /// confines it all the same; the threat model says what is possible then.
    Refused,
}

/// So often signals may interrupt it.
const TRIES: u32 = 100;

/// Restricts this thread and all that it starts later.
pub(super) fn restrict(folders: &[BorrowedFd<'_>]) -> Result<Held, SandboxError> {
    let mut tries = 0..TRIES;
    loop {
        let error = match try_to_restrict(folders) {
            Ok(()) => return Ok(Held::AsFarAsPossible),
            Err(error) => error,
        };
        match (errno_of(&error), &error) {
            (Some(libc::EPERM | libc::E2BIG | libc::ENOSYS), SandboxError::Landlock(_)) => {
                return Ok(Held::Refused);
            }
            // A folder of a network, which is looked at. Nothing is restricted before the last call.
            (Some(libc::EINTR), _) if tries.next().is_some() => {}
            _ => return Err(error),
        }
    }
}

/// The system's error number behind `error`.
fn errno_of(error: &SandboxError) -> Option<i32> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        let system = error.downcast_ref::<io::Error>();
        if let Some(number) = system.and_then(io::Error::raw_os_error) {
            return Some(number);
        }
        next = error.source();
    }
    None
}

fn try_to_restrict(folders: &[BorrowedFd<'_>]) -> Result<(), SandboxError> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI_VERSION))?
        .handle_access(AccessNet::from_all(ABI_VERSION))?
        .scope(Scope::from_all(ABI_VERSION))?
        .create()?;
    for folder in folders {
        // A link or a rename makes an entry, and replacing one removes the old. What is linked out of
        // /proc/self/fd was made in the same folder, and counts as lying there whether it has a name or
        // not, so that nothing has to move between folders (`Refer`).
        let place = make_bitflags!(AccessFs::{MakeReg | RemoveFile});
        let added = ruleset.add_rule(PathBeneath::new(folder, place));
        ruleset = added.map_err(|error| of_folder(*folder, error))?;
    }
    // How much of it the kernel can enforce is its own affair.
    ruleset.restrict_self()?;
    Ok(())
}

/// The folder is looked at before its rule is made: what its file system answers is nothing of Landlock's.
fn of_folder(folder: BorrowedFd<'_>, error: RulesetError) -> SandboxError {
    match error {
        RulesetError::AddRules(AddRulesError::Fs(AddRuleError::Compat(
            CompatError::PathBeneath(PathBeneathError::StatCall { source, .. }),
        ))) => SandboxError::Folder {
            folder: path_of(folder),
            source,
        },
        error => error.into(),
    }
}

/// The path of an open folder, as the system knows it.
fn path_of(folder: BorrowedFd<'_>) -> PathBuf {
    let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
    read_link(&path).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::print_stderr)]

    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;
    use crate::sandbox::Support;

    #[test]
    fn what_a_folder_answers_is_not_said_of_landlock() {
        if !Support::of_this_kernel().gives_landlock {
            eprintln!("skipped: there is no Landlock here");
            return;
        }
        // The working directory is no open file, so that a look at it fails.
        let restricted = std::thread::spawn(|| restrict(&[rustix::fs::CWD]));
        let error = restricted.join().unwrap().unwrap_err();
        let expected = "cannot look at the folder /proc/self/fd/-100: Bad file descriptor; check its \
                        file system (dmesg)";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_folder_is_told_by_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let open = File::open(folder.path()).unwrap();
        assert_eq!(path_of(open.as_fd()), folder.path());
    }
}
