//! Names what a measurement ran on: processor, memory, kernel, file system, and which KVM.

use std::fs;
use std::path::Path;
use std::process::Command;

/// The machine as Markdown list items, one a line.
pub(crate) fn describe(folder: &Path, vmm: &Path) -> String {
    let facts = [
        ("Processor", processor()),
        ("Memory", memory()),
        ("Free memory goes back to the host", page_reporting()),
        ("Kernel", read("/proc/sys/kernel/osrelease")),
        ("KVM", kvm()),
        ("This machine itself", hypervisor()),
        ("File system", file_system(folder)),
        ("VMM", version(vmm, &["--version"])),
        (
            "Commit",
            version("git", &["describe", "--always", "--dirty"]),
        ),
        ("cp and dd", version("cp", &["--version"])),
        ("qemu-img", version("qemu-img", &["--version"])),
        ("Load average before", read("/proc/loadavg")),
        ("Date", version("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
    ];
    facts
        .into_iter()
        .map(|(name, value)| {
            let value = value.unwrap_or_else(|| "unknown".to_owned());
            format!("- {name}: {value}\n")
        })
        .collect()
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path)
        .ok()
        .map(|text| text.trim().to_owned())
}

/// The first line that a command prints.
fn version(command: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Option<String> {
    let output = Command::new(command).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().next().map(str::to_owned)
}

fn processor() -> Option<String> {
    let text = read("/proc/cpuinfo")?;
    let cores = text
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let field = |name| value_of(&text, name);
    let model = field("model name")?;
    let number = field("model").unwrap_or_default();
    Some(format!("{model} (model {number}), {cores} cores"))
}

/// The value of the first line `name : value`.
pub(crate) fn value_of<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

fn memory() -> Option<String> {
    let text = read("/proc/meminfo")?;
    let kib: f64 = value_of(&text, "MemTotal")?
        .trim_end_matches(" kB")
        .parse()
        .ok()?;
    Some(format!("{:.1} GiB", kib / f64::from(1 << 20)))
}

/// Whether a virtual machine's kernel tells its host which memory is free (free page reporting): to
/// get that again takes many times as long as to use it. The largest order of pages is 10, and so
/// none is told from 11 on.
fn page_reporting() -> Option<String> {
    let order = read("/sys/module/page_reporting/parameters/page_reporting_order");
    let is_off = order.is_none_or(|order| order.parse::<u8>().is_ok_and(|order| order > 10));
    Some(if is_off { "no" } else { "yes" }.to_owned())
}

/// Which of the kernel's KVM back ends is there; without the module folder it is not known.
fn kvm() -> Option<String> {
    let kinds = [
        ("kvm_intel", "VMX"),
        ("kvm_amd", "SVM"),
        ("kvm_pvm", "a software one, no VMX or SVM underneath"),
    ];
    kinds
        .into_iter()
        .find(|(module, _)| Path::new("/sys/module").join(module).exists())
        .map(|(module, meaning)| format!("`{module}` ({meaning})"))
}

fn hypervisor() -> Option<String> {
    let output = Command::new("lscpu").env("LC_ALL", "C").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(match value_of(&text, "Hypervisor vendor") {
        Some(vendor) => format!("a virtual machine ({vendor})"),
        None => "bare metal".to_owned(),
    })
}

fn file_system(folder: &Path) -> Option<String> {
    let folder = folder.canonicalize().ok()?;
    let mounts = read("/proc/self/mounts")?;
    file_system_of(&mounts, &folder)
}

/// The type of the file system that `folder` is on, by the list of mounts.
pub(crate) fn file_system_of(mounts: &str, folder: &Path) -> Option<String> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?))
    });
    mounts
        .filter(|(point, _)| folder.starts_with(point))
        // Of two mounts on one point the later one is seen.
        .max_by_key(|(point, _)| point.len())
        .map(|(_, kind)| kind.to_owned())
}
