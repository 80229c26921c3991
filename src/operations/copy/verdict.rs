//! Judges a run that has ended: is there a complete copy, and if not, whose fault is it?

use std::io;

use super::disks::Disks;
use super::error::RunError;
use super::supervisor::{Cut, Supervised};
use crate::machine::{VcpuEnd, kvm_hint};

/// Whether the output may be put in place. The output itself still checks that all was written.
pub(super) fn judge(run: &Supervised, disks: &Disks) -> Result<(), RunError> {
    if let Some(cut) = &run.cut {
        return Err(match cut {
            Cut::Signal(number) => RunError::Signal(*number),
            Cut::TimedOut(limit) => RunError::TimedOut(*limit),
            Cut::Protocol(error) => RunError::Guest(error.to_string()),
        });
    }
    // What the host could not do explains all that came after it.
    if let Some(error) = disks.host_error() {
        return Err(RunError::Disk(error));
    }
    let with_cause = |text: String| {
        let cause = disks.driver_fault();
        RunError::Guest(cause.map_or_else(|| text.clone(), |cause| format!("{text}; {cause}")))
    };
    match &run.report.end {
        VcpuEnd::Exited(0) => run.session.verdict().map_err(with_cause),
        VcpuEnd::Exited(status) => {
            let said = run.session.verdict().err();
            let said = said.unwrap_or_else(|| "the guest claimed success".to_owned());
            Err(with_cause(format!("{said} (exit status {status})")))
        }
        VcpuEnd::Fault(fault) => Err(RunError::Guest(format!("the guest faulted {fault}"))),
        VcpuEnd::NothingInFlight => Err(with_cause(
            "the guest waits for a disk, and no disk has anything to do".to_owned(),
        )),
        VcpuEnd::Unexpected(what) => Err(RunError::Guest(what.clone())),
        VcpuEnd::Kvm(error) => Err(RunError::Host {
            what: "run the guest",
            source: io::Error::other(format!("{error}{}", kvm_hint(*error))),
        }),
        VcpuEnd::Stopped => Err(RunError::Guest("the run was stopped".to_owned())),
    }
}
