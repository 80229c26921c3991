//! What the user or the author of a program is told to do about the sandbox. What helps depends on the
//! program: one that has an option for it names that, and for the others there is the library's own advice.

use std::sync::OnceLock;

/// What can be done about the sandbox in a program.
#[derive(Clone, Copy, Debug)]
pub struct Advice {
    /// About a call that it forbids, in at most 250 bytes: the line has no room for more.
    pub forbidden_call: &'static str,
    /// Where the process cannot be confined.
    pub not_confined: &'static str,
}

/// What helps in any program on this library: there the call may be one of its own devices.
const LIBRARY: Advice = Advice {
    forbidden_call: "if a device or an operation has to make it, allow it there: in Worker::calls, by \
                     Runner::vcpu_calls (thread vcpu) or by Runner::main_calls; a preloaded library \
                     may be at fault too; Runner::confined(false) runs without the sandbox",
    not_confined: "Runner::confined(false) runs without",
};

static ADVICE: OnceLock<Advice> = OnceLock::new();

/// Has messages about the sandbox end with what helps in this program. Only the first call counts.
pub fn advise(advice: Advice) {
    let _ = ADVICE.set(advice);
}

/// What messages end with. It takes no lock and no memory.
pub(super) fn advice() -> Advice {
    ADVICE.get().copied().unwrap_or(LIBRARY)
}
