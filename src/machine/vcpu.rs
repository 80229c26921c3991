//! The vCPU and its thread: runs the guest and hands each exit to the device that it is for (KVM
//! API, section 4.10).

use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use guest_abi::ports;
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use vm_device::bus::MmioAddress;
use vm_device::device_manager::{IoManager, MmioManager};
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use super::coalesced::{self, read_port, write_port};
use super::fault::{self, Fault};
use super::idle::{IdlePort, Wake};
use super::repeat::Retries;
use super::teardown::Teardown;
use super::{ExitCounts, GuestRam};

/// The signal that makes the vCPU leave the guest or the idle port.
#[allow(
    non_snake_case,
    reason = "it stands for a signal number, as in signal(7)"
)]
#[must_use]
pub fn KICK_SIGNAL() -> c_int {
    SIGRTMIN()
}

/// Installs a handler for [`KICK_SIGNAL`] that does nothing: that a system call is interrupted is
/// all that the signal is for.
///
/// # Errors
///
/// The system's reason.
pub fn ignore_kicks() -> Result<(), vmm_sys_util::errno::Error> {
    extern "C" fn nothing(_: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {}
    register_signal_handler(KICK_SIGNAL(), nothing)
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VcpuEnd {
    /// The guest wrote this status to the exit port.
    Exited(u8),
    /// [`VcpuControl::stop`] was called.
    Stopped,
    /// The guest did what it must not do.
    Fault(Fault),
    /// The guest waits, and no device has anything to do.
    NothingInFlight,
    /// The guest did something that this machine has no answer to.
    Unexpected(String),
    /// KVM failed.
    Kvm(kvm_ioctls::Error),
}

/// The end of a run, with what was counted.
#[derive(Clone, Debug)]
pub struct VcpuReport {
    /// How it ended.
    pub end: VcpuEnd,
    /// The exits it took.
    pub exits: ExitCounts,
}

/// Controls a running vCPU from another thread.
#[derive(Clone, Debug)]
pub struct VcpuControl {
    stop: Arc<AtomicBool>,
}

impl VcpuControl {
    /// Makes the vCPU end at its next look. It looks after each exit and each kick.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// A vCPU that is ready to run its guest, once.
pub struct Vcpu {
    vcpu: VcpuFd,
    bus: IoManager,
    idle: IdlePort,
    control: VcpuControl,
    exits: ExitCounts,
    retries: Retries,
    ram: GuestRam,
    /// The VM lives as long as its vCPU, whatever the kernel would allow.
    _vm: (VmFd, Teardown),
}

/// What is left of a machine whose vCPU has ended. Dropping it closes what belongs to KVM, which
/// the vCPU's own thread need not be allowed to do.
pub struct Remains(#[expect(dead_code, reason = "it is only there to be dropped")] Vcpu);

/// An exit without the borrow of the vCPU that the ring of coalesced writes needs.
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
        idle: IdlePort,
    ) -> Self {
        let control = VcpuControl {
            stop: Arc::default(),
        };
        Self {
            vcpu,
            bus,
            idle,
            control,
            exits: ExitCounts::default(),
            retries: Retries::default(),
            ram,
            _vm: vm,
        }
    }

    /// The means to control it from another thread.
    #[must_use]
    pub fn control(&self) -> VcpuControl {
        self.control.clone()
    }

    /// Runs the guest until it ends. For a thread of its own.
    #[must_use]
    pub fn run(mut self) -> (VcpuReport, Remains) {
        let end = loop {
            if self.control.stop.load(Ordering::SeqCst) {
                break VcpuEnd::Stopped;
            }
            let exit = self.enter_guest();
            self.exits.coalesced += coalesced::drain(&mut self.vcpu, &self.bus);
            if let Some(end) = self.handle(exit) {
                break end;
            }
        };
        let exits = self.exits;
        (VcpuReport { end, exits }, Remains(self))
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

    /// Handles an exit; returns how the run ended if it did.
    fn handle(&mut self, exit: Exit) -> Option<VcpuEnd> {
        match exit {
            Exit::PioIn { port, data } => {
                // SAFETY: the slice lies in the mapping that this vCPU shares with the kernel. It
                // lives as long as `self.vcpu`, which has not been run since, and nothing else
                // refers to that part of it.
                let data = unsafe { &mut *data };
                if port == ports::IDLE {
                    return self.idle(data);
                }
                self.exits.pio_in += 1;
                read_port(&self.bus, port, data);
            }
            Exit::PioOut { port, data } => {
                self.exits.pio_out += 1;
                // SAFETY: as for input.
                let data = unsafe { &*data };
                if let (ports::EXIT, [status, ..]) = (port, data) {
                    return Some(VcpuEnd::Exited(*status));
                }
                write_port(&self.bus, port, data);
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
                // For a guest that does not wait for its devices but looks again and again.
                self.idle.help();
            }
            Exit::End(end) => {
                self.exits.other += 1;
                return Some(end);
            }
        }
        None
    }

    fn idle(&mut self, data: &mut [u8]) -> Option<VcpuEnd> {
        self.exits.idle += 1;
        data.fill(0);
        match self.idle.wait(&self.control.stop) {
            Wake::Notified => None,
            Wake::Stopped => Some(VcpuEnd::Stopped),
            Wake::NothingInFlight => Some(VcpuEnd::NothingInFlight),
        }
    }
}
