//! Opens `/dev/kvm`, checks what this VMM needs of it (KVM API, sections 4.1 and 4.4), and where
//! that fails says which of the usual reasons it is.

mod surroundings;

use std::ffi::CStr;
use std::fs::FileType;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use kvm_ioctls::{Cap, Kvm};
use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::repeat::capability;
use crate::reason::reason;
use crate::repeat::interrupted;
pub use surroundings::Surroundings;

const DEVICE: &CStr = c"/dev/kvm";
/// The only version of the API there has been since Linux 2.6.22.
const API_VERSION: i32 = 12;

/// What the VMM cannot do without.
const NEEDED: [(Cap, &str); 2] = [
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
];
/// What makes it faster. Without them each access leaves for user space.
const USEFUL: [(Cap, &str); 3] = [
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::CoalescedMmio, "KVM_CAP_COALESCED_MMIO"),
    (Cap::CoalescedPio, "KVM_CAP_COALESCED_PIO"),
];

/// Why KVM cannot be used; each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// No KVM on this host, or none that is shown to this process.
    #[error("cannot open /dev/kvm: it does not exist; {}", .0.why_missing())]
    Missing(Surroundings),
    /// There is a device file, and no driver behind it.
    #[error("cannot open /dev/kvm: no driver answers behind it; {}", .0.why_no_driver())]
    NoDriver(Surroundings),
    /// No permission, although those of the file allow it or since they do not.
    #[error("cannot open /dev/kvm: permission denied; {}", .0.why_no_permission(*.1))]
    Permission(Surroundings, bool),
    /// A file of that name that is something else.
    #[error(
        "/dev/kvm is not KVM but {0}; remove it and let udev make it again (udevadm trigger \
         /dev/kvm), or make it with: mknod /dev/kvm c 10 232"
    )]
    NotKvm(&'static str),
    /// Something else.
    #[error("cannot open /dev/kvm: {}{}", reason(.0), hint(.0))]
    Open(kvm_ioctls::Error),
    /// It does not say what it is or can do.
    #[error("cannot ask /dev/kvm what it can do: {}{}", reason(.0), hint(.0))]
    Ask(kvm_ioctls::Error),
    /// Not the KVM that the kernel has had for years.
    #[error("/dev/kvm speaks version {0} of the KVM API; version {API_VERSION} is needed")]
    Version(i32),
    /// The host's KVM lacks something that cannot be done without.
    #[error("the host's KVM lacks {0}; a newer kernel is needed")]
    Capability(&'static str),
}

fn hint(error: &kvm_ioctls::Error) -> &'static str {
    super::repeat::hint(*error)
}

/// Opens KVM.
///
/// # Errors
///
/// Why it cannot be opened, or the name of a capability that it lacks. What can be done without
/// (ioeventfd, coalesced writes) is not asked for here.
pub fn open() -> Result<Kvm, KvmError> {
    open_at(DEVICE)
}

fn open_at(path: &CStr) -> Result<Kvm, KvmError> {
    let kvm = interrupted(|| Kvm::new_with_path(path)).map_err(|error| match error.errno() {
        libc::ENOENT => KvmError::Missing(Surroundings::of_this_host()),
        libc::ENODEV | libc::ENXIO => KvmError::NoDriver(Surroundings::of_this_host()),
        libc::EACCES | libc::EPERM => {
            // A control group without the device says EPERM, and permissions say EACCES.
            let allows = error.errno() == libc::EPERM || may_open(path);
            KvmError::Permission(Surroundings::of_this_host(), allows)
        }
        libc::EISDIR => KvmError::NotKvm("a folder"),
        _ => KvmError::Open(error),
    })?;
    match capability(|| kvm.get_api_version()) {
        Ok(API_VERSION) => {}
        Ok(version) => return Err(KvmError::Version(version)),
        // The request is unknown to whatever file that is.
        Err(error) if matches!(error.errno(), libc::ENOTTY | libc::EINVAL) => {
            return Err(KvmError::NotKvm(kind(path)));
        }
        Err(error) => return Err(KvmError::Ask(error)),
    }
    for (cap, name) in NEEDED {
        if capability(|| kvm.check_extension_int(cap)).map_err(KvmError::Ask)? == 0 {
            return Err(KvmError::Capability(name));
        }
    }
    Ok(kvm)
}

/// Whether the permissions of the file at `path` allow this process to open it.
fn may_open(path: &CStr) -> bool {
    let wanted = Access::READ_OK | Access::WRITE_OK;
    accessat(CWD, path, wanted, AtFlags::EACCESS).is_ok()
}

/// What kind of file `path` names, for a person.
fn kind(path: &CStr) -> &'static str {
    let kind = path.to_str().map(Path::new).map(Path::metadata);
    let is = |what: fn(&FileType) -> bool| matches!(&kind, Ok(Ok(file)) if what(&file.file_type()));
    if is(FileType::is_file) {
        "a regular file"
    } else if is(FileTypeExt::is_char_device) {
        "another character device"
    } else if is(FileTypeExt::is_block_device) {
        "a block device"
    } else if is(FileTypeExt::is_fifo) {
        "a FIFO"
    } else {
        "a file of another kind"
    }
}

/// How much a [`Finding`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It is there.
    Good,
    /// It is missing, and guests run more slowly for it.
    Slower,
    /// It is missing, and no guest runs without it.
    Fatal,
}

/// One thing that was looked at, for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at: a path or the name of a capability.
    pub what: &'static str,
    /// Whether it will do.
    pub severity: Severity,
    /// What was found, and what to do if it will not do; one line.
    pub text: String,
}

/// Looks at all that the VMM wants of KVM, and changes nothing. The first finding is about the
/// device itself; if that one is fatal, it is the only one.
#[must_use]
pub fn diagnose() -> Vec<Finding> {
    diagnose_at(DEVICE)
}

fn diagnose_at(path: &CStr) -> Vec<Finding> {
    let finding = |severity, text| Finding {
        what: "/dev/kvm",
        severity,
        text,
    };
    let kvm = match open_at(path) {
        Ok(kvm) => kvm,
        Err(error) => return vec![finding(Severity::Fatal, error.to_string())],
    };
    let module = surroundings::loaded_module().unwrap_or("built into the kernel");
    let opened = format!("version {API_VERSION} of the API ({module})");
    let mut findings = vec![finding(Severity::Good, opened)];
    if let Err(error) = interrupted(|| kvm.create_vm()) {
        let (reason, hint) = (reason(error), super::repeat::hint(error));
        let text = format!("it makes no virtual machine: {reason}{hint}");
        findings.push(finding(Severity::Fatal, text));
    }
    findings.extend(NEEDED.iter().map(|(_, what)| Finding {
        what,
        severity: Severity::Good,
        text: "present".to_owned(),
    }));
    findings.extend(USEFUL.iter().map(|(cap, what)| {
        let offered = capability(|| kvm.check_extension_int(*cap));
        let (severity, text) = if offered.is_ok_and(|answer| answer > 0) {
            (Severity::Good, "present")
        } else {
            (Severity::Slower, "missing: guests run, but more slowly")
        };
        Finding {
            what,
            severity,
            text: text.to_owned(),
        }
    }));
    findings
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    fn c_path(path: &Path) -> CString {
        CString::new(path.as_os_str().as_bytes()).unwrap()
    }

    #[test]
    fn a_file_that_is_not_kvm_is_told_by_its_kind() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kvm");
        std::fs::write(&file, b"").unwrap();
        for (path, kind) in [
            (file.as_path(), "a regular file"),
            (folder.path(), "a folder"),
            (Path::new("/dev/null"), "another character device"),
        ] {
            let error = open_at(&c_path(path)).err().unwrap();
            assert!(matches!(error, KvmError::NotKvm(told) if told == kind));
            assert!(error.to_string().contains("mknod /dev/kvm c 10 232"));
        }
    }

    #[test]
    fn another_hypervisor_in_the_way_is_told_of() {
        let busy = kvm_ioctls::Error::new(libc::EBUSY);
        let told = KvmError::Open(busy).to_string();
        assert!(told.contains("another hypervisor"), "{told}");
    }

    #[test]
    fn a_device_that_is_missing_is_one_fatal_finding_that_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let findings = diagnose_at(&c_path(&folder.path().join("kvm")));
        let [finding] = findings.as_slice() else {
            unreachable!("one finding: {findings:?}")
        };
        assert_eq!(finding.severity, Severity::Fatal);
        let expected = "cannot open /dev/kvm: it does not exist; ";
        assert!(finding.text.starts_with(expected), "{}", finding.text);
        assert!(finding.text.len() > expected.len() + 20);
    }
}
