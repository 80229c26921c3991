//! The virtual machine: memory slots, devices on their buses, and in the end the vCPU.

use std::io;
use std::sync::Arc;

use guest_abi::layout::{MAX_SLOTS, MMIO_SIZE, Shape};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Cap, IoEventAddress, Kvm, VmFd};
use vm_device::bus::{self, MmioAddress, MmioRange};
use vm_device::device_manager::{IoManager, MmioManager, PioManager};
use vm_device::{DeviceMmio, DevicePio};
use vm_memory::{GuestMemoryMmap, GuestMemoryRegion};

use super::helped::Devices;
use super::idle::IdlePort;
use super::table::{Ports, Slot, is_register_page};
use super::teardown::Teardown;
use super::vcpu::Vcpu;
use super::{Ender, ExitPort, GuestRam, LoadError, LoadedImage, MemoryError};
use super::{loader, page_tables, processor, registers, repeat, segments};
use crate::limits::hint_of;
use crate::reason::reason;
use crate::repeat::interrupted;
use crate::virtio::{MmioTransport, NotificationLine, VirtioDevice};

/// Offset of the QueueNotify register (virtio 1.2, section 4.2.2).
const QUEUE_NOTIFY: u64 = 0x50;
/// Offset of the InterruptACK register.
const INTERRUPT_ACK: u64 = 0x64;
/// Offset of the configuration space, behind the last register.
const CONFIG_SPACE: u64 = 0x100;
/// Address of three pages that VMX needs for its own use (KVM API, section 4.36). It is far from
/// all memory and registers of the guest.
const TSS_ADDRESS: usize = 0xfffb_d000;

/// The machine could not be built.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// A KVM call failed.
    #[error("KVM refused {what}: {}{}", reason(source), repeat::hint(*source))]
    Kvm {
        /// What was asked of it.
        what: &'static str,
        /// Its reason.
        source: kvm_ioctls::Error,
    },
    /// There is no memory for it.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Two devices want the same addresses.
    #[error("cannot put a device on the bus: {0}")]
    Bus(bus::Error),
    /// The address is none at which registers can be.
    #[error(
        "cannot put a device at {0:#x}: its registers must be a page behind those of the virtio \
         devices"
    )]
    RegisterPage(u64),
    /// More virtio devices than the machine was made for.
    #[error("cannot add another virtio device: the machine was made for {0}")]
    Slots(usize),
    /// The host has no eventfd for the line.
    #[error("cannot make the machine's notification line: {}{}", reason(.0), hint_of(.0))]
    Line(io::Error),
    /// The guest cannot be loaded.
    #[error("the guest cannot be loaded: {0}")]
    Load(#[from] LoadError),
    /// The processor's tables cannot be written.
    #[error("cannot set up the guest's memory: {0}")]
    Tables(#[from] vm_memory::GuestMemoryError),
}

/// Asks KVM for `what`, again if a signal interrupts the call.
fn ask<T>(
    what: &'static str,
    call: impl FnMut() -> Result<T, kvm_ioctls::Error>,
) -> Result<T, MachineError> {
    interrupted(call).map_err(|source| MachineError::Kvm { what, source })
}

/// Whether KVM offers `capability` to `vm`. An error is no answer: zones without the ring that
/// takes their writes would lose what the guest says.
fn has(vm: &VmFd, capability: Cap) -> Result<bool, MachineError> {
    let answer = repeat::capability(|| vm.check_extension_int(capability));
    let what = "to say what it can do";
    answer
        .map(|answer| answer > 0)
        .map_err(|source| MachineError::Kvm { what, source })
}

/// A virtual machine that takes devices and has no guest yet.
///
/// What is added is what the guest may touch, and nothing else: page tables, the I/O permission
/// bitmap, ioeventfds and the idle port's list of devices follow from it.
///
/// ```
/// use std::sync::Arc;
/// use vmm::machine::{Machine, Ports, open_kvm};
/// use vmm::runtime::SerialPort;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # if open_kvm().is_err() {
/// #     return Ok(());
/// # }
/// let mut machine = Machine::new(open_kvm()?, 0)?;
/// let com1 = SerialPort::for_reports()?;
/// machine.add_pio(Ports::new(0x3f8, 8), com1.uart.clone())?;
/// // The ports are taken now.
/// assert!(machine.add_exit_port(0x3f8).is_err());
/// # Ok(())
/// # }
/// ```
pub struct Machine {
    vm: VmFd,
    ram: GuestRam,
    bus: IoManager,
    slots: usize,
    ports: Vec<u16>,
    pages: Vec<u64>,
    devices: Devices,
    line: Arc<NotificationLine>,
    idle: Option<Arc<IdlePort>>,
    ender: Ender,
}

impl Machine {
    /// A machine for at most `slots` virtio devices, up to 16, with RAM below 8 MiB and nothing else.
    ///
    /// # Errors
    ///
    /// The KVM call that failed.
    pub fn new(kvm: Kvm, slots: usize) -> Result<Self, MachineError> {
        Self::of_shape(&kvm, Shape { slots, heap: false })
    }

    /// As [`new`](Self::new), with 3 MiB more of RAM between the data pool and the stack, which the
    /// guest may use and devices never reach (`guest_abi::layout::HEAP`).
    ///
    /// # Errors
    ///
    /// The KVM call that failed.
    pub fn with_heap(kvm: Kvm, slots: usize) -> Result<Self, MachineError> {
        Self::of_shape(&kvm, Shape { slots, heap: true })
    }

    fn of_shape(kvm: &Kvm, shape: Shape) -> Result<Self, MachineError> {
        let slots = shape.slots;
        if slots > MAX_SLOTS {
            return Err(MachineError::Slots(MAX_SLOTS));
        }
        let ram = GuestRam::new(shape)?;
        let vm = ask("a virtual machine", || kvm.create_vm())?;
        if has(&vm, Cap::SetTssAddr)? {
            ask("an address for its own task state segment", || {
                vm.set_tss_address(TSS_ADDRESS)
            })?;
        }
        for (slot, region) in (0..).zip(ram.reachable()) {
            let slot = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: region.start_addr().0,
                memory_size: region.len(),
                userspace_addr: region.as_ptr() as u64,
            };
            ask("the guest's memory", || {
                // SAFETY: the region is a mapping of that size. KVM uses it only while the one vCPU
                // runs, which `Vcpu` closes before it gives the RAM back.
                unsafe { vm.set_user_memory_region(slot) }
            })?;
        }
        Ok(Self {
            vm,
            ram,
            bus: IoManager::new(),
            slots,
            ports: Vec::new(),
            pages: Vec::new(),
            devices: Devices::default(),
            line: Arc::new(NotificationLine::new().map_err(MachineError::Line)?),
            idle: None,
            ender: Ender::default(),
        })
    }

    /// The memory that devices may read and write: their queues and the data pool. A device that
    /// holds only this cannot be talked into changing page tables, code or stack.
    #[must_use]
    pub fn memory(&self) -> &GuestMemoryMmap {
        self.ram.dma()
    }

    /// The line on which the machine's devices notify.
    #[must_use]
    pub fn line(&self) -> Arc<NotificationLine> {
        self.line.clone()
    }

    /// The means to end the machine's run, for a device that is to do so.
    #[must_use]
    pub fn ender(&self) -> Ender {
        self.ender.clone()
    }

    /// Puts `device` at `ports`, and opens them to the guest.
    ///
    /// # Errors
    ///
    /// The ports are taken, or KVM refuses.
    pub fn add_pio(
        &mut self,
        ports: Ports,
        device: Arc<dyn DevicePio + Send + Sync>,
    ) -> Result<(), MachineError> {
        let range = ports.range().map_err(MachineError::Bus)?;
        self.bus
            .register_pio(range, device)
            .map_err(MachineError::Bus)?;
        self.ports.extend(ports.iter());
        if let Some(port) = ports.posted()
            && has(&self.vm, Cap::CoalescedPio)?
        {
            ask("coalesced port I/O", || {
                let port = IoEventAddress::Pio(port.into());
                self.vm.register_coalesced_mmio(port, 1)
            })?;
        }
        Ok(())
    }

    /// Puts an exit port at `port`: a byte written to it ends the run with that status.
    ///
    /// # Errors
    ///
    /// The port is taken.
    pub fn add_exit_port(&mut self, port: u16) -> Result<(), MachineError> {
        let device = ExitPort::new(self.ender());
        self.add_pio(Ports::new(port, 1), Arc::new(device))
    }

    /// Puts the idle port at `port`: a read of it returns when a device has sent a used buffer
    /// notification. While the guest waits there the vCPU's thread serves the devices in the slots
    /// `helped` itself, where that is of use.
    ///
    /// # Errors
    ///
    /// The port is taken.
    pub fn add_idle_port(
        &mut self,
        port: u16,
        helped: impl IntoIterator<Item = Slot>,
    ) -> Result<(), MachineError> {
        let helped = helped.into_iter().map(Slot::index).collect();
        let idle = IdlePort::new(self.line(), self.devices.clone(), helped, self.ender());
        let idle = Arc::new(idle);
        self.idle = Some(idle.clone());
        self.add_pio(Ports::new(port, 1), idle)
    }

    /// Puts `device` at the page of registers at `page`, which lies behind those of the virtio
    /// devices, and opens the page to the guest.
    ///
    /// # Errors
    ///
    /// The address is not that of such a page, or the page is taken.
    pub fn add_mmio(
        &mut self,
        page: u64,
        device: Arc<dyn DeviceMmio + Send + Sync>,
    ) -> Result<(), MachineError> {
        if !is_register_page(page) {
            return Err(MachineError::RegisterPage(page));
        }
        self.add_registers(page, device)
    }

    fn add_registers(
        &mut self,
        page: u64,
        device: Arc<dyn DeviceMmio + Send + Sync>,
    ) -> Result<(), MachineError> {
        let range = MmioRange::new(MmioAddress(page), MMIO_SIZE).map_err(MachineError::Bus)?;
        self.bus
            .register_mmio(range, device)
            .map_err(MachineError::Bus)?;
        self.pages.push(page);
        Ok(())
    }

    /// Puts `device` behind a virtio-mmio transport in the next slot, and lets the guest's writes
    /// to QueueNotify fire the queues' eventfds without leaving for user space. A KVM without
    /// ioeventfd leaves for each of them, and the transport fires the eventfd. Writes of other
    /// registers than InterruptACK are collected, where KVM can, until something is read.
    ///
    /// # Errors
    ///
    /// If there is no slot left or KVM refuses.
    pub fn add_virtio(&mut self, device: Arc<dyn VirtioDevice>) -> Result<Slot, MachineError> {
        let slot = Slot(self.devices.len());
        if slot.index() >= self.slots {
            return Err(MachineError::Slots(self.slots));
        }
        let transport = MmioTransport::new(device.clone(), self.memory().clone());
        self.add_registers(slot.registers(), Arc::new(transport))?;
        let address = |offset| IoEventAddress::Mmio(slot.registers() + offset);
        if has(&self.vm, Cap::CoalescedMmio)? {
            // QueueNotify is left out, so that a kick can arrive before register writes that the
            // guest made earlier. That does no harm, since a device looks at its queues when it is
            // activated. InterruptACK is left out because it speaks of what the driver has seen so
            // far: carried out late, it would clear a notification that came after it.
            let after = |register| register + size_of::<u32>() as u64;
            for (start, end) in [
                (0, QUEUE_NOTIFY),
                (after(QUEUE_NOTIFY), INTERRUPT_ACK),
                (after(INTERRUPT_ACK), CONFIG_SPACE),
            ] {
                let size = u32::try_from(end - start).unwrap_or_default();
                ask("coalesced register writes", || {
                    self.vm.register_coalesced_mmio(address(start), size)
                })?;
            }
        }
        if has(&self.vm, Cap::Ioeventfd)? {
            // Matching four bytes that hold the queue's index needs no more than the oldest
            // ioeventfd; any other write goes to the transport.
            for (index, event) in (0_u32..).zip(device.queue_events()) {
                ask("an ioeventfd", || {
                    self.vm
                        .register_ioevent(event, &address(QUEUE_NOTIFY), index)
                })?;
            }
        }
        self.devices.add(device);
        Ok(slot)
    }

    /// Loads a guest, confines it and makes the vCPU that will run it. The machine is complete
    /// then: no device can be added to it.
    ///
    /// # Errors
    ///
    /// If the image cannot be loaded or KVM refuses.
    pub fn boot(self, image: &[u8]) -> Result<Vcpu, MachineError> {
        let LoadedImage { entry, permissions } = loader::load(self.ram.image(), image)?;
        page_tables::write(&self.ram, &permissions, &self.pages)?;
        segments::write_tables(self.ram.all(), &self.ports)?;
        let cpuid = ask("what CPUID is to say", processor::cpuid)?;
        let mut vcpu = ask("a vCPU", || self.vm.create_vcpu(0))?;
        ask("the vCPU's registers", || {
            registers::set_up(&vcpu, &cpuid, entry)
        })?;
        if has(&self.vm, Cap::CoalescedMmio)? {
            ask("the ring of coalesced writes", || {
                vcpu.map_coalesced_mmio_ring()
            })?;
        }
        let teardown = Teardown::leave_to_kernel(&self.vm, &vcpu);
        Ok(Vcpu::new(
            (self.vm, teardown),
            vcpu,
            self.ram,
            self.bus,
            self.idle,
            self.devices,
            self.ender,
        ))
    }
}

#[cfg(test)]
mod tests;
