//! What the host offers: KVM and who may use it, what the sandbox is made of, and the file system
//! of a folder. Each finding says what to do where something is not as it should be.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Finding, State};
use crate::files::{WhyNamed, probe_folder};
use crate::machine;
use crate::quote::quote_path;
use crate::sandbox::Support;

const DEVICE: &str = "/dev/kvm";
/// From this version on Landlock denies all that the sandbox asks it to deny.
const LANDLOCK_COMPLETE: u32 = 6;

/// KVM, and whether it takes root.
pub(super) fn kvm() -> Vec<Finding> {
    let mut findings: Vec<Finding> = machine::diagnose_kvm()
        .into_iter()
        .map(From::from)
        .collect();
    let usable = findings.iter().all(|found| found.state != State::Missing);
    if let (true, Ok(device)) = (usable, fs::metadata(DEVICE)) {
        let groups = fs::read_to_string("/etc/group").unwrap_or_default();
        findings.push(access(&device, &groups));
    }
    findings
}

/// Who may use the device, as its mode says.
fn access(device: &Metadata, groups: &str) -> Finding {
    const READ_WRITE: u32 = 0o6;
    let mode = device.mode() & 0o777;
    let group = group_name(groups, device.gid());
    let (state, text) = if mode & READ_WRITE == READ_WRITE {
        (State::Ok, "every user may use it".to_owned())
    } else if mode >> 3 & READ_WRITE == READ_WRITE && device.gid() != 0 {
        (
            State::Ok,
            format!(
                "root and the group {group} may use it (to add a user: sudo usermod -aG {group} NAME)"
            ),
        )
    } else {
        let advice = "only root may use it, and a copy needs no root: sudo chgrp kvm /dev/kvm && \
                      sudo chmod 660 /dev/kvm, and put users into the group kvm";
        (State::Weaker, advice.to_owned())
    };
    Finding::new("access to /dev/kvm", state, text)
}

/// The name of a group in the lines of group(5), or else its number.
fn group_name(groups: &str, id: u32) -> String {
    let name = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then_some(name)
    });
    name.map_or_else(|| id.to_string(), str::to_owned)
}

/// What the sandbox is made of.
pub(super) fn sandbox() -> Vec<Finding> {
    let support = Support::of_this_kernel();
    let landlock = landlock_finding(support.landlock, support.gives_landlock);
    vec![landlock, seccomp_finding(support.seccomp)]
}

fn landlock_finding(version: Option<u32>, is_given: bool) -> Finding {
    let (state, text) = match version {
        Some(version) if !is_given => (
            State::Weaker,
            format!(
                "there is version {version}, and this process is not given it, as by a container's \
                 filter or because it lies in 16 restrictions already: seccomp confines alone"
            ),
        ),
        Some(version) if version >= LANDLOCK_COMPLETE => (State::Ok, format!("version {version}")),
        Some(version) => (
            State::Weaker,
            format!(
                "version {version}; version {LANDLOCK_COMPLETE}, of Linux 6.12, protects against more"
            ),
        ),
        None => (
            State::Weaker,
            "this kernel has none, or it is off: seccomp confines alone; it takes Linux 5.13 and \
             landlock among the lsm= of the kernel's command line"
                .to_owned(),
        ),
    };
    Finding::new("Landlock", state, text)
}

fn seccomp_finding(available: bool) -> Finding {
    let (state, text) = if available {
        (State::Ok, "system calls can be filtered")
    } else {
        (
            State::Missing,
            "system calls cannot be filtered: it takes a kernel with CONFIG_SECCOMP_FILTER, or a \
             container that allows seccomp(2); --no-sandbox copies without",
        )
    };
    Finding::new("seccomp", state, text)
}

/// What the file system of `folder` can do for an output there.
pub(super) fn folder(folder: &Path) -> Vec<Finding> {
    let name = format!("folder {}", quote_path(folder));
    let probe = match probe_folder(folder) {
        Ok(probe) => probe,
        Err(error) => {
            return vec![Finding::new(name, State::Missing, error.to_string())];
        }
    };
    let unnamed = match probe.why_named {
        None => (
            State::Ok,
            "a killed copy leaves nothing there (O_TMPFILE)".to_owned(),
        ),
        Some(why) => {
            let remedy = match why {
                WhyNamed::FileSystem => "choose ext4, XFS, Btrfs or tmpfs",
                WhyNamed::NoProc => "mount /proc",
                WhyNamed::NoRoom => "make room there",
            };
            let text = format!(
                "{why}: a killed copy leaves a file .vmm-*.tmp there; {remedy} if that matters"
            );
            (State::Weaker, text)
        }
    };
    let direct = match probe.not_direct {
        None => (
            State::Ok,
            "--direct bypasses the page cache there".to_owned(),
        ),
        Some(reason) => {
            let text = format!("--direct makes no difference there: {reason}");
            (State::Slower, text)
        }
    };
    [unnamed, direct]
        .into_iter()
        .map(|(state, text)| Finding::new(name.clone(), state, text))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_group_is_told_by_its_name_or_else_by_its_number() {
        let groups = "root:x:0:\nkvm:x:107:me,you\nkvm2:x:1070:\n";
        assert_eq!(group_name(groups, 107), "kvm");
        assert_eq!(group_name(groups, 7), "7");
        assert_eq!(group_name("", 0), "0");
    }

    #[test]
    fn a_device_that_only_root_may_use_comes_with_advice() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let of_mode = |mode| {
            fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
            access(&file.path().metadata().unwrap(), "")
        };
        let found = of_mode(0o600);
        assert_eq!(found.state, State::Weaker);
        assert!(found.text.contains("chmod 660"), "{found:?}");
        assert_eq!(of_mode(0o666).state, State::Ok);
    }

    #[test]
    fn what_a_kernel_lacks_for_the_sandbox_says_what_it_takes() {
        let complete = Some(LANDLOCK_COMPLETE);
        assert_eq!(landlock_finding(complete, true).state, State::Ok);
        for (version, is_given, says) in [
            (Some(1), true, "Linux "),
            (None, false, "Linux "),
            (complete, false, "seccomp confines alone"),
        ] {
            let found = landlock_finding(version, is_given);
            assert_eq!(found.state, State::Weaker);
            assert!(found.text.contains(says), "{found:?}");
        }
        let found = seccomp_finding(false);
        assert_eq!(found.state, State::Missing);
        assert!(found.text.contains("--no-sandbox"), "{found:?}");
    }

    #[test]
    fn a_folder_that_takes_no_file_is_missing_and_one_that_does_is_not() {
        let temporary = tempfile::tempdir().unwrap();
        let states = |path: &Path| folder(path).into_iter().map(|found| found.state).collect();
        let found: Vec<State> = states(temporary.path());
        assert_eq!(found.len(), 2);
        assert!(!found.contains(&State::Missing));
        let found: Vec<State> = states(Path::new("/proc"));
        assert_eq!(found, [State::Missing]);
    }
}
