//! Devices that the VMM does not have: vm-superio's real time clock on a page of registers and its
//! i8042 on ports. The guest reads the clock, sends what it read, and resets the machine through
//! the i8042, which ends the run.
//!
//!     cargo run --example ports

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use vm_device::bus::{MmioAddress, MmioAddressOffset, PioAddress, PioAddressOffset};
use vm_device::{DeviceMmio, DevicePio};
use vm_superio::rtc_pl031::NoEvents;
use vm_superio::{I8042Device, Rtc, Trigger};
use vmm::machine::{Ender, Machine, Ports, VcpuEnd, open_kvm};
use vmm::report::Console;
use vmm::runtime::{GuestEnd, Operation, ReportSource, RunError, Runner, SerialPort};

/// The first page of registers behind those of virtio devices.
const RTC: u64 = 0x1001_0000;
const I8042: u16 = 0x60;
const COM1: u16 = 0x3f8;

/// In assembly: `mov esi, 0x10010000`, `mov eax, [rsi]`, `push rax`, `mov rsi, rsp`, `mov ecx, 4`,
/// `mov dx, 0x3f8`, `rep outsb`, `mov dx, 0x64`, `mov al, 0xfe`, `out dx, al`.
const GUEST: [u8; 32] = [
    0xbe, 0x00, 0x00, 0x01, 0x10, 0x8b, 0x06, 0x50, 0x48, 0x89, 0xe6, 0xb9, 4, 0, 0, 0, 0x66, 0xba,
    0xf8, 0x03, 0xf3, 0x6e, 0x66, 0xba, 0x64, 0x00, 0xb0, 0xfe, 0xee, 0xeb, 0xfe, 0x90,
];

/// The clock on the MMIO bus. Its registers have four bytes; other accesses read as zero.
struct Clock(Mutex<Rtc<NoEvents>>);

impl DeviceMmio for Clock {
    fn mmio_read(&self, _: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        let mut clock = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Ok(offset), Ok(data)) = (u16::try_from(offset), data.try_into()) {
            clock.read(offset, data);
        }
    }

    fn mmio_write(&self, _: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        let mut clock = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Ok(offset), Ok(data)) = (u16::try_from(offset), data.try_into()) {
            clock.write(offset, data);
        }
    }
}

/// Ends the run when the guest resets the machine.
struct Reset(Ender);

impl Trigger for Reset {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.end(VcpuEnd::Exited(0));
        Ok(())
    }
}

/// The i8042 on the port bus.
struct Keyboard(Mutex<I8042Device<Reset>>);

impl DevicePio for Keyboard {
    fn pio_read(&self, _: PioAddress, offset: PioAddressOffset, data: &mut [u8]) {
        let mut keyboard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        data.fill_with(|| keyboard.read(u8::try_from(offset).unwrap_or(u8::MAX)));
    }

    fn pio_write(&self, _: PioAddress, offset: PioAddressOffset, data: &[u8]) {
        let mut keyboard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for &byte in data {
            let _ = keyboard.write(u8::try_from(offset).unwrap_or(u8::MAX), byte);
        }
    }
}

/// What the guest has read from its clock: four bytes, little-endian.
struct TimeOfDay(Vec<u8>);

impl Operation for TimeOfDay {
    fn receive(&mut self, _: ReportSource, bytes: &[u8], _: &mut Console) -> Result<(), RunError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn judge(&mut self, end: GuestEnd<'_>) -> Result<(), RunError> {
        end.check()?;
        let read = self.0[..].try_into().map(u32::from_le_bytes).unwrap_or(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let off = now.map_or(u64::MAX, |now| now.as_secs().abs_diff(read.into()));
        if off > 2 {
            return Err(RunError::Guest(format!("its clock is {off} s off")));
        }
        Ok(())
    }
}

fn main() -> std::process::ExitCode {
    vmm::runtime::main(|| {
        let mut machine = Machine::new(open_kvm()?, 0)?;
        let com1 = SerialPort::for_reports().map_err(RunError::host("make a serial port"))?;
        machine.add_pio(Ports::new(COM1, 8), com1.uart.clone())?;
        let reset = Reset(machine.ender());
        let keyboard = Keyboard(Mutex::new(I8042Device::new(reset)));
        machine.add_pio(Ports::new(I8042, 5), Arc::new(keyboard))?;
        machine.add_mmio(RTC, Arc::new(Clock(Mutex::new(Rtc::new()))))?;
        let vcpu = machine.boot(&GUEST)?;
        let runner = Runner::new(vcpu).reports(&com1);
        let outcome = runner.run(&mut TimeOfDay(Vec::new()), Console::default())?;
        outcome.end("the guest knows what time it is")
    })
}
