//! The vCPU: runs the guest and hands each exit to the device that it is for (KVM API, section
//! 4.10).

use std::sync::Arc;

use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use vm_device::bus::MmioAddress;
use vm_device::device_manager::{IoManager, MmioManager};

use super::coalesced::{self, read_port, write_port};
use super::ending::{Ender, VcpuEnd};
use super::fault::{self, Fault};
use super::helped::Devices;
use super::idle::IdlePort;
use super::poller::Poller;
use super::repeat::Retries;
use super::teardown::Teardown;
use super::{ExitCounts, GuestRam, MachineError, Whereabouts};
use crate::virtio::DeviceFault;

/// The end of a run, with what was counted.
#[derive(Clone, Debug)]
pub struct VcpuReport {
    /// How it ended.
    pub end: VcpuEnd,
    /// The exits it took.
    pub exits: ExitCounts,
    /// What the guest's drivers did wrong, for each device that does not work any more because of that
    /// or never did, with its slot.
    pub driver_faults: Vec<(usize, Arc<DeviceFault>)>,
}

/// A vCPU that is ready to run its guest, once.
pub struct Vcpu {
    vcpu: VcpuFd,
    bus: IoManager,
    idle: Option<Arc<IdlePort>>,
    devices: Devices,
    ender: Ender,
    exits: ExitCounts,
    retries: Retries,
    whereabouts: Arc<Whereabouts>,
    /// The VM, which is closed together with its vCPU and not before.
    _vm: (VmFd, Teardown),
    /// The memory that the vCPU reads and writes while it runs, given back after it is closed.
    ram: GuestRam,
}

/// A machine whose run is over. Dropping it closes what belongs to KVM, which the vCPU's own thread
/// need not be allowed to do.
pub struct SpentMachine(#[expect(dead_code, reason = "it is only there to be dropped")] Vcpu);

/// An exit, copied out of [`VcpuExit`]. That one borrows the vCPU, but before the exit is handled
/// the ring of collected writes has to be read, which takes the vCPU as well.
enum Exit {
    PioIn { port: u16, data: *mut [u8] },
    PioOut { port: u16, data: *const [u8] },
    MmioRead { address: u64, data: *mut [u8] },
    MmioWrite { address: u64, data: *const [u8] },
    Interrupted,
    End(VcpuEnd),
}

impl Vcpu {
    pub(super) fn new(
        vm: (VmFd, Teardown),
        vcpu: VcpuFd,
        ram: GuestRam,
        bus: IoManager,
        idle: Option<Arc<IdlePort>>,
        devices: Devices,
        ender: Ender,
    ) -> Self {
        Self {
            vcpu,
            bus,
            idle,
            devices,
            ender,
            exits: ExitCounts::default(),
            retries: Retries::default(),
            whereabouts: Arc::default(),
            _vm: vm,
            ram,
        }
    }

    /// The means to end its run from another thread.
    #[must_use]
    pub fn ender(&self) -> Ender {
        self.ender.clone()
    }

    /// Where its thread is, as of the last exit.
    #[must_use]
    pub fn whereabouts(&self) -> Arc<Whereabouts> {
        self.whereabouts.clone()
    }

    /// The slot of the first virtio device whose driver's kicks nobody takes.
    pub(crate) fn unattended(&self) -> Option<usize> {
        self.devices.unattended()
    }

    /// Makes what looks at the queues of the devices that are helped all the time, while the guest
    /// has a single request under way. It is to have a place on the thread of one of them:
    /// [`WithPoller`](super::WithPoller). `None` where it is of no use, as with a single processor
    /// or if no device is helped.
    ///
    /// # Errors
    ///
    /// [`MachineError::Line`] if the host has no eventfd.
    pub fn make_poller(&self) -> Result<Option<Arc<Poller>>, MachineError> {
        let idle = self.idle.as_ref();
        let poller = idle.map(|idle| idle.make_poller()).transpose();
        Ok(poller.map_err(MachineError::Line)?.flatten())
    }

    /// Runs the guest until it ends. For a thread of its own, which can be
    /// [nudged](super::Nudger).
    #[must_use]
    pub fn run(mut self) -> (VcpuReport, SpentMachine) {
        let end = loop {
            if let Some(end) = self.ender.take() {
                break end;
            }
            let exit = self.enter_guest();
            self.whereabouts.note();
            self.exits.coalesced += coalesced::drain(&mut self.vcpu, &self.bus);
            self.handle(exit);
        };
        let mut exits = self.exits;
        exits.idle = self.idle.as_ref().map_or(0, |idle| idle.visits());
        exits.pio_in -= exits.idle.min(exits.pio_in);
        let report = VcpuReport {
            end,
            exits,
            driver_faults: self.devices.faults(),
        };
        (report, SpentMachine(self))
    }

    fn enter_guest(&mut self) -> Exit {
        let exit = match self.vcpu.run() {
            Ok(VcpuExit::IoIn(port, data)) => Exit::PioIn { port, data },
            Ok(VcpuExit::IoOut(port, data)) => Exit::PioOut { port, data },
            Ok(VcpuExit::MmioRead(address, data)) => Exit::MmioRead { address, data },
            Ok(VcpuExit::MmioWrite(address, data)) => Exit::MmioWrite { address, data },
            Ok(VcpuExit::Intr) => Exit::Interrupted,
            Ok(VcpuExit::Shutdown) => {
                Exit::End(VcpuEnd::Fault(Fault::examine(&self.vcpu, self.ram.all())))
            }
            Ok(VcpuExit::FailEntry(reason, _)) => Exit::End(VcpuEnd::Unexpected(format!(
                "the processor refused to enter the guest (reason {reason:#x})"
            ))),
            Ok(VcpuExit::InternalError) => Exit::End(VcpuEnd::Unexpected(
                fault::explain_internal_error(&mut self.vcpu, self.ram.all()),
            )),
            Ok(other) => Exit::End(VcpuEnd::Unexpected(format!(
                "the guest left with {other:?}, which this machine has no use for"
            ))),
            Err(error) if error.errno() == libc::EINTR => Exit::Interrupted,
            Err(error) if error.errno() == libc::EAGAIN && self.retries.again() => {
                return Exit::Interrupted;
            }
            Err(error) => Exit::End(VcpuEnd::Kvm(error)),
        };
        self.retries.reset();
        exit
    }

    fn handle(&mut self, exit: Exit) {
        match exit {
            Exit::PioIn { port, data } => {
                self.exits.pio_in += 1;
                // SAFETY: the slice lies in the mapping that this vCPU shares with the kernel. It
                // lives as long as `self.vcpu`, which has not been run since, and nothing else
                // refers to that part of it.
                read_port(&self.bus, port, unsafe { &mut *data });
            }
            Exit::PioOut { port, data } => {
                self.exits.pio_out += 1;
                // SAFETY: as for input.
                write_port(&self.bus, port, unsafe { &*data });
            }
            Exit::MmioRead { address, data } => {
                self.exits.mmio_read += 1;
                // SAFETY: as for port input.
                let data = unsafe { &mut *data };
                // What the page tables map and no device fills reads as zeros.
                data.fill(0);
                let _ = self.bus.mmio_read(MmioAddress(address), data);
            }
            Exit::MmioWrite { address, data } => {
                self.exits.mmio_write += 1;
                // SAFETY: as for port input.
                let data = unsafe { &*data };
                let _ = self.bus.mmio_write(MmioAddress(address), data);
            }
            Exit::Interrupted => {
                self.exits.other += 1;
                if let Some(idle) = &self.idle {
                    idle.look_after_guest();
                }
            }
            Exit::End(end) => {
                self.exits.other += 1;
                self.ender.end(end);
            }
        }
    }
}
