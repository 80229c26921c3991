//! What a program needs of the machine: I/O ports and device registers (Intel SDM volume 1,
//! "Input/Output"; virtio 1.2, section 4.2.2). Every call leaves the virtual machine and costs
//! microseconds, so each is one instruction and the callers count them.

use crate::dma::DmaRegion;

/// The I/O ports of [`guest_abi::ports`].
pub trait Ports {
    /// The processor's time stamp counter, which rises all the time; 0 where there is none.
    fn ticks(&self) -> u64 {
        0
    }

    /// Reads one byte.
    fn read(&self, port: u16) -> u8;

    /// Writes one byte.
    fn write(&self, port: u16, value: u8);

    /// Fills `buffer` from one port, with one `rep insb`.
    fn read_string(&self, port: u16, buffer: &mut [u8]);

    /// Writes all of `bytes` to one port, with one `rep outsb`.
    fn write_string(&self, port: u16, bytes: &[u8]);
}

/// The registers of one virtio-mmio device; `offset` is in bytes and a multiple of 4.
pub trait Registers {
    /// Reads the 32-bit register at `offset`.
    fn read(&self, offset: u16) -> u32;

    /// Writes the 32-bit register at `offset`. Memory that was written before is visible to the
    /// device when it sees the write.
    fn write(&self, offset: u16, value: u32);
}

impl<T: Registers + ?Sized> Registers for &T {
    fn read(&self, offset: u16) -> u32 {
        (**self).read(offset)
    }

    fn write(&self, offset: u16, value: u32) {
        (**self).write(offset, value);
    }
}

/// One virtio device's place in the machine.
#[derive(Debug)]
pub struct Attached<R> {
    /// Its registers.
    pub registers: R,
    /// Their address.
    pub address: u64,
    /// Memory for its queues, aligned to a page.
    pub queue: DmaRegion,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ports of a machine without a counter.
    struct Plain;

    impl Ports for Plain {
        fn read(&self, _: u16) -> u8 {
            0
        }

        fn write(&self, _: u16, _: u8) {}

        fn read_string(&self, _: u16, _: &mut [u8]) {}

        fn write_string(&self, _: u16, _: &[u8]) {}
    }

    #[test]
    fn where_there_is_no_counter_no_time_passes() {
        assert_eq!(Plain.ticks(), 0);
    }
}
