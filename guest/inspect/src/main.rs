//! The program that looks into an image. It gives the library the devices of the real machine.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

use guest_abi::layout::INPUT_SLOT;
use guest_inspect::app::{self, Parts};
use guest_kit::machine::Platform;

guest_kit::entry!(main, heap: region);

fn main(mut machine: Platform) -> u8 {
    let ports = machine.ports();
    app::run(Parts {
        ports: &ports,
        image: machine.device(INPUT_SLOT),
        pool: machine.pool(),
    })
}
