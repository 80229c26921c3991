//! The idle port: where the vCPU waits for its devices.
//!
//! A read of it returns once a device has sent a used buffer notification. If nothing is in
//! flight on any queue no one can ever send one, and the run is over.
//!
//! While the guest waits here the vCPU's thread has nothing to do, so it serves the queues itself
//! instead of waking a thread that would then have to wake it: helping. Between two waits nobody
//! looks at a queue that is helped, since the guest is about to come back, and so it is not asked
//! to kick. What it has made available all the same is found at the next nudge of the vCPU; and a
//! guest that has not come back for some time by then is left to the devices' threads for good, so
//! that it waits for such a nudge once and never again.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::io::Errno;
use vm_device::DevicePio;
use vm_device::bus::{PioAddress, PioAddressOffset};

use super::helped::{Devices, Helped};
use super::poller::Poller;
use super::{Ender, VcpuEnd};
use crate::virtio::NotificationLine;

/// After so many waits for a single buffer, most of those to come will be for one too.
const ALONE: u32 = 64;
/// A wait for more than that is worth so many of them: a report now and then changes nothing.
const TOGETHER: u32 = 8;

/// Where the vCPU of a machine waits.
pub struct IdlePort {
    line: Arc<NotificationLine>,
    devices: Devices,
    ender: Ender,
    helped: Arc<Helped>,
    /// What may look at the queues all the time, so that the guest need not come here.
    poller: OnceLock<Arc<Poller>>,
    /// Waits for a single buffer, less [`TOGETHER`] for each that was for more, up to [`ALONE`].
    alone: AtomicU32,
    /// How often the guest has read the port.
    visits: AtomicU64,
    /// [`NotificationLine::completions`] when the guest was last let go.
    seen: AtomicU64,
}

impl IdlePort {
    /// The idle port of a machine with these devices, of which those in the slots `helped` are
    /// helped.
    pub(super) fn new(
        line: Arc<NotificationLine>,
        devices: Devices,
        helped: Vec<usize>,
        ender: Ender,
    ) -> Self {
        Self {
            line,
            helped: Arc::new(Helped::new(devices.clone(), helped)),
            devices,
            ender,
            poller: OnceLock::new(),
            alone: AtomicU32::new(0),
            visits: AtomicU64::new(0),
            seen: AtomicU64::new(0),
        }
    }

    /// Makes what looks at the queues of the helped devices all the time when that is of use, if it
    /// ever can be on this machine.
    pub(super) fn make_poller(&self) -> io::Result<Option<Arc<Poller>>> {
        if self.helped.has_none() {
            return Ok(None);
        }
        let poller = Poller::new(self.helped.clone())?.map(Arc::new);
        Ok(poller.map(|poller| self.poller.get_or_init(|| poller).clone()))
    }

    /// How often the guest has waited here.
    pub(super) fn visits(&self) -> u64 {
        self.visits.load(Ordering::Relaxed)
    }

    /// For each nudge that makes the vCPU leave the guest: does what the guest has made available
    /// meanwhile, and ends helping if the guest has been away for long. Where the queues are looked
    /// at all the time there is nothing to be done.
    pub(super) fn look_after_guest(&self) {
        if !self.is_polled() {
            self.helped.look_after_guest();
        }
    }

    fn is_polled(&self) -> bool {
        self.poller.get().is_some_and(|poller| poller.is_active())
    }

    /// Waits until a device notifies or the run is ended. A signal makes it look again.
    fn wait(&self) {
        self.visits.fetch_add(1, Ordering::Relaxed);
        if !self.is_polled() {
            self.helped.arrive();
        }
        loop {
            if self.ender.has_ended() {
                break;
            }
            self.helped.serve();
            if self.line.take() {
                break;
            }
            if !self.devices.any(|device| device.in_flight()) {
                if !self.was_notified() {
                    self.devices.blame_unfinished();
                    self.ender.end(VcpuEnd::NothingInFlight);
                }
                break;
            }
            match self.line.wait() {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                    self.ender.end(VcpuEnd::Wait(errno));
                }
            }
        }
        let completions = self.line.completions();
        let seen = self.seen.swap(completions, Ordering::Relaxed);
        self.helped.leave();
        self.note_wait(completions - seen);
    }

    /// Takes note of a wait for so many buffers.
    fn note_wait(&self, buffers: u64) {
        let alone = self.alone.load(Ordering::Relaxed);
        let alone = match buffers {
            0 | 1 => ALONE.min(alone + 1),
            _ => alone.saturating_sub(TOGETHER),
        };
        self.alone.store(alone, Ordering::Relaxed);
        // Where nothing is helped the poller would look in vain, and its thread has a disk of its own.
        if alone == ALONE
            && self.helped.is_on()
            && let Some(poller) = self.poller.get()
        {
            poller.call();
        }
    }

    /// Whether there is something for the guest although all devices rest. A device may have
    /// notified between the guest's last look and now. Or it has used buffers without a
    /// notification, because the guest asked for one only after that.
    fn was_notified(&self) -> bool {
        let seen = self.seen.load(Ordering::Relaxed);
        self.line.take() || self.line.completions() != seen
    }
}

impl DevicePio for IdlePort {
    fn pio_read(&self, _base: PioAddress, _offset: PioAddressOffset, data: &mut [u8]) {
        data.fill(0);
        self.wait();
    }

    fn pio_write(&self, _base: PioAddress, _offset: PioAddressOffset, _data: &[u8]) {}
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::thread::available_parallelism;

    use vm_memory::{Bytes, GuestAddress};

    use super::*;
    use crate::machine::helped::ABSENCE;
    use crate::machine::testing::SlowDriver;
    use crate::virtio::VirtioDevice;
    use crate::virtio::testing::AVAIL_RING;

    /// A machine's idle port with one disk that it helps, and the driver of that disk.
    struct Scene {
        port: IdlePort,
        disk: SlowDriver,
        ender: Ender,
    }

    impl Scene {
        /// With a driver that has shown that it waits for each request.
        fn new() -> Self {
            let (disk, ender) = (SlowDriver::new(), Ender::default());
            let (line, devices) = (disk.line.clone(), disk.devices());
            let port = IdlePort::new(line, devices, vec![0], ender.clone());
            let scene = Self { port, disk, ender };
            // Takes note of what was done before it was there, and that the guest comes here.
            scene.port.wait();
            scene
        }
    }

    #[test]
    fn a_guest_that_waits_finds_its_request_done_without_a_kick() {
        let mut scene = Scene::new();
        for _ in 0..20 {
            scene.disk.request();
            scene.port.wait();
            assert!(scene.disk.driver.pop_used().is_some());
        }
        assert!(!scene.ender.has_ended());
        assert_eq!(
            scene.disk.block.counters().kicks,
            20,
            "no more than by the scene"
        );
    }

    #[test]
    fn a_guest_that_polls_waits_for_a_look_once_and_is_then_served_by_kicks() {
        let mut scene = Scene::new();
        scene.disk.request();
        scene.port.look_after_guest();
        assert!(
            scene.disk.driver.pop_used().is_some(),
            "not left for another look"
        );

        scene.disk.request();
        std::thread::sleep(ABSENCE);
        scene.port.look_after_guest();
        assert!(scene.disk.driver.pop_used().is_some());
        // The device's thread is told, and asks for kicks from now on.
        assert!(scene.disk.block.in_flight());
        scene.disk.block.handle_kick(0);
        for _ in 0..20 {
            scene.disk.request();
            scene.disk.block.handle_kick(0);
            assert!(scene.disk.driver.pop_used().is_some());
            scene.port.wait();
            scene.port.look_after_guest();
        }
        let before = scene.disk.block.counters().requests;
        scene.disk.request();
        scene.port.look_after_guest();
        assert_eq!(
            scene.disk.block.counters().requests,
            before,
            "helping is over"
        );
    }

    #[test]
    fn a_guest_that_is_away_without_having_asked_for_anything_is_helped_on() {
        let mut scene = Scene::new();
        std::thread::sleep(ABSENCE);
        scene.port.look_after_guest();
        scene.disk.request();
        scene.port.wait();
        assert!(scene.disk.driver.pop_used().is_some());
    }

    #[test]
    fn a_guest_that_waits_for_nothing_is_told() {
        let scene = Scene::new();
        scene.port.wait();
        assert_eq!(scene.ender.take(), Some(VcpuEnd::NothingInFlight));
    }

    #[test]
    fn a_guest_that_wanted_no_notification_finds_what_was_done_before_it_waits() {
        let mut scene = Scene::new();
        // VIRTQ_AVAIL_F_NO_INTERRUPT
        let flags = GuestAddress(AVAIL_RING);
        scene.disk.driver.memory.write_obj(1_u16, flags).unwrap();
        scene.disk.request();
        scene.disk.block.handle_kick(0);
        scene.port.wait();
        assert!(!scene.ender.has_ended());
        scene.port.wait();
        assert_eq!(scene.ender.take(), Some(VcpuEnd::NothingInFlight));
    }

    #[test]
    fn polling_is_called_for_by_a_guest_that_waits_for_one_buffer_at_a_time() {
        let mut scene = Scene::new();
        let Some(poller) = scene.port.make_poller().unwrap() else {
            assert_eq!(available_parallelism().unwrap().get(), 1);
            return;
        };
        let mut waits_for = |buffers| {
            for _ in 0..buffers {
                scene.disk.request();
            }
            scene.disk.block.handle_kick(0);
            scene.port.wait();
            while scene.disk.driver.pop_used().is_some() {}
        };
        (0..2 * ALONE).for_each(|_| waits_for(2));
        assert!(!poller.is_called());
        (1..ALONE).for_each(|_| waits_for(1));
        waits_for(2);
        (0..TOGETHER).for_each(|_| waits_for(1));
        assert!(
            !poller.is_called(),
            "one wait for two is worth some for one"
        );
        waits_for(1);
        assert!(poller.is_called());
        let waits = u64::from(3 * ALONE + TOGETHER + 1);
        let of_the_scene = 1;
        assert_eq!(scene.port.visits(), waits + of_the_scene);
    }

    #[test]
    fn nobody_polls_where_nothing_is_helped() {
        let scene = Scene::new();
        let (line, devices) = (scene.disk.line.clone(), scene.disk.devices());
        let port = IdlePort::new(line, devices, Vec::new(), Ender::default());
        assert!(port.make_poller().unwrap().is_none());

        let mut scene = Scene::new();
        let Some(poller) = scene.port.make_poller().unwrap() else {
            assert_eq!(available_parallelism().unwrap().get(), 1);
            return;
        };
        // A guest that has been away ends helping.
        scene.disk.request();
        std::thread::sleep(ABSENCE);
        scene.port.look_after_guest();
        assert!(scene.disk.driver.pop_used().is_some());
        for _ in 0..2 * ALONE {
            scene.disk.request();
            scene.disk.block.handle_kick(0);
            scene.port.wait();
            assert!(scene.disk.driver.pop_used().is_some());
        }
        assert!(!poller.is_called());
    }
}
