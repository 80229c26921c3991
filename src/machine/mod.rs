//! The virtual machine: KVM, memory, the processor's tables and its thread (KVM API; Intel SDM).
//!
//! A machine goes one way, and each step is a type of its own: a [`Machine`] takes devices, is
//! given a guest image and so becomes a [`Vcpu`], which runs once and ends in a [`VcpuReport`].

mod coalesced;
mod ending;
mod exit_port;
mod exits;
mod fault;
mod helped;
mod idle;
mod kvm;
mod loader;
mod memory;
mod nudge;
mod page_tables;
mod poller;
mod processor;
mod registers;
mod repeat;
mod segments;
mod table;
mod teardown;
#[cfg(test)]
mod testing;
mod vcpu;
mod vm;
mod whereabouts;

pub use ending::{Ender, VcpuEnd};
pub use exit_port::ExitPort;
pub use exits::ExitCounts;
pub use fault::Fault;
pub use idle::IdlePort;
pub use kvm::{
    Finding, KvmError, Severity, Surroundings, diagnose as diagnose_kvm, open as open_kvm,
};
pub use loader::{LoadError, LoadedImage, load, read_image};
pub use memory::{GuestRam, MemoryError};
pub use nudge::{NUDGE_SIGNAL, Nudger};
pub use page_tables::{ImagePermissions, PagePermissions};
pub use poller::{Poller, WithPoller};
pub(crate) use repeat::hint as kvm_hint;
pub use table::{Ports, Slot};
pub use vcpu::{SpentMachine, Vcpu, VcpuReport};
pub use vm::{Machine, MachineError};
pub use whereabouts::Whereabouts;
