//! What may be added to a machine and what not, and what its vCPU counts. Those that need KVM are
//! skipped without it.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::sync::Mutex;

use guest_abi::layout::registers;
use vm_device::bus::{MmioAddressOffset, PioAddress, PioAddressOffset};

use super::*;
use crate::machine::{ExitCounts, VcpuEnd, VcpuReport, open_kvm};

/// Something with ports and registers that remembers what was written.
#[derive(Default)]
struct Listener(Mutex<Vec<u8>>);

impl DevicePio for Listener {
    fn pio_read(&self, _: PioAddress, _: PioAddressOffset, data: &mut [u8]) {
        data.fill(b'r');
    }

    fn pio_write(&self, _: PioAddress, _: PioAddressOffset, data: &[u8]) {
        self.0.lock().unwrap().extend(data);
    }
}

impl DeviceMmio for Listener {
    fn mmio_read(&self, _: MmioAddress, _: MmioAddressOffset, data: &mut [u8]) {
        data.fill(b'R');
    }

    fn mmio_write(&self, _: MmioAddress, _: MmioAddressOffset, data: &[u8]) {
        self.0.lock().unwrap().extend(data);
    }
}

/// A machine for so many virtio devices, or nothing where there is no KVM.
fn machine(slots: usize) -> Option<Result<Machine, MachineError>> {
    let Ok(kvm) = open_kvm() else {
        eprintln!("skipped: there is no /dev/kvm");
        return None;
    };
    Some(Machine::new(kvm, slots))
}

#[test]
fn a_machine_has_no_more_slots_than_there_are_addresses_for() {
    for (slots, is_made) in [
        (MAX_SLOTS - 1, true),
        (MAX_SLOTS, true),
        (MAX_SLOTS + 1, false),
    ] {
        let Some(machine) = machine(slots) else {
            return;
        };
        assert_eq!(machine.is_ok(), is_made, "{slots}");
        let refused = machine.err();
        assert!(refused.is_none_or(|why| matches!(why, MachineError::Slots(MAX_SLOTS))));
    }
}

#[test]
fn a_device_with_registers_has_a_page_of_its_own_behind_the_virtio_devices() {
    let Some(machine) = machine(1) else {
        return;
    };
    let mut machine = machine.unwrap();
    let mut add = |page| machine.add_mmio(page, Arc::new(Listener::default()));
    for page in [registers(0), registers(MAX_SLOTS) + 8, 0] {
        assert!(matches!(add(page), Err(MachineError::RegisterPage(told)) if told == page));
    }
    assert!(add(registers(MAX_SLOTS)).is_ok());
    assert!(matches!(
        add(registers(MAX_SLOTS)),
        Err(MachineError::Bus(_))
    ));
}

/// Runs `code` in a machine with ports from 0x100 up, of which the second has its writes collected, a
/// page of registers, and an idle port at 0xf5, with nothing to wait for.
fn run(code: &[u8]) -> Option<(VcpuReport, Vec<u8>)> {
    let mut machine = machine(0)?.unwrap();
    let device = Arc::new(Listener::default());
    let ports = Ports::new(0x100, 2).posting_writes_to(1);
    machine.add_pio(ports, device.clone()).unwrap();
    machine
        .add_mmio(registers(MAX_SLOTS), device.clone())
        .unwrap();
    machine.add_idle_port(0xf5, []).unwrap();
    let (report, _spent) = machine.boot(code).unwrap().run();
    let written = device.0.lock().unwrap().clone();
    Some((report, written))
}

#[test]
fn there_is_one_idle_port_and_one_that_cannot_be_added_is_none() {
    let Some(machine) = machine(0) else {
        return;
    };
    let mut machine = machine.unwrap();
    machine.add_exit_port(0xf4).unwrap();
    let taken = machine.add_idle_port(0xf4, []);
    assert!(matches!(taken, Err(MachineError::Bus(_))), "{taken:?}");
    machine.add_idle_port(0xf5, []).unwrap();
    let second = machine.add_idle_port(0xf6, []);
    assert!(matches!(second, Err(MachineError::IdlePort)), "{second:?}");
}

#[test]
fn exits_are_counted_by_their_kind() {
    let [a, b, c, d] = u32::try_from(registers(MAX_SLOTS)).unwrap().to_le_bytes();
    let code = [
        &[0x66, 0xba, 0x00, 0x01][..], // mov dx, 0x100
        &[0xec, 0xec, 0xec],           // in al, dx, three times
        &[0xee, 0xee],                 // out dx, al, twice
        &[0xbf, a, b, c, d],           // mov edi, the registers
        &[0x8a, 0x07].repeat(4),       // mov al, [rdi], four times
        &[0x88, 0x07],                 // mov [rdi], al
        &[0xe4, 0xf5],                 // in al, 0xf5
    ];
    let Some((report, written)) = run(&code.concat()) else {
        return;
    };
    assert_eq!(report.end, VcpuEnd::NothingInFlight);
    assert_eq!(written, b"rrR");
    let expected = ExitCounts {
        pio_in: 3,
        pio_out: 2,
        mmio_read: 4,
        mmio_write: 1,
        idle: 1,
        other: 0,
        coalesced: 0,
    };
    assert_eq!(report.exits, expected);
    assert_eq!(report.exits.total(), 11);
}

#[test]
fn writes_that_are_collected_arrive_in_order_before_whatever_comes_next() {
    let code = [
        &[0x66, 0xba, 0x01, 0x01][..], // mov dx, 0x101
        &[0xb0, b'a', 0xee],           // mov al, 'a'; out dx, al
        &[0xb0, b'b', 0xee],
        &[0x66, 0xba, 0x00, 0x01], // mov dx, 0x100
        &[0xb0, b'c', 0xee],
        &[0xe4, 0xf5], // in al, 0xf5
    ];
    let Some((report, written)) = run(&code.concat()) else {
        return;
    };
    assert_eq!(written, b"abc");
    let exits = report.exits;
    let collected = [(2, 1), (0, 3)];
    assert!(
        collected.contains(&(exits.coalesced, exits.pio_out)),
        "{exits:?}"
    );
}

#[test]
fn a_host_that_has_run_out_of_something_is_told_with_what_to_raise() {
    let source = io::Error::from_raw_os_error(libc::EMFILE);
    let told = MachineError::Line(source).to_string();
    assert!(
        told.ends_with("(this process has too many open files: raise ulimit -n)"),
        "{told}"
    );
}
