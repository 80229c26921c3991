//! A VMM on rust-vmm crates that copies a disk inside a virtual machine.
//!
//! Data goes one way: the command line ([`cli`]) becomes a checked [`config`]; a [`run`] opens the
//! [`files`], puts them behind [`virtio`] block devices, builds the [`machine`] with them and its
//! serial [`devices`], and lets the guest work; the [`job`] follows what the guest says, and
//! [`report`] and [`stats`] show it, and the [`sandbox`]
//! confines all of it before the guest's first instruction. The device layer knows nothing of the copy, and the copy nothing of KVM.

pub mod cli;
pub mod config;
pub mod devices;
pub mod files;
pub mod machine;
pub mod operations;
pub mod quote;
pub mod report;
pub mod runtime;
pub mod sandbox;
pub mod stats;
pub mod storage;
pub mod virtio;
