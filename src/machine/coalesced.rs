//! Writes that KVM has collected (KVM API, section 4.116, `KVM_REGISTER_COALESCED_MMIO`): to the
//! data ports of the UARTs and to the registers of virtio devices.
//!
//! The ring is drained when the vCPU has left, before that exit is handled, so that a device sees
//! every write in the order in which the guest made it.

use kvm_ioctls::VcpuFd;
use vm_device::bus::{MmioAddress, PioAddress};
use vm_device::device_manager::{IoManager, MmioManager, PioManager};

/// Hands every collected write to the device that it is for and returns how many bytes there were.
/// Neighbours for one port go together, as if the guest had written a string.
pub(super) fn drain(vcpu: &mut VcpuFd, bus: &IoManager) -> u64 {
    let mut count = 0;
    let mut string = PortString::default();
    // An error means that there is no ring: nothing is coalesced.
    while let Ok(Some(entry)) = vcpu.coalesced_mmio_read() {
        let data = &entry.data[..entry.data.len().min(entry.len as usize)];
        count += data.len() as u64;
        // No device has registers so low that they could be ports.
        match u16::try_from(entry.phys_addr) {
            Ok(port) => string.add(bus, port, data),
            Err(_) => {
                string.hand_on(bus);
                let _ = bus.mmio_write(MmioAddress(entry.phys_addr), data);
            }
        }
    }
    string.hand_on(bus);
    count
}

/// Bytes for one port that have not been handed on.
struct PortString {
    port: u16,
    /// One ring holds fewer bytes, so that neighbours for one port become one string.
    bytes: [u8; 256],
    len: usize,
}

impl Default for PortString {
    fn default() -> Self {
        Self {
            port: 0,
            bytes: [0; 256],
            len: 0,
        }
    }
}

impl PortString {
    fn add(&mut self, bus: &IoManager, port: u16, data: &[u8]) {
        if port != self.port || self.len + data.len() > self.bytes.len() {
            self.hand_on(bus);
        }
        self.port = port;
        self.bytes[self.len..self.len + data.len()].copy_from_slice(data);
        self.len += data.len();
    }

    fn hand_on(&mut self, bus: &IoManager) {
        write_port(bus, self.port, &self.bytes[..self.len]);
        self.len = 0;
    }
}

/// Writes `data` to the device at `port`, if there are both.
///
/// The bus has a `pio_write` of its own, but that takes the length of a string for a span of ports.
pub(super) fn write_port(bus: &IoManager, port: u16, data: &[u8]) {
    if let (false, Some((range, device))) = (data.is_empty(), bus.pio_device(PioAddress(port))) {
        device.pio_write(range.base(), PioAddress(port) - range.base(), data);
    }
}

/// Fills `data` from the device at `port`. If there is none all bits are ones, as on a bus without
/// devices.
pub(super) fn read_port(bus: &IoManager, port: u16, data: &mut [u8]) {
    match bus.pio_device(PioAddress(port)) {
        Some((range, device)) => {
            device.pio_read(range.base(), PioAddress(port) - range.base(), data);
        }
        None => data.fill(0xff),
    }
}
