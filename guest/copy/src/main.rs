//! The program that copies. It gives the library the devices of the real machine.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

use guest_abi::layout::{CONSOLE_SLOT, INPUT_SLOT, OUTPUT_SLOT};
use guest_copy::app::{self, Parts};
use guest_copy::copy::skip::Selection;
use guest_kit::machine::Platform;
use guest_kit::machine::heap::USUAL_SIZE;

/// The usual heap, and room for what is to be read of an input with the most ranges of data.
const HEAP_SIZE: usize = USUAL_SIZE + Selection::LARGEST;

guest_kit::entry!(main, heap: HEAP_SIZE);

fn main(mut machine: Platform) -> u8 {
    let ports = machine.ports();
    app::run(Parts {
        ports: &ports,
        input: machine.device(INPUT_SLOT),
        output: machine.device(OUTPUT_SLOT),
        console: machine.device(CONSOLE_SLOT),
        pool: machine.pool(),
    })
}
