//! Landlock (landlock(7)): no file can be opened, created or removed any more, but for giving the
//! output its name in its folder; no socket can be bound or connected.

use std::error::Error;
use std::io;
use std::os::fd::BorrowedFd;

use ::landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope, make_bitflags,
};

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
pub(super) fn restrict(folders: &[BorrowedFd<'_>]) -> Result<Held, RulesetError> {
    let mut tries = 0..TRIES;
    loop {
        let error = match try_to_restrict(folders) {
            Ok(()) => return Ok(Held::AsFarAsPossible),
            Err(error) => error,
        };
        match errno_of(&error) {
            Some(libc::EPERM | libc::E2BIG | libc::ENOSYS) => return Ok(Held::Refused),
            // A folder of a network, which is looked at. Nothing is restricted before the last call.
            Some(libc::EINTR) if tries.next().is_some() => {}
            _ => return Err(error),
        }
    }
}

/// The system's error number behind `error`.
fn errno_of(error: &RulesetError) -> Option<i32> {
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

fn try_to_restrict(folders: &[BorrowedFd<'_>]) -> Result<(), RulesetError> {
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
        ruleset = ruleset.add_rule(PathBeneath::new(folder, place))?;
    }
    // How much of it the kernel can enforce is its own affair.
    ruleset.restrict_self()?;
    Ok(())
}
