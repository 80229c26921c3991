//! The guest ABI: everything that the VMM and a guest must agree on before either runs.
//!
//! The VMM builds the machine from these constants and the guest is compiled against the same
//! ones, so the two cannot disagree. Addresses are guest-physical; the page tables map each page
//! that the guest may touch to itself, so they are the guest's virtual addresses as well.
#![no_std]

pub mod layout;
pub mod limits;
pub mod ports;
