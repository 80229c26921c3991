//! What a run is for. An operation says which disks there are and which guest works on them,
//! follows what the guest says, and judges what came of it; the runtime does the rest.

pub mod check;
pub mod copy;
pub mod inspect;
