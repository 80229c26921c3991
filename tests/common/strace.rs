//! The VMM under strace(1), which writes down its system calls and makes some of them fail.

use super::process::{Finished, Vmm};
use super::skip;

/// Ends the test here, as ignored, where strace does not work.
macro_rules! needs_strace {
    () => {
        if !$crate::common::strace::is_usable() {
            return;
        }
    };
}
pub(crate) use needs_strace;

/// Whether strace works here. If not, the current test is counted as ignored.
pub(crate) fn is_usable() -> bool {
    let traced = std::process::Command::new("strace")
        .args(["-f", "-Y", "-e", "raw=all", "-o", "/dev/null", "true"])
        .output();
    match traced {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            skip(&format!("strace does not work here: {output:?}"));
            false
        }
        Err(error) => {
            skip(&format!("strace cannot be started: {error}"));
            false
        }
    }
}

/// Runs `vmm` under strace with these options, and returns what that has written down as well. The sandbox
/// sees a call that strace answers as a forbidden one: it has to be off where such a call comes behind it.
#[track_caller]
pub(crate) fn traced(vmm: Vmm, options: &[&str]) -> (Finished, String) {
    let log = tempfile::NamedTempFile::new().unwrap();
    let finished = vmm.traced(log.path(), options).run();
    (finished, std::fs::read_to_string(log.path()).unwrap())
}

/// Runs `vmm` while strace does to its calls what `fault` says (strace(1), `inject`), and returns how often
/// it did so.
#[track_caller]
pub(crate) fn injected(vmm: Vmm, fault: &str) -> (Finished, usize) {
    let (call, _) = fault.split_once(':').unwrap();
    let options = [format!("trace={call}"), format!("inject={fault}")];
    let (finished, log) = traced(vmm, &["-e", &options[0], "-e", &options[1]]);
    (finished, log.matches("(INJECTED)").count())
}

/// The same, if that happened.
#[track_caller]
pub(crate) fn with_fault(vmm: Vmm, fault: &str) -> Finished {
    let (finished, times) = injected(vmm, fault);
    assert!(times > 0, "{fault} met no call: {finished:?}");
    finished
}

/// The fault by which the first ioctl `request` of `vmm` fails with `error`: strace knows an ioctl by its
/// number among those of its thread alone.
#[track_caller]
pub(crate) fn fault_of_ioctl(vmm: Vmm, request: &str, error: &str) -> String {
    let (_, log) = traced(vmm, &["-e", "trace=ioctl"]);
    let thread = |line: &str| line.split_whitespace().next().map(str::to_owned);
    let first = log.lines().find(|line| line.contains(request)).unwrap();
    let before = log.lines().take_while(|line| *line != first);
    let of_thread = before.filter(|line| thread(line) == thread(first) && line.contains("ioctl("));
    let number = of_thread.count() + 1;
    format!("ioctl:error={error}:when={number}")
}
