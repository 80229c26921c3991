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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::{Arc, Mutex};

    use vm_device::DevicePio;
    use vm_device::bus::{PioAddressOffset, PioRange};

    use super::*;

    /// A device that remembers what was written to it.
    #[derive(Default)]
    struct Listener(Mutex<Vec<(u16, Vec<u8>)>>);

    impl DevicePio for Listener {
        fn pio_read(&self, _: PioAddress, offset: PioAddressOffset, data: &mut [u8]) {
            data.fill(u8::try_from(offset).unwrap());
        }

        fn pio_write(&self, _: PioAddress, offset: PioAddressOffset, data: &[u8]) {
            self.0.lock().unwrap().push((offset, data.to_vec()));
        }
    }

    /// A bus with a device at the ports 0x100 to 0x107.
    fn scene() -> (IoManager, Arc<Listener>) {
        let (mut bus, device) = (IoManager::new(), Arc::new(Listener::default()));
        let range = PioRange::new(PioAddress(0x100), 8).unwrap();
        bus.register_pio(range, device.clone()).unwrap();
        (bus, device)
    }

    #[test]
    fn neighbours_for_one_port_go_together_and_stay_in_order_with_others() {
        let (bus, device) = scene();
        let mut string = PortString::default();
        for (port, data) in [
            (0x100, &b"ab"[..]),
            (0x100, b"c"),
            (0x103, b"d"),
            (0x103, b"e"),
            (0x100, b"f"),
        ] {
            string.add(&bus, port, data);
        }
        string.hand_on(&bus);
        string.hand_on(&bus);
        let strings = [(0, "abc"), (3, "de"), (0, "f")];
        let expected = strings.map(|(offset, text)| (offset, text.into()));
        assert_eq!(*device.0.lock().unwrap(), expected);
    }

    #[test]
    fn a_string_that_is_full_is_handed_on_and_the_next_one_begins() {
        let (bus, device) = scene();
        let mut string = PortString::default();
        for _ in 0..100 {
            string.add(&bus, 0x100, &[7; 8]);
        }
        string.hand_on(&bus);
        let lengths: Vec<usize> = device.0.lock().unwrap().iter().map(|s| s.1.len()).collect();
        assert_eq!(lengths, [256, 256, 256, 32]);
    }

    #[test]
    fn a_port_without_a_device_reads_as_ones_and_ignores_what_is_written() {
        let (bus, device) = scene();
        let read = |port| {
            let mut data = [0x55; 2];
            read_port(&bus, port, &mut data);
            data
        };
        assert_eq!(read(0x105), [5; 2]);
        assert_eq!(read(0x108), [0xff; 2]);
        write_port(&bus, 0x108, b"a");
        write_port(&bus, 0x100, b"");
        assert!(device.0.lock().unwrap().is_empty());
    }
}
