//! The virtual machine: KVM, memory, the processor's tables and its thread (KVM API; Intel SDM).
//!
//! A machine goes one way, and each step is a type of its own: a [`Machine`] takes devices, is
//! given a guest image and so becomes a [`Vcpu`], which runs once and ends in a [`VcpuReport`].

mod coalesced;
mod exits;
mod fault;
mod idle;
mod kvm;
mod loader;
mod memory;
mod page_tables;
mod registers;
mod repeat;
mod segments;
mod teardown;
#[cfg(test)]
mod testing;
mod vcpu;
mod vm;

pub use exits::ExitCounts;
pub use idle::IdlePort;
pub use kvm::{
    Finding, KvmError, Severity, Surroundings, diagnose as diagnose_kvm, open as open_kvm,
};
pub use loader::{LoadError, LoadedImage, load, read_image};
pub use memory::{GuestRam, MemoryError};
pub use page_tables::{ImagePermissions, PagePermissions};
pub(crate) use repeat::hint as kvm_hint;
pub use vcpu::{KICK_SIGNAL, Remains, Vcpu, VcpuControl, VcpuEnd, VcpuReport, ignore_kicks};
pub use vm::{Machine, MachineError};
