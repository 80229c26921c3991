//! Opens `/dev/kvm` and checks what this VMM needs of it (KVM API, sections 4.1 and 4.4).

use std::io;

use kvm_ioctls::{Cap, Kvm};

const DEVICE: &str = "/dev/kvm";
/// The only version of the API there has been since Linux 2.6.22.
const API_VERSION: i32 = 12;

/// Why KVM cannot be used; each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// No KVM on this host.
    #[error(
        "cannot open {DEVICE}: it does not exist (is virtualisation enabled in the firmware, and \
         is the module kvm_intel or kvm_amd loaded?)"
    )]
    Missing,
    /// No permission.
    #[error(
        "cannot open {DEVICE}: permission denied (is your user in the group kvm? try: sudo \
         usermod -aG kvm $USER, then log in again)"
    )]
    Permission,
    /// Something else.
    #[error("cannot open {DEVICE}: {0}")]
    Open(io::Error),
    /// Not the KVM that the kernel has had for years.
    #[error("{DEVICE} speaks version {0} of the KVM API; version {API_VERSION} is needed")]
    Version(i32),
    /// The host's KVM lacks something that cannot be done without.
    #[error("the host's KVM lacks {0}; a newer kernel is needed")]
    Capability(&'static str),
}

/// Opens KVM.
///
/// # Errors
///
/// Why it cannot be opened, or the name of a capability that it lacks. What can be done without
/// (ioeventfd, coalesced writes) is not asked for here.
pub fn open() -> Result<Kvm, KvmError> {
    let kvm = Kvm::new().map_err(|error| match error.errno() {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => KvmError::Missing,
        libc::EACCES | libc::EPERM => KvmError::Permission,
        errno => KvmError::Open(io::Error::from_raw_os_error(errno)),
    })?;
    let version = kvm.get_api_version();
    if version != API_VERSION {
        return Err(KvmError::Version(version));
    }
    for (capability, name) in [
        (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
        (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    ] {
        if !kvm.check_extension(capability) {
            return Err(KvmError::Capability(name));
        }
    }
    Ok(kvm)
}
