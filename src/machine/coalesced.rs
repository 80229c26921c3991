//! Port writes that KVM has collected (KVM API, section 4.116, `KVM_REGISTER_COALESCED_MMIO`).
//!
//! The ring is drained when the vCPU has left, before that exit is handled, so that a device sees
//! every write in the order in which the guest made it.

use kvm_ioctls::VcpuFd;
use vm_device::bus::PioAddress;
use vm_device::device_manager::{IoManager, PioManager};

/// Hands every collected write to the device at its port and returns how many there were.
/// Neighbours for one port go together, as if the guest had written a string.
pub(super) fn drain(vcpu: &mut VcpuFd, bus: &IoManager) -> u64 {
    let mut count = 0;
    let mut port = 0;
    // More than one ring holds, so that a drain hands on a few strings at the most.
    let mut run = [0; 256];
    let mut len = 0;
    // An error means that there is no ring: no port is coalesced.
    while let Ok(Some(entry)) = vcpu.coalesced_mmio_read() {
        let data = &entry.data[..entry.data.len().min(entry.len as usize)];
        let Ok(entry_port) = u16::try_from(entry.phys_addr) else {
            continue;
        };
        if entry_port != port || len + data.len() > run.len() {
            write_port(bus, port, &run[..len]);
            len = 0;
        }
        port = entry_port;
        run[len..len + data.len()].copy_from_slice(data);
        len += data.len();
        count += data.len() as u64;
    }
    write_port(bus, port, &run[..len]);
    count
}

/// Writes `data` to the device at `port`, if there are both.
///
/// Not by `pio_write` of the bus, which takes the length of a string for a span of ports.
pub(super) fn write_port(bus: &IoManager, port: u16, data: &[u8]) {
    if let (false, Some((range, device))) = (data.is_empty(), bus.pio_device(PioAddress(port))) {
        device.pio_write(range.base(), PioAddress(port) - range.base(), data);
    }
}

/// Fills `data` from the device at `port`; with ones, as an empty bus does, if there is none.
pub(super) fn read_port(bus: &IoManager, port: u16, data: &mut [u8]) {
    match bus.pio_device(PioAddress(port)) {
        Some((range, device)) => {
            device.pio_read(range.base(), PioAddress(port) - range.base(), data);
        }
        None => data.fill(0xff),
    }
}
