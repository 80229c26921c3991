//! Landlock (landlock(7)): no file can be opened, created or removed any more, but for giving the
//! output its name in its folder; no socket can be bound or connected.

use std::os::fd::BorrowedFd;

use ::landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope, make_bitflags,
};

/// The rights of this ABI are denied; a kernel that knows fewer denies those.
const ABI_VERSION: ABI = ABI::V6;

/// Restricts this thread and all that it starts later.
pub(super) fn restrict<'a>(
    folders: impl IntoIterator<Item = BorrowedFd<'a>>,
) -> Result<(), RulesetError> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI_VERSION))?
        .handle_access(AccessNet::from_all(ABI_VERSION))?
        .scope(Scope::from_all(ABI_VERSION))?
        .create()?;
    for folder in folders {
        // A link or a rename makes an entry, and replacing one removes the old. `Refer` is for the
        // link out of /proc/self/fd, which counts as another folder.
        let place = make_bitflags!(AccessFs::{MakeReg | RemoveFile | Refer});
        ruleset = ruleset.add_rule(PathBeneath::new(folder, place))?;
    }
    // How much of it the kernel can enforce is its own affair: seccomp forbids the calls as well.
    ruleset.restrict_self()?;
    Ok(())
}
