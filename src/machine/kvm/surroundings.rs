//! Where this process runs, as far as it explains a missing KVM: a container, a virtual machine,
//! WSL, or a host whose processor or firmware does not offer virtualisation.

use std::fs;
use std::path::Path;

/// What is known of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Intel's virtualisation is offered by the processor.
    pub vmx: bool,
    /// AMD's virtualisation is offered by the processor.
    pub svm: bool,
    /// The processor is one of a virtual machine.
    pub virtual_machine: bool,
    /// The process is in a container of the usual kinds.
    pub container: bool,
    /// The kernel is that of the Windows Subsystem for Linux.
    pub wsl: bool,
}

impl Surroundings {
    /// Looks at this host. What cannot be read counts as not there.
    #[must_use]
    pub fn of_this_host() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self::from(
            &read("/proc/cpuinfo"),
            &read("/proc/sys/kernel/osrelease"),
            ["/.dockerenv", "/run/.containerenv"]
                .iter()
                .any(|mark| Path::new(mark).exists())
                || std::env::var_os("container").is_some()
                || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some(),
        )
    }

    fn from(cpuinfo: &str, kernel: &str, container: bool) -> Self {
        let flags = cpuinfo.lines().find(|line| line.starts_with("flags"));
        let has = |flag| flags.is_some_and(|line| line.split_whitespace().any(|is| is == flag));
        Self {
            vmx: has("vmx"),
            svm: has("svm"),
            virtual_machine: has("hypervisor"),
            container,
            wsl: kernel.to_lowercase().contains("microsoft"),
        }
    }

    /// Why there is no `/dev/kvm`, and what to do.
    pub(super) const fn why_missing(self) -> &'static str {
        if self.wsl {
            return "this is WSL: it takes WSL 2 on Windows 11, with nestedVirtualization=true \
                    under [wsl2] in .wslconfig";
        }
        if self.container {
            return "this is a container: start it with --device /dev/kvm, on a host that has it";
        }
        self.why_no_driver()
    }

    /// Why no driver has made itself known, and what to do.
    pub(super) const fn why_no_driver(self) -> &'static str {
        match self {
            Self { vmx: true, .. } => {
                "the processor can virtualise: load the module with: sudo modprobe kvm_intel \
                 (if that fails, enable VT-x in the firmware)"
            }
            Self { svm: true, .. } => {
                "the processor can virtualise: load the module with: sudo modprobe kvm_amd \
                 (if that fails, enable SVM in the firmware)"
            }
            Self {
                virtual_machine: true,
                ..
            } => {
                "this is a virtual machine without nested virtualisation: enable that at its \
                 host, or use a cloud instance that has it (or bare metal)"
            }
            _ => {
                "the processor offers no virtualisation: enable VT-x or SVM in the firmware, if \
                 it has them"
            }
        }
    }

    /// Why this process may not open it, and what to do. `allows` says whether the permissions of the
    /// file allow it.
    pub(super) const fn why_no_permission(self, allows: bool) -> &'static str {
        if self.container {
            return "this is a container: start it with --device /dev/kvm, and with --group-add \
                    and the number of the host's group kvm if its user is not root";
        }
        if allows {
            return "the permissions of the file allow it, so something else forbids it: a file \
                    system that is mounted nodev, a control group without the device, or a \
                    security module";
        }
        "is your user in the group kvm? (try: sudo usermod -aG kvm $USER, then log in again)"
    }
}

/// The kernel module that is behind `/dev/kvm`, if it is not built into the kernel.
pub(super) fn loaded_module() -> Option<&'static str> {
    ["kvm_intel", "kvm_amd", "kvm_pvm"]
        .into_iter()
        .find(|module| Path::new("/sys/module").join(module).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTEL: &str = "processor\t: 0\nflags\t\t: fpu vmx de\nvmx flags\t: ept\n";
    const GUEST: &str = "processor\t: 0\nflags\t\t: fpu hypervisor de\n";
    const LINUX: &str = "6.12.0-amd64";

    #[test]
    fn each_of_the_usual_reasons_has_its_own_advice() {
        let amd = INTEL.replace(" vmx de", " svm de");
        let nested = INTEL.replace(" vmx de", " vmx hypervisor");
        let wsl = "5.15.90.1-microsoft-standard-WSL2";
        for (cpuinfo, kernel, container, what) in [
            (INTEL, LINUX, false, "modprobe kvm_intel"),
            (&amd, LINUX, false, "modprobe kvm_amd"),
            (&nested, LINUX, false, "modprobe kvm_intel"),
            (GUEST, LINUX, false, "without nested virtualisation"),
            ("", LINUX, false, "offers no virtualisation"),
            (INTEL, LINUX, true, "--device /dev/kvm"),
            (GUEST, wsl, false, "nestedVirtualization=true"),
        ] {
            let surroundings = Surroundings::from(cpuinfo, kernel, container);
            let told = surroundings.why_missing();
            assert!(told.contains(what), "{surroundings:?}: {told}");
        }
    }

    #[test]
    fn permission_is_a_matter_of_the_group_or_of_the_container_or_of_neither() {
        let host = Surroundings::from(INTEL, LINUX, false);
        assert!(host.why_no_permission(false).contains("group kvm?"));
        assert!(host.why_no_permission(true).contains("nodev"));
        let container = Surroundings::from(INTEL, LINUX, true);
        for allows in [false, true] {
            let told = container.why_no_permission(allows);
            assert!(told.contains("--device /dev/kvm"));
        }
    }
}
