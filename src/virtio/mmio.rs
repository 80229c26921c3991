//! The MMIO transport, version 2, over any virtio device (virtio 1.2, section 4.2.2), with the
//! initialisation sequence of section 3.1 as a state machine. Accesses that the specification
//! does not define read as zero and change nothing.

use std::sync::{Arc, Mutex};

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE as ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER as DRIVER,
    VIRTIO_CONFIG_S_DRIVER_OK as DRIVER_OK, VIRTIO_CONFIG_S_FAILED as FAILED,
    VIRTIO_CONFIG_S_FEATURES_OK as FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET as NEEDS_RESET,
    VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_mmio as reg;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::Queue;
use vm_device::DeviceMmio;
use vm_device::bus::{MmioAddress, MmioAddressOffset};
use vm_memory::GuestMemoryMmap;

use super::{ActivateError, QueueConfig, VirtioDevice};
use crate::lock::lock;

/// "virt", little-endian.
const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
/// "VMM ", little-endian: no vendor is registered for this device.
const VENDOR: u32 = 0x204d_4d56;
/// What the shared memory registers read for a region that does not exist (section 4.2.2.1).
const NO_SHARED_MEMORY: u32 = u32::MAX;
const REGISTER_SIZE: usize = 4;

/// The status bits that a driver sets, in the order in which it may set them.
const INITIALISATION: [u32; 4] = [ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK];

/// What the driver has written to the registers since the last reset.
struct DriverState {
    status: u32,
    device_features_sel: u32,
    driver_features_sel: u32,
    driver_features: u64,
    queue_sel: u32,
    queues: Vec<QueueConfig>,
}

impl DriverState {
    fn new(device: &dyn VirtioDevice) -> Self {
        let queues = device.queue_max_sizes().iter();
        Self {
            status: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            driver_features: 0,
            queue_sel: 0,
            queues: queues.map(|&max| QueueConfig::new(max)).collect(),
        }
    }

    fn has(&self, bits: u32) -> bool {
        self.status & bits == bits
    }

    fn selected(&self) -> Option<usize> {
        let index = usize::try_from(self.queue_sel).ok()?;
        (index < self.queues.len()).then_some(index)
    }

    /// The selected queue, if its registers may be written now.
    fn writable_queue(&mut self) -> Option<&mut QueueConfig> {
        if !self.has(FEATURES_OK) || self.has(DRIVER_OK) {
            return None;
        }
        let index = self.selected()?;
        self.queues.get_mut(index).filter(|queue| !queue.ready)
    }

    fn write_driver_features(&mut self, value: u32) {
        if !self.has(DRIVER) || self.has(FEATURES_OK) {
            return;
        }
        match self.driver_features_sel {
            0 => set_low(&mut self.driver_features, value),
            1 => set_high(&mut self.driver_features, value),
            _ => {}
        }
    }
}

/// A device's register page, to be put on an MMIO bus.
///
/// A write to QueueNotify that no ioeventfd catches is passed on to the queue's eventfd here.
pub struct MmioTransport {
    device: Arc<dyn VirtioDevice>,
    memory: GuestMemoryMmap,
    state: Mutex<DriverState>,
}

impl MmioTransport {
    /// Makes the registers of `device`. Its queues must lie in `memory`, the memory that devices
    /// may use.
    #[must_use]
    pub fn new(device: Arc<dyn VirtioDevice>, memory: GuestMemoryMmap) -> Self {
        let state = Mutex::new(DriverState::new(device.as_ref()));
        Self {
            device,
            memory,
            state,
        }
    }

    fn read_register(&self, register: u32) -> u32 {
        let state = lock(&self.state);
        match register {
            reg::VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            reg::VIRTIO_MMIO_VERSION => VERSION,
            reg::VIRTIO_MMIO_DEVICE_ID => self.device.device_type(),
            reg::VIRTIO_MMIO_VENDOR_ID => VENDOR,
            reg::VIRTIO_MMIO_DEVICE_FEATURES => {
                word(self.device.device_features(), state.device_features_sel)
            }
            reg::VIRTIO_MMIO_QUEUE_NUM_MAX => state
                .selected()
                .map_or(0, |index| u32::from(self.device.queue_max_sizes()[index])),
            reg::VIRTIO_MMIO_QUEUE_READY => state
                .selected()
                .map_or(0, |index| u32::from(state.queues[index].ready)),
            reg::VIRTIO_MMIO_INTERRUPT_STATUS => self.device.notifier().status(),
            reg::VIRTIO_MMIO_STATUS if self.device.notifier().needs_reset() => {
                state.status | NEEDS_RESET
            }
            reg::VIRTIO_MMIO_STATUS => state.status,
            reg::VIRTIO_MMIO_SHM_LEN_LOW
            | reg::VIRTIO_MMIO_SHM_LEN_HIGH
            | reg::VIRTIO_MMIO_SHM_BASE_LOW
            | reg::VIRTIO_MMIO_SHM_BASE_HIGH => NO_SHARED_MEMORY,
            reg::VIRTIO_MMIO_CONFIG_GENERATION => self.device.config_generation(),
            _ => 0,
        }
    }

    fn write_register(&self, register: u32, value: u32) {
        let mut state = lock(&self.state);
        match register {
            reg::VIRTIO_MMIO_DEVICE_FEATURES_SEL => state.device_features_sel = value,
            reg::VIRTIO_MMIO_DRIVER_FEATURES => state.write_driver_features(value),
            reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL => state.driver_features_sel = value,
            reg::VIRTIO_MMIO_QUEUE_SEL => state.queue_sel = value,
            reg::VIRTIO_MMIO_QUEUE_READY => self.write_queue_ready(&mut state, value),
            reg::VIRTIO_MMIO_QUEUE_NOTIFY => self.notify_queue(&state, value),
            reg::VIRTIO_MMIO_INTERRUPT_ACK => self.device.notifier().acknowledge(value),
            reg::VIRTIO_MMIO_STATUS => {
                self.write_status(&mut state, value);
                self.device.notifier().set_driver_status(state.status);
            }
            _ => {
                if let Some(queue) = state.writable_queue() {
                    write_queue_register(queue, register, value);
                }
            }
        }
    }

    fn write_queue_ready(&self, state: &mut DriverState, value: u32) {
        match value {
            0 => {
                if let Some(index) = state.selected() {
                    self.device.stop_queue(index);
                    state.queues[index].ready = false;
                }
            }
            1 => {
                if let Some(queue) = state.writable_queue() {
                    queue.ready = true;
                }
            }
            _ => {}
        }
    }

    fn notify_queue(&self, state: &DriverState, value: u32) {
        let event = usize::try_from(value)
            .ok()
            .and_then(|index| self.device.queue_events().get(index));
        if let Some(event) = event.filter(|_| state.has(DRIVER_OK)) {
            // The only failure is a counter that is full, and then the queue is looked at anyway.
            let _ = event.write(1);
        }
    }

    /// A driver may set several bits at once. Only a reset clears any.
    ///
    /// A write is ignored as a whole if it has bits that no driver may set, if it clears a bit that
    /// is set, or if the driver has given up before. Of a write that is not ignored each bit counts
    /// for which all earlier ones are set by then: the driver cannot skip a step.
    fn write_status(&self, state: &mut DriverState, value: u32) {
        if value == 0 {
            return self.reset(state);
        }
        // NEEDS_RESET is the device's bit, but a driver that reads the register, adds a bit and
        // writes the sum has it in what it writes.
        let value = value & !NEEDS_RESET;
        let known = INITIALISATION.iter().fold(FAILED, |all, bit| all | bit);
        let is_sound = value & !known == 0 && !state.has(FAILED);
        if is_sound && value & FAILED != 0 {
            state.status |= FAILED;
            return;
        }
        if !is_sound || state.status & !value != 0 {
            if value & DRIVER_OK != 0 && !state.has(DRIVER_OK) {
                self.device.refuse_start(ActivateError::Status {
                    written: value,
                    status: state.status,
                });
            }
            return;
        }
        for (step, &bit) in INITIALISATION.iter().enumerate() {
            let before = INITIALISATION[..step].iter().fold(0, |all, bit| all | bit);
            if value & bit != 0 && !state.has(bit) && state.has(before) {
                self.advance(state, bit);
            }
        }
        if value & DRIVER_OK != 0 && !state.has(DRIVER_OK) {
            // It must read the status back before it goes on (section 3.1.1, steps 6 and 8).
            self.device.refuse_start(ActivateError::NotNegotiated);
        }
    }

    fn advance(&self, state: &mut DriverState, bit: u32) {
        match bit {
            FEATURES_OK if !self.accepts(state.driver_features) => {
                self.device.refuse_start(ActivateError::Features {
                    chosen: state.driver_features,
                    offered: self.device.device_features(),
                });
            }
            DRIVER_OK => {
                state.status |= DRIVER_OK;
                if let Err(why) = self.activate(state) {
                    self.device.refuse_start(why);
                    self.device.notifier().set_needs_reset();
                }
            }
            _ => state.status |= bit,
        }
    }

    fn accepts(&self, features: u64) -> bool {
        features & !self.device.device_features() == 0 && features & (1 << VIRTIO_F_VERSION_1) != 0
    }

    /// Starts the device with its queues, if the driver has set them up so that they can be used.
    fn activate(&self, state: &DriverState) -> Result<(), ActivateError> {
        let queues = self.build_queues(state)?;
        self.device.activate(state.driver_features, queues)
    }

    fn build_queues(&self, state: &DriverState) -> Result<Vec<Queue>, ActivateError> {
        let event_idx = state.driver_features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0;
        let queues = state.queues.iter().zip(self.device.queue_max_sizes());
        queues
            .enumerate()
            .map(|(index, (config, &max))| {
                config
                    .build(max, event_idx, &self.memory)
                    .map_err(|source| ActivateError::Queue { index, source })
            })
            .collect()
    }

    fn reset(&self, state: &mut DriverState) {
        self.device.reset();
        *state = DriverState::new(self.device.as_ref());
    }
}

impl DeviceMmio for MmioTransport {
    fn mmio_read(&self, _base: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        data.fill(0);
        match Access::decode(offset, data.len()) {
            Some(Access::Register(register)) => {
                data.copy_from_slice(&self.read_register(register).to_le_bytes());
            }
            Some(Access::Config(offset)) => self.device.read_config(offset, data),
            None => {}
        }
    }

    fn mmio_write(&self, _base: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        match Access::decode(offset, data.len()) {
            Some(Access::Register(register)) => {
                if let Ok(value) = data.try_into() {
                    self.write_register(register, u32::from_le_bytes(value));
                }
            }
            Some(Access::Config(offset)) => self.device.write_config(offset, data),
            None => {}
        }
    }
}

/// An access that the specification defines.
enum Access {
    /// A whole register, at this offset.
    Register(u32),
    /// Bytes of the configuration space, from this offset within it.
    Config(usize),
}

impl Access {
    fn decode(offset: u64, size: usize) -> Option<Self> {
        let offset = u32::try_from(offset).ok()?;
        if let Some(offset) = offset.checked_sub(reg::VIRTIO_MMIO_CONFIG) {
            let offset = usize::try_from(offset).ok()?;
            return matches!(size, 1 | 2 | 4 | 8).then_some(Self::Config(offset));
        }
        (size == REGISTER_SIZE && offset % 4 == 0).then_some(Self::Register(offset))
    }
}

fn write_queue_register(queue: &mut QueueConfig, register: u32, value: u32) {
    match register {
        reg::VIRTIO_MMIO_QUEUE_NUM => queue.size = value,
        reg::VIRTIO_MMIO_QUEUE_DESC_LOW => set_low(&mut queue.desc_table, value),
        reg::VIRTIO_MMIO_QUEUE_DESC_HIGH => set_high(&mut queue.desc_table, value),
        reg::VIRTIO_MMIO_QUEUE_AVAIL_LOW => set_low(&mut queue.avail_ring, value),
        reg::VIRTIO_MMIO_QUEUE_AVAIL_HIGH => set_high(&mut queue.avail_ring, value),
        reg::VIRTIO_MMIO_QUEUE_USED_LOW => set_low(&mut queue.used_ring, value),
        reg::VIRTIO_MMIO_QUEUE_USED_HIGH => set_high(&mut queue.used_ring, value),
        _ => {}
    }
}

/// Word `select` of a 64-bit value: 0 is the lower half, 1 the upper one, and all others are zero.
fn word(value: u64, select: u32) -> u32 {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    match select {
        0 => u32::from_le_bytes([a, b, c, d]),
        1 => u32::from_le_bytes([e, f, g, h]),
        _ => 0,
    }
}

fn set_low(target: &mut u64, value: u32) {
    *target = (*target >> 32 << 32) | u64::from(value);
}

fn set_high(target: &mut u64, value: u32) {
    *target = u64::from(word(*target, 0)) | (u64::from(value) << 32);
}

#[cfg(test)]
mod tests;
