//! The program that converts. It gives the library the devices of the real machine, and the codecs
//! that are written in C the memory functions of a C library.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

use guest_abi::layout::{INPUT_SLOT, OUTPUT_SLOT};
use guest_convert::app::{self, Parts};
use guest_kit::machine::Platform;

#[allow(unsafe_code)]
mod libc;

guest_kit::entry!(main, heap: region);

fn main(mut machine: Platform) -> u8 {
    let ports = machine.ports();
    app::run(Parts {
        ports: &ports,
        input: machine.device(INPUT_SLOT),
        output: machine.device(OUTPUT_SLOT),
        pool: machine.pool(),
        others: |slot| machine.device(slot),
    })
}
