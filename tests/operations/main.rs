//! What holds whatever the product is asked to do, a copy, a conversion or a look at an image: how
//! it starts where the surroundings refuse something, and how it ends where nobody reads, the time
//! is over or a signal comes.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod ends;
mod injected;
mod limits;
mod special;
mod streams;

fn main() -> std::process::ExitCode {
    common::harness::main()
}

const HOST_FAILED: i32 = 3;
const TIMED_OUT: i32 = 124;
