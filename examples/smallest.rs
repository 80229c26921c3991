//! The smallest machine: a guest of seven bytes, and the one port that it needs to end.
//!
//!     cargo run --example smallest

use vmm::machine::{Machine, open_kvm};
use vmm::report::Console;
use vmm::runtime::{GuestEnd, Operation, RunError, Runner};

/// `mov dx, 0xf4`, `mov al, 42`, `out dx, al`: ends with status 42.
const GUEST: [u8; 7] = [0x66, 0xba, 0xf4, 0x00, 0xb0, 42, 0xee];

/// A run that is good if the guest gives the answer.
struct Answer;

impl Operation for Answer {
    fn judge(&mut self, end: GuestEnd<'_>) -> Result<(), RunError> {
        match end {
            GuestEnd::Exited(42) => Ok(()),
            other => Err(RunError::Guest(other.to_string())),
        }
    }
}

fn main() -> std::process::ExitCode {
    vmm::runtime::main(|| {
        // Room for no virtio device: this guest has RAM, one port, and nothing else.
        let mut machine = Machine::new(open_kvm()?, 0)?;
        machine.add_exit_port(0xf4)?;
        let vcpu = machine.boot(&GUEST)?;
        let outcome = Runner::new(vcpu).run(&mut Answer, Console::default())?;
        outcome.end("the guest answered")
    })
}
