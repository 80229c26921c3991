//! How a device tells its driver that something happened: the interrupt status register and the
//! NEEDS_RESET bit of the device status (virtio 1.2, sections 4.2.2 and 2.1). The line that all
//! devices share is an eventfd; who waits on it, and how the guest learns of it, is the machine's.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

#[cfg(not(miri))]
use rustix::event::PollFlags;
use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};
use vmm_sys_util::eventfd::EventFd;

#[cfg(not(miri))]
use crate::ready::{event_fd, is_ready};

/// Nothing has been raised, and nobody sleeps.
const QUIET: u32 = 0;
/// A notification waits to be taken.
const RAISED: u32 = 1;
/// Somebody sleeps until there is one.
const SLEEPING: u32 = 2;

/// The one way by which all devices of a machine wake the thread that runs its guest. One thread
/// waits for it.
///
/// A notification is a word in memory. The eventfd is only used to wake who sleeps, so that
/// neither a device whose driver is awake nor a thread that notifies itself makes a system call.
#[derive(Debug)]
pub struct NotificationLine {
    event: EventFd,
    state: AtomicU32,
    completions: AtomicU64,
}

impl NotificationLine {
    /// Creates a line that nothing has raised yet.
    ///
    /// # Errors
    ///
    /// The host's reason why there is no eventfd to be had.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            event: EventFd::new(0)?,
            state: AtomicU32::new(QUIET),
            completions: AtomicU64::new(0),
        })
    }

    /// How many buffers the devices have used since the line was created, notified or not.
    ///
    /// A buffer is counted after it can be seen in its used ring.
    #[must_use]
    pub fn completions(&self) -> u64 {
        self.completions.load(Ordering::SeqCst)
    }

    /// Takes a notification, if there is one, without waiting. Returns whether there was one.
    pub fn take(&self) -> bool {
        self.change(RAISED, QUIET)
    }

    /// Waits for a notification and takes it: one system call at the most, as this is where a
    /// guest spends its time.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::Interrupted`] if a signal came first.
    pub fn wait(&self) -> io::Result<()> {
        if !self.change(QUIET, SLEEPING) {
            self.state.swap(QUIET, Ordering::SeqCst);
            return Ok(());
        }
        let mut slept = self.sleep();
        // Whoever has seen a sleeper writes to the eventfd, and that must not be left there. After
        // another error than a signal's there is no use in asking again.
        let again = |slept: &io::Result<()>| {
            let error = slept.as_ref().err().map(io::Error::kind);
            error == Some(io::ErrorKind::Interrupted) && !self.change(SLEEPING, QUIET)
        };
        while again(&slept) {
            slept = self.sleep();
        }
        if slept.is_ok() {
            self.state.swap(QUIET, Ordering::SeqCst);
        }
        slept
    }

    /// Reads the eventfd without `EventFd::read`, which reads on after a signal: then nobody could
    /// tell whoever waits that there is nothing left to wait for.
    fn sleep(&self) -> io::Result<()> {
        let mut count = 0_u64;
        // SAFETY: the descriptor is open, and there is room for the eight bytes of a counter.
        let len = unsafe {
            libc::read(
                self.event.as_raw_fd(),
                (&raw mut count).cast(),
                size_of_val(&count),
            )
        };
        if len < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    fn raise(&self) {
        if self.state.swap(RAISED, Ordering::SeqCst) == SLEEPING {
            // The only failure is a counter that is full, and then the eventfd is readable anyway.
            let _ = self.event.write(1);
        }
    }

    fn change(&self, from: u32, to: u32) -> bool {
        self.state
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }
}

/// Tells the driver of one device that something has happened: the InterruptStatus register, and
/// the line.
#[derive(Debug)]
pub struct Notifier {
    line: Arc<NotificationLine>,
    status: AtomicU32,
    needs_reset: AtomicBool,
    driver_status: AtomicU32,
}

impl Notifier {
    /// Connects a device to the machine's line.
    #[must_use]
    pub fn new(line: Arc<NotificationLine>) -> Self {
        Self {
            line,
            status: AtomicU32::new(0),
            needs_reset: AtomicBool::new(false),
            driver_status: AtomicU32::new(0),
        }
    }

    /// Counts buffers that have just been put into a used ring, whether or not the driver wants
    /// to be notified of them.
    pub fn count_used(&self, buffers: u64) {
        self.line.completions.fetch_add(buffers, Ordering::SeqCst);
    }

    /// Sends the used buffer notification.
    pub fn signal_used(&self) {
        self.signal(VIRTIO_MMIO_INT_VRING);
    }

    /// Sends the configuration change notification.
    pub fn signal_config(&self) {
        self.signal(VIRTIO_MMIO_INT_CONFIG);
    }

    /// Tells the driver that the device has met an error that only a reset cures.
    pub fn set_needs_reset(&self) {
        self.needs_reset.store(true, Ordering::SeqCst);
        self.signal_config();
    }

    /// Whether the device waits for a reset.
    #[must_use]
    pub fn needs_reset(&self) -> bool {
        self.needs_reset.load(Ordering::SeqCst)
    }

    /// Takes note of the device status as the driver has set it: for the transport.
    pub(super) fn set_driver_status(&self, status: u32) {
        self.driver_status.store(status, Ordering::SeqCst);
    }

    /// The device status as the driver has set it, without NEEDS_RESET.
    #[must_use]
    pub fn driver_status(&self) -> u32 {
        self.driver_status.load(Ordering::SeqCst)
    }

    /// The interrupt status register.
    #[must_use]
    pub fn status(&self) -> u32 {
        self.status.load(Ordering::SeqCst)
    }

    /// Clears the bits that the driver has handled.
    pub fn acknowledge(&self, bits: u32) {
        self.status.fetch_and(!bits, Ordering::SeqCst);
    }

    /// Forgets everything but the number of completions, which belongs to the machine.
    pub fn reset(&self) {
        self.status.store(0, Ordering::SeqCst);
        self.needs_reset.store(false, Ordering::SeqCst);
    }

    fn signal(&self, bit: u32) {
        self.status.fetch_or(bit, Ordering::SeqCst);
        self.line.raise();
    }
}

/// For Miri, which has no `poll`. It answers as the function below does.
#[cfg(miri)]
pub(super) fn is_readable(event: &EventFd) -> bool {
    use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

    let look = || {
        let epoll = Epoll::new()?;
        let wanted = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, 0);
        epoll.ctl(ControlOperation::Add, event.as_raw_fd(), wanted)?;
        epoll.wait(0, &mut [EpollEvent::default()])
    };
    !matches!(look(), Ok(0))
}

/// Whether a read of `event` would return at once. An error of the host counts as that: who asks
/// then waits instead of concluding that nothing will ever happen.
#[cfg(not(miri))]
pub(super) fn is_readable(event: &EventFd) -> bool {
    is_ready(event_fd(event), PollFlags::IN).unwrap_or(true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::ffi::{c_int, c_void};
    use std::os::unix::thread::JoinHandleExt;
    use std::time::Duration;

    use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

    use super::*;

    fn notifier() -> Notifier {
        Notifier::new(Arc::new(NotificationLine::new().unwrap()))
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri knows no signals")]
    fn a_signal_to_the_thread_interrupts_a_wait() {
        extern "C" fn nothing(_: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {}
        let signal = SIGRTMIN() + 1;
        register_signal_handler(signal, nothing).unwrap();
        let line = NotificationLine::new().unwrap();
        let waiter = std::thread::spawn(move || line.wait());
        // The other thread may not wait yet, so this is done more than once.
        while !waiter.is_finished() {
            // SAFETY: the thread has not been joined, so that its handle is valid.
            unsafe { libc::pthread_kill(waiter.as_pthread_t(), signal) };
            std::thread::sleep(Duration::from_millis(1));
        }
        let error = waiter.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    }

    #[test]
    fn a_signal_sets_its_bit_and_makes_the_line_readable() {
        let notifier = notifier();
        assert!(!notifier.line.take());
        notifier.signal_used();
        assert_eq!(notifier.status(), VIRTIO_MMIO_INT_VRING);
        assert!(notifier.line.take());
    }

    #[test]
    fn a_notification_from_before_is_taken_without_waiting_and_only_once() {
        let notifier = notifier();
        notifier.signal_used();
        notifier.signal_used();
        notifier.line.wait().unwrap();
        assert!(!notifier.line.take());
        assert!(!is_readable(&notifier.line.event));
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri knows no signals")]
    fn no_notification_is_lost_between_waits_that_signals_interrupt() {
        extern "C" fn nothing(_: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {}
        let signal = SIGRTMIN() + 2;
        register_signal_handler(signal, nothing).unwrap();
        let notifier = Arc::new(notifier());
        let (sent, heard) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let waiter = {
            let (line, sent, heard) = (notifier.line.clone(), sent.clone(), heard.clone());
            std::thread::spawn(move || {
                while heard.load(Ordering::SeqCst) < 5000 {
                    if line.wait().is_ok() {
                        heard.store(sent.load(Ordering::SeqCst), Ordering::SeqCst);
                    }
                }
            })
        };
        for number in 1..=5000 {
            sent.store(number, Ordering::SeqCst);
            notifier.signal_used();
            // SAFETY: the thread has not been joined, so that its handle is valid.
            unsafe { libc::pthread_kill(waiter.as_pthread_t(), signal) };
            while heard.load(Ordering::SeqCst) < number {
                std::thread::yield_now();
            }
        }
        waiter.join().unwrap();
        assert!(
            !is_readable(&notifier.line.event),
            "a wake-up was left behind"
        );
    }

    #[test]
    fn only_acknowledged_bits_are_cleared() {
        let notifier = notifier();
        notifier.signal_used();
        notifier.signal_config();
        notifier.acknowledge(VIRTIO_MMIO_INT_VRING);
        assert_eq!(notifier.status(), VIRTIO_MMIO_INT_CONFIG);
    }

    #[test]
    fn needs_reset_is_announced_as_a_configuration_change() {
        let notifier = notifier();
        notifier.set_needs_reset();
        assert!(notifier.needs_reset());
        assert_eq!(notifier.status(), VIRTIO_MMIO_INT_CONFIG);
        notifier.reset();
        assert!(!notifier.needs_reset());
        assert_eq!(notifier.status(), 0);
    }

    #[test]
    fn completions_are_counted_without_a_notification() {
        let notifier = notifier();
        notifier.count_used(3);
        assert_eq!(notifier.line.completions(), 3);
        assert!(!notifier.line.take());
    }
}
