//! The virtio-mmio transport, version 2 (virtio 1.2, section 4.2), and the initialisation sequence
//! (section 3.1.1). Each register access leaves the virtual machine, so the status is remembered
//! and only read back where the specification asks for it.

use thiserror::Error;

use super::ring::RingAddresses;
use crate::hardware::Registers;

/// Register offsets in bytes (section 4.2.2).
pub mod register {
    /// "virt".
    pub const MAGIC_VALUE: u16 = 0x000;
    /// Version of the transport.
    pub const VERSION: u16 = 0x004;
    /// What kind of device it is.
    pub const DEVICE_ID: u16 = 0x008;
    /// Offered features, the word that the selector names.
    pub const DEVICE_FEATURES: u16 = 0x010;
    /// Selector for the offered features.
    pub const DEVICE_FEATURES_SEL: u16 = 0x014;
    /// Accepted features, the word that the selector names.
    pub const DRIVER_FEATURES: u16 = 0x020;
    /// Selector for the accepted features.
    pub const DRIVER_FEATURES_SEL: u16 = 0x024;
    /// Selects the queue that the queue registers are about.
    pub const QUEUE_SEL: u16 = 0x030;
    /// Largest size of the queue.
    pub const QUEUE_NUM_MAX: u16 = 0x034;
    /// Size of the queue.
    pub const QUEUE_NUM: u16 = 0x038;
    /// Whether the queue may be used.
    pub const QUEUE_READY: u16 = 0x044;
    /// Notifies the device of available buffers.
    pub const QUEUE_NOTIFY: u16 = 0x050;
    /// Device status.
    pub const STATUS: u16 = 0x070;
    /// Descriptor table, low word; the high word follows.
    pub const QUEUE_DESC: u16 = 0x080;
    /// Driver area, low word; the high word follows.
    pub const QUEUE_DRIVER: u16 = 0x090;
    /// Device area, low word; the high word follows.
    pub const QUEUE_DEVICE: u16 = 0x0a0;
    /// Changes when the configuration does.
    pub const CONFIG_GENERATION: u16 = 0x0fc;
    /// Device-specific configuration.
    pub const CONFIG: u16 = 0x100;
}

/// Device status bits (section 2.1).
pub mod status {
    /// The driver has noticed the device.
    pub const ACKNOWLEDGE: u32 = 1;
    /// The driver knows how to drive it.
    pub const DRIVER: u32 = 2;
    /// The driver is ready.
    pub const DRIVER_OK: u32 = 4;
    /// Both sides agree on the features.
    pub const FEATURES_OK: u32 = 8;
    /// The device has failed and must be reset.
    pub const DEVICE_NEEDS_RESET: u32 = 64;
    /// The driver has given up.
    pub const FAILED: u32 = 128;
}

/// Feature: not a legacy device (section 6).
pub const F_VERSION_1: u64 = 1 << 32;
/// Feature: the rings have event indices (section 6).
pub const F_EVENT_IDX: u64 = 1 << 29;

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VERSION: u32 = 2;
/// How often something that ends by itself is looked at before it counts as stuck: each look
/// takes some 20 microseconds, so this is about a second.
const PATIENCE: u32 = 50_000;

/// Why a device cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TransportError {
    /// There is no virtio-mmio device at this address.
    #[error("no virtio-mmio device: magic value {0:#x}")]
    Magic(u32),
    /// A legacy device, or one from the future.
    #[error("virtio-mmio version {0} instead of 2")]
    Version(u32),
    /// A device of another kind.
    #[error("virtio device of type {0} instead of {1}")]
    DeviceId(u32, u32),
    /// The status does not become 0.
    #[error("the device does not finish its reset")]
    Reset,
    /// A legacy device.
    #[error("the device does not offer VIRTIO_F_VERSION_1")]
    Legacy,
    /// The device took FEATURES_OK back.
    #[error("the device refuses the features {0:#x}")]
    Features(u64),
    /// The queue is ready before it was set up.
    #[error("the device's queue is in use already")]
    QueueInUse,
    /// The configuration changes all the time.
    #[error("the device's configuration does not settle")]
    Config,
}

/// A virtio-mmio device on its way to being driven, and then driven.
#[derive(Debug)]
pub struct Transport<R> {
    registers: R,
    status: u32,
}

impl<R: Registers> Transport<R> {
    /// Checks that a device of type `device_id` is there (section 4.2.3.1).
    ///
    /// # Errors
    ///
    /// [`TransportError`], naming what is there instead.
    pub fn probe(registers: R, device_id: u32) -> Result<Self, TransportError> {
        let magic = registers.read(register::MAGIC_VALUE);
        if magic != MAGIC {
            return Err(TransportError::Magic(magic));
        }
        let version = registers.read(register::VERSION);
        if version != VERSION {
            return Err(TransportError::Version(version));
        }
        let found = registers.read(register::DEVICE_ID);
        if found != device_id {
            return Err(TransportError::DeviceId(found, device_id));
        }
        Ok(Self {
            registers,
            status: 0,
        })
    }

    /// Resets the device and says that a driver is here: steps 1 to 3 of section 3.1.1.
    ///
    /// # Errors
    ///
    /// [`TransportError::Reset`] if the reset does not end.
    pub fn reset(&mut self) -> Result<(), TransportError> {
        self.status = 0;
        self.registers.write(register::STATUS, 0);
        if (0..PATIENCE).all(|_| self.registers.read(register::STATUS) != 0) {
            return Err(TransportError::Reset);
        }
        self.add_status(status::ACKNOWLEDGE);
        self.add_status(status::DRIVER);
        Ok(())
    }

    /// Accepts those of the `wanted` features that are offered, and VIRTIO_F_VERSION_1: steps 4 to
    /// 6. Returns what was accepted.
    ///
    /// # Errors
    ///
    /// [`TransportError`] if the device is a legacy one or does not agree.
    pub fn negotiate(&mut self, wanted: u64) -> Result<u64, TransportError> {
        let offered = self.offered(0) | self.offered(1) << 32;
        if offered & F_VERSION_1 == 0 {
            return Err(TransportError::Legacy);
        }
        let accepted = offered & (wanted | F_VERSION_1);
        self.accept(0, accepted);
        self.accept(1, accepted >> 32);
        self.add_status(status::FEATURES_OK);
        if self.registers.read(register::STATUS) & status::FEATURES_OK == 0 {
            return Err(TransportError::Features(accepted));
        }
        Ok(accepted)
    }

    /// Selects a queue by its number and returns the largest size that it may have (section 4.2.3.2): a
    /// power of two that is not above what the device allows, or 0.
    ///
    /// # Errors
    ///
    /// [`TransportError::QueueInUse`] if it is ready already.
    pub fn queue_size_max(&mut self, queue: u16) -> Result<u16, TransportError> {
        self.registers.write(register::QUEUE_SEL, u32::from(queue));
        if self.registers.read(register::QUEUE_READY) != 0 {
            return Err(TransportError::QueueInUse);
        }
        let max = self.registers.read(register::QUEUE_NUM_MAX);
        // No queue has more than 32768 (section 2.7).
        Ok(max.checked_ilog2().map_or(0, |bits| 1 << bits.min(15)))
    }

    /// Gives the selected queue its size and addresses, and makes it ready.
    pub fn enable_queue(&mut self, size: u16, addresses: RingAddresses) {
        self.registers.write(register::QUEUE_NUM, u32::from(size));
        self.write_u64(register::QUEUE_DESC, addresses.descriptors);
        self.write_u64(register::QUEUE_DRIVER, addresses.avail);
        self.write_u64(register::QUEUE_DEVICE, addresses.used);
        self.registers.write(register::QUEUE_READY, 1);
    }

    /// Reads the device's configuration with `read`, again if it changed meanwhile (section
    /// 2.5.1). `read` gets a function from an offset in it to a word.
    ///
    /// # Errors
    ///
    /// [`TransportError::Config`] if it keeps changing.
    pub fn read_config<T>(
        &self,
        read: impl Fn(&dyn Fn(u16) -> u32) -> T,
    ) -> Result<T, TransportError> {
        let mut before = self.registers.read(register::CONFIG_GENERATION);
        for _ in 0..PATIENCE {
            let config = read(&|offset| self.registers.read(register::CONFIG + offset));
            let after = self.registers.read(register::CONFIG_GENERATION);
            if after == before {
                return Ok(config);
            }
            before = after;
        }
        Err(TransportError::Config)
    }

    /// Starts the device: step 8.
    pub fn start(&mut self) {
        self.add_status(status::DRIVER_OK);
    }

    /// Tells the device that the driver has given up.
    pub fn fail(&mut self) {
        self.add_status(status::FAILED);
    }

    /// Tells the device that there are available buffers in `queue`: a kick.
    pub fn notify(&self, queue: u16) {
        self.registers
            .write(register::QUEUE_NOTIFY, u32::from(queue));
    }

    /// Whether the device has met an error from which only a reset would help (section 2.1.2).
    #[must_use]
    pub fn needs_reset(&self) -> bool {
        self.registers.read(register::STATUS) & status::DEVICE_NEEDS_RESET != 0
    }

    fn add_status(&mut self, bit: u32) {
        self.status |= bit;
        self.registers.write(register::STATUS, self.status);
    }

    fn offered(&self, word: u32) -> u64 {
        self.registers.write(register::DEVICE_FEATURES_SEL, word);
        u64::from(self.registers.read(register::DEVICE_FEATURES))
    }

    fn accept(&self, word: u32, features: u64) {
        self.registers.write(register::DRIVER_FEATURES_SEL, word);
        self.registers
            .write(register::DRIVER_FEATURES, low(features));
    }

    fn write_u64(&self, offset: u16, value: u64) {
        self.registers.write(offset, low(value));
        self.registers.write(offset + 4, low(value >> 32));
    }
}

/// The low 32 bits.
#[allow(clippy::cast_possible_truncation)] // Exactly what it is for.
const fn low(value: u64) -> u32 {
    value as u32
}

#[cfg(test)]
#[path = "mmio_tests.rs"]
mod tests;
