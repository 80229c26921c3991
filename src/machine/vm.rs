//! Builds the virtual machine: memory slots, devices on their buses, and in the end the vCPU.

use std::sync::Arc;

use guest_abi::layout::{INPUT_MMIO, MMIO_SIZE, OUTPUT_MMIO};
use guest_abi::ports::{self, UART_DATA};
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, VmFd};
use vm_device::DevicePio;
use vm_device::bus::{self, MmioAddress, MmioRange, PioAddress, PioRange};
use vm_device::device_manager::{IoManager, MmioManager, PioManager};
use vm_memory::GuestMemoryRegion;

use super::idle::IdlePort;
use super::memory::to_usize;
use super::teardown::Teardown;
use super::vcpu::Vcpu;
use super::{GuestRam, LoadError, LoadedImage, loader, page_tables, registers, repeat, segments};
use crate::virtio::{MmioTransport, VirtioDevice};

/// Offset of the QueueNotify register (virtio 1.2, section 4.2.2).
const QUEUE_NOTIFY: u64 = 0x50;
/// Offset of the configuration space, behind the last register.
const CONFIG_SPACE: u64 = 0x100;
/// Three unused pages far from guest memory, which VMX wants for its own use (KVM API, 4.35).
const TSS_ADDRESS: usize = 0xfffb_d000;

/// The machine could not be built.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// A KVM call failed.
    #[error("KVM refused {what}: {source}{}", repeat::hint(*source))]
    Kvm {
        /// What was asked of it.
        what: &'static str,
        /// Its reason.
        source: kvm_ioctls::Error,
    },
    /// Two devices want the same addresses.
    #[error("cannot put a device on the bus: {0}")]
    Bus(bus::Error),
    /// The guest cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The processor's tables cannot be written.
    #[error("cannot set up the guest's memory: {0}")]
    Tables(#[from] vm_memory::GuestMemoryError),
}

fn refused(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> MachineError {
    move |source| MachineError::Kvm { what, source }
}

/// A virtual machine that takes devices and has no guest yet.
pub struct Machine {
    kvm: Kvm,
    vm: VmFd,
    ram: GuestRam,
    bus: IoManager,
}

impl Machine {
    /// A machine with `ram` and nothing else.
    ///
    /// # Errors
    ///
    /// The KVM call that failed.
    pub fn new(kvm: Kvm, ram: GuestRam) -> Result<Self, MachineError> {
        let vm = repeat::interrupted(|| kvm.create_vm()).map_err(refused("a virtual machine"))?;
        if vm.check_extension(Cap::SetTssAddr) {
            repeat::interrupted(|| vm.set_tss_address(TSS_ADDRESS))
                .map_err(refused("an address for its own task state segment"))?;
        }
        for (slot, region) in (0..).zip(ram.reachable()) {
            let slot = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: region.start_addr().0,
                memory_size: region.len(),
                userspace_addr: region.as_ptr() as u64,
            };
            // SAFETY: the region is a mapping of that size, and lives as long as the VM: both
            // `Machine` and `Vcpu` keep the RAM beside the file descriptors.
            repeat::interrupted(|| unsafe { vm.set_user_memory_region(slot) })
                .map_err(refused("the guest's memory"))?;
        }
        Ok(Self {
            kvm,
            vm,
            ram,
            bus: IoManager::new(),
        })
    }

    /// Puts a UART at its eight ports. Where KVM can, it collects what is written to the data
    /// register; elsewhere each byte is an exit.
    ///
    /// # Errors
    ///
    /// If the ports are taken or KVM refuses.
    pub fn add_uart(
        &mut self,
        first_port: u16,
        uart: Arc<dyn DevicePio + Send + Sync>,
    ) -> Result<(), MachineError> {
        let range =
            PioRange::new(PioAddress(first_port), ports::UART_PORTS).map_err(MachineError::Bus)?;
        self.bus
            .register_pio(range, uart)
            .map_err(MachineError::Bus)?;
        if self.vm.check_extension(Cap::CoalescedPio) {
            let data = IoEventAddress::Pio(u64::from(first_port + UART_DATA));
            self.vm
                .register_coalesced_mmio(data, 1)
                .map_err(refused("coalesced port I/O"))?;
        }
        Ok(())
    }

    /// Puts `device` at `base` behind a virtio-mmio transport, and lets the guest's writes to
    /// QueueNotify fire the queues' eventfds without leaving for user space. A KVM without
    /// ioeventfd leaves for each of them, and the transport fires the eventfd. Writes of other
    /// registers are collected, where KVM can, until something is read.
    ///
    /// # Errors
    ///
    /// If the addresses are taken or KVM refuses.
    pub fn add_virtio_mmio(
        &mut self,
        base: u64,
        device: Arc<dyn VirtioDevice>,
    ) -> Result<(), MachineError> {
        let range = MmioRange::new(MmioAddress(base), MMIO_SIZE).map_err(MachineError::Bus)?;
        let transport = MmioTransport::new(device.clone(), self.ram.dma().clone());
        self.bus
            .register_mmio(range, Arc::new(transport))
            .map_err(MachineError::Bus)?;
        if self.vm.check_extension(Cap::CoalescedMmio) {
            // All but QueueNotify. That kicks can overtake what was written before them is all
            // right: a device looks at its queues when it is activated.
            let behind = QUEUE_NOTIFY + size_of::<u32>() as u64;
            for (start, end) in [(0, QUEUE_NOTIFY), (behind, CONFIG_SPACE)] {
                let address = IoEventAddress::Mmio(base + start);
                let size = u32::try_from(end - start).unwrap_or_default();
                self.vm
                    .register_coalesced_mmio(address, size)
                    .map_err(refused("coalesced register writes"))?;
            }
        }
        if self.vm.check_extension(Cap::Ioeventfd) {
            let notify = IoEventAddress::Mmio(base + QUEUE_NOTIFY);
            // Matching four bytes that hold the queue's index needs no more than the oldest
            // ioeventfd; any other write goes to the transport.
            for (index, event) in (0_u32..).zip(device.queue_events()) {
                self.vm
                    .register_ioevent(event, &notify, index)
                    .map_err(refused("an ioeventfd"))?;
            }
        }
        Ok(())
    }

    /// Loads a guest, confines it and makes the vCPU that will run it. The machine is complete
    /// then: no device can be added to it.
    ///
    /// # Errors
    ///
    /// If the image cannot be loaded or KVM refuses.
    pub fn boot(self, image: &[u8], idle: IdlePort) -> Result<Vcpu, MachineError> {
        let LoadedImage { entry, permissions } = loader::load(self.ram.image(), image)?;
        page_tables::write(&self.ram, &permissions, &[INPUT_MMIO, OUTPUT_MMIO])?;
        segments::write_tables(self.ram.all())?;
        let cpuid = self
            .kvm
            .get_supported_cpuid(to_usize(KVM_MAX_CPUID_ENTRIES as u64))
            .map_err(refused("its CPUID"))?;
        let mut vcpu = repeat::interrupted(|| self.vm.create_vcpu(0)).map_err(refused("a vCPU"))?;
        repeat::interrupted(|| registers::set_up(&vcpu, &cpuid, entry))
            .map_err(refused("the vCPU's registers"))?;
        if self.vm.check_extension(Cap::CoalescedMmio) {
            vcpu.map_coalesced_mmio_ring()
                .map_err(refused("the ring of coalesced writes"))?;
        }
        let teardown = Teardown::leave_to_kernel(&self.vm, &vcpu);
        let vm = (self.vm, teardown);
        Ok(Vcpu::new(vm, vcpu, self.ram, self.bus, idle))
    }
}
