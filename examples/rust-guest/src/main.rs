//! A guest that reads the first sector of its input disk, and says what it found on COM2. Its exit
//! status is the sum of the sector's bytes, modulo 256.
//!
//!     cargo build --release
//!     vmm --debug --input disk.img --output unused.img target/release/rust-guest
#![no_std]
#![no_main]
#![deny(unsafe_code)]

use core::sync::atomic::Ordering;

use guest_abi::layout::INPUT_SLOT;
use guest_abi::ports::IDLE;
use guest_kit::hardware::Ports;
use guest_kit::machine::Platform;
use guest_kit::serial::debug;
use guest_kit::virtio::block::{BlockDevice, BlockError, Purpose};
use guest_kit::virtio::requests::{Kind, Request};

const SECTOR: u32 = 512;
const FAILED: u8 = 255;

guest_kit::entry!(main);

fn main(mut machine: Platform) -> u8 {
    let ports = machine.ports();
    match sum_of_first_sector(&mut machine) {
        Ok((sum, capacity)) => {
            debug(&ports, format_args!("{capacity} sectors, sum {sum}"));
            sum
        }
        Err(error) => {
            debug(&ports, format_args!("cannot read the disk: {error}"));
            FAILED
        }
    }
}

fn sum_of_first_sector(machine: &mut Platform) -> Result<(u8, u64), BlockError> {
    let place = machine.device(INPUT_SLOT);
    let pool = machine.pool();
    let mut disk = BlockDevice::init(place.registers, place.queue, Purpose::Read, 1, |_| {})?;
    disk.submit(
        0,
        Request {
            kind: Kind::Read,
            sector: 0,
            address: pool.address(0),
            len: SECTOR,
        },
    );
    disk.kick();
    disk.arm(1);
    while !disk.has_completions() {
        // Blocks until a device has used a buffer; nothing is in between that could be missed.
        machine.ports().read(IDLE);
    }
    let completion = disk.complete()?;
    let read = completion.is_some_and(|completion| completion.status == 0);
    let bytes = 0..if read { SECTOR as usize } else { 0 };
    let sum = bytes.fold(0_u8, |sum, offset| {
        sum.wrapping_add(pool.u8_at(offset).load(Ordering::Relaxed))
    });
    Ok((sum, disk.config().capacity))
}
