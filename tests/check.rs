//! `vmm --check`, on this host and on the same host without KVM; and the tests themselves, which
//! say what did not run there.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::process::binary;
use common::{Vmm, needs_kvm, skip, test};
use rustix::process::Resource;
use serde_json::Value;

fn main() -> std::process::ExitCode {
    common::harness::main()
}

/// A KVM-less host, as far as `program` sees it. `None` where that cannot be made, which is said.
fn without_kvm(program: &Path, arguments: &[&str], ci: &str) -> Option<Output> {
    let hidden = |program: &Path, arguments: &[&str]| {
        let mut command = Command::new("unshare");
        let script = r#"mount --bind /dev/null /dev/kvm && exec "$0" "$@""#;
        if !common::is_root() {
            // As root in a namespace of its own.
            command.arg("--map-root-user");
        }
        command.args(["--mount", "sh", "-c", script]);
        // What such a host leaves out is not left out by this run of the tests.
        command.env("CI", ci).env_remove("TESTS_IGNORED");
        command.arg(program).args(arguments).output()
    };
    match hidden("true".as_ref(), &[]) {
        Ok(output) if output.status.success() => Some(hidden(program, arguments).unwrap()),
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            skip(&format!("/dev/kvm cannot be hidden: {}", why.trim()));
            None
        }
        Err(error) => {
            skip(&format!("cannot run unshare: {error}"));
            None
        }
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_host_where_a_copy_runs_passes_and_a_guest_has_been_booted() {
    needs_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let check = Vmm::bare().arg("--check").arg(folder.path()).succeed();
    assert_eq!(check.stderr, "");
    for part in [
        "ok       /dev/kvm: version 12",
        "ok       KVM_CAP_USER_MEMORY: ",
        "ok       KVM_CAP_EXT_CPUID: ",
        "KVM_CAP_IOEVENTFD: ",
        "KVM_CAP_COALESCED_MMIO: ",
        "KVM_CAP_COALESCED_PIO: ",
        "access to /dev/kvm: ",
        "Landlock: ",
        "seccomp: ",
        "(O_TMPFILE)",
        "--direct",
        "ok       guest: booted in the sandbox",
    ] {
        assert!(check.stdout.contains(part), "{part:?} in {check:?}");
    }
    assert_eq!(check.lines().last(), Some(&"A copy would run here."));
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}

#[test]
fn a_program_gets_the_same_as_objects() {
    needs_kvm!();
    let check = Vmm::bare().args(&["--check", "--format=json"]).succeed();
    let objects: Vec<Value> = check
        .lines()
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (last, findings) = objects.split_last().unwrap();
    assert_eq!(
        *last,
        serde_json::json!({"type": "host_check", "would_run": true, "status": 0})
    );
    assert!(findings.len() > 8);
    for finding in findings {
        assert_eq!(finding["type"], "finding");
        let state = finding["state"].as_str().unwrap();
        assert!(["ok", "slower", "weaker"].contains(&state), "{finding}");
    }
}

#[test]
fn a_program_is_told_that_nothing_was_looked_at() {
    let check = Vmm::bare().args(&["--check", "--format=json"]);
    let check = check.with_limit(Resource::As, 20 << 20).run();
    assert_eq!(check.code(), Some(3), "{check:?}");
    assert!(check.stderr.contains("ulimit -v"), "{check:?}");
    let object = "{\"type\":\"host_check\",\"would_run\":false,\"status\":3}\n";
    assert_eq!(check.stdout, object, "{check:?}");
}

#[test]
fn a_folder_that_takes_no_copy_is_missing() {
    for folder in ["/proc", "/no such folder", "/dev/null"] {
        let check = Vmm::bare().args(&["--check", folder]).run();
        assert_eq!(check.code(), Some(3), "{check:?}");
        let missing = format!("missing  folder {folder}: ");
        let told = check.lines().iter().any(|line| line.starts_with(&missing));
        assert!(told, "{missing:?} in {check:?}");
    }
}

#[test]
fn a_folder_in_which_not_one_byte_can_be_written_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let check = Vmm::bare().arg("--check").arg(folder.path());
    let check = check.with_file_size_limit(0).run();
    assert_eq!(check.code(), Some(3), "{check:?}");
    assert!(
        check.stdout.contains("cannot write the output"),
        "{check:?}"
    );
    assert!(check.stdout.contains("ulimit -f"), "{check:?}");
}

#[test]
fn a_host_without_kvm_is_told_so_with_what_to_do() {
    let Some(output) = without_kvm(&binary(), &["--check", "/tmp"], "false") else {
        return;
    };
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let said = text(&output.stdout);
    assert!(said.contains("missing  /dev/kvm: "), "{said}");
    assert!(said.contains("mknod /dev/kvm c 10 232"), "{said}");
    assert!(said.contains("missing  guest: not booted"), "{said}");
    assert!(said.contains("docs/troubleshooting.md"), "{said}");
}

#[test]
fn a_device_file_that_something_else_than_its_permissions_forbids_is_told_as_that() {
    needs_kvm!();
    if !common::is_root() {
        return skip("only root can make a device file");
    }
    let folder = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs -o nodev none "$1" && mknod -m 666 "$1/kvm" c 10 232 &&
        mount --bind "$1/kvm" /dev/kvm && exec "$0" --check /tmp"#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]);
    command.arg(binary()).arg(folder.path());
    let output = command.env_remove("container").output().unwrap();
    let said = text(&output.stdout);
    if !said.contains("missing  /dev/kvm: ") {
        let why = text(&output.stderr).trim();
        return skip(&format!("no file system can be mounted nodev: {why}"));
    }
    // In a container there is other advice, which is right as well.
    let told = said.contains("mounted nodev") || said.contains("this is a container");
    assert!(told && !said.contains("group kvm?"), "{said}");
}

/// Runs one test of this very program on a host without KVM.
fn own_test(ci: &str) -> Option<Output> {
    let name = "a_program_gets_the_same_as_objects";
    let own = std::env::current_exe().unwrap();
    without_kvm(&own, &["--exact", name], ci)
}

#[test]
fn a_test_without_kvm_is_counted_as_ignored_and_not_as_passed() {
    if let Some(output) = own_test("false") {
        assert!(output.status.success(), "{output:?}");
        let said = text(&output.stdout);
        assert!(said.contains("0 passed; 0 failed; 1 ignored"), "{said}");
        assert!(said.contains("/dev/kvm is not KVM"), "{said}");
    }
}

#[test]
fn a_test_without_kvm_fails_where_everything_is_to_be_tested() {
    if let Some(output) = own_test("true") {
        assert!(!output.status.success(), "{output:?}");
        let said = text(&output.stdout);
        assert!(said.contains("0 passed; 1 failed; 0 ignored"), "{said}");
    }
}
