//! Port I/O (Intel SDM volume 1, "I/O Address Space"). The guest runs in ring 3: the I/O permission
//! bitmap allows exactly the ports of `guest_abi::ports`, and any other one faults.

use core::arch::asm;

use guest_abi::ports::EXIT;

use crate::hardware::Ports;

/// The processor's I/O ports.
#[derive(Clone, Copy, Debug)]
pub struct X86Ports;

impl X86Ports {
    /// Ends the run with `status`.
    pub fn exit(self, status: u8) -> ! {
        loop {
            // The machine is gone when this returns; nothing would be left to do if it were not.
            self.write(EXIT, status);
        }
    }
}

impl Ports for X86Ports {
    fn ticks(&self) -> u64 {
        // SAFETY: every x86-64 processor has the instruction, and the VMM leaves it to ring 3.
        unsafe { core::arch::x86_64::_rdtsc() }
    }

    fn read(&self, port: u16) -> u8 {
        let value;
        // SAFETY: reading a port changes no memory that Rust knows of but what a device writes
        // meanwhile, for which the asm is a compiler barrier (it is not `nomem`).
        unsafe {
            asm!("in al, dx", in("dx") port, out("al") value, options(nostack, preserves_flags));
        }
        value
    }

    fn write(&self, port: u16, value: u8) {
        // SAFETY: no port of the guest's changes memory.
        unsafe {
            asm!("out dx, al", in("dx") port, in("al") value, options(nostack, preserves_flags));
        }
    }

    fn read_string(&self, port: u16, buffer: &mut [u8]) {
        // SAFETY: the instruction writes exactly the bytes of `buffer`, upwards: the direction
        // flag is clear wherever Rust code runs.
        unsafe {
            asm!(
                "rep insb",
                in("dx") port,
                inout("rdi") buffer.as_mut_ptr() => _,
                inout("rcx") buffer.len() => _,
                options(nostack, preserves_flags),
            );
        }
    }

    fn write_string(&self, port: u16, bytes: &[u8]) {
        // SAFETY: the instruction reads exactly the bytes of `bytes`, upwards as above.
        unsafe {
            asm!(
                "rep outsb",
                in("dx") port,
                inout("rsi") bytes.as_ptr() => _,
                inout("rcx") bytes.len() => _,
                options(nostack, preserves_flags, readonly),
            );
        }
    }
}
