//! The steps that a program for disks begins with: each takes its configuration, and those that report
//! how their disks are started start them here. What goes wrong is a [`Failure`] to report, after which
//! it exits with [`EXIT_FAILURE`].

use core::fmt;

use guest_abi::ports::COM1;
use guest_protocol::MAX_MESSAGE_LEN;

use crate::failure::{Failure, Op};
use crate::hardware::{Attached, Ports, Registers};
use crate::serial::Uart;
use crate::virtio::block::{BlockDevice, Purpose, Stage};

/// Exit status of a run that ended well.
pub const EXIT_SUCCESS: u8 = 0;
/// Exit status of a run that failed and said so.
pub const EXIT_FAILURE: u8 = 1;

/// The name that messages have for the VMM, which sends the configuration.
pub const VMM: &str = "vmm";

/// Waits for the configuration, and has `decode` take it.
///
/// # Errors
///
/// [`Failure`] with [`Op::Config`], if it does not arrive whole or `decode` does not take it.
pub fn configure<P: Ports, C, E: fmt::Display>(
    ports: &P,
    decode: impl FnOnce(&[u8]) -> Result<C, E>,
) -> Result<C, Failure> {
    let failed = |error: &dyn fmt::Display| Failure::new(Op::Config, VMM, error);
    let mut buffer = [0; MAX_MESSAGE_LEN];
    let message = Uart::new(ports, COM1).receive_frame(&mut buffer);
    let message = message.map_err(|error| failed(&error))?;
    decode(message).map_err(|error| failed(&error))
}

/// Starts the disk `name` at `place` for `slots` requests at once, and tells `on_stage` the name of
/// each stage of that and the number which belongs to it, such as the address of the registers.
///
/// # Errors
///
/// [`Failure`] with [`Op::Init`], if the device cannot be used.
pub fn attach<R: Registers>(
    name: &'static str,
    place: Attached<R>,
    purpose: Purpose,
    slots: u16,
    mut on_stage: impl FnMut(&str, u64),
) -> Result<BlockDevice<R>, Failure> {
    let Attached {
        registers,
        address,
        queue,
    } = place;
    let on_stage = |stage| match stage {
        Stage::Probe => on_stage("probe", address),
        Stage::Features(features) => on_stage("features", features),
        Stage::Queue(size) => on_stage("queue", u64::from(size)),
    };
    BlockDevice::init(registers, queue, purpose, slots, on_stage)
        .map_err(|error| Failure::new(Op::Init, name, &error))
}
