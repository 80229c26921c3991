//! What a run is for. An operation says which disks there are and which guest works on them,
//! follows what the guest says, and judges what came of it; the runtime does the rest.

mod beginning;
pub mod check;
pub mod convert;
pub mod copy;
mod disk;
mod ending;
mod frames;
pub mod inspect;
mod ports;
mod session;
pub(crate) mod stats;
mod written;
