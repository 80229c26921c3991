//! The exit port: a byte written to it ends the run with that status.

use vm_device::DevicePio;
use vm_device::bus::{PioAddress, PioAddressOffset};

use super::{Ender, VcpuEnd};

/// The device behind the exit port.
pub struct ExitPort(Ender);

impl ExitPort {
    /// An exit port that ends the run of the machine that `ender` belongs to.
    #[must_use]
    pub fn new(ender: Ender) -> Self {
        Self(ender)
    }
}

impl DevicePio for ExitPort {
    fn pio_read(&self, _base: PioAddress, _offset: PioAddressOffset, data: &mut [u8]) {
        data.fill(0);
    }

    fn pio_write(&self, _base: PioAddress, _offset: PioAddressOffset, data: &[u8]) {
        if let [status, ..] = data {
            self.0.end(VcpuEnd::Exited(*status));
        }
    }
}
