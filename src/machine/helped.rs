//! The devices that are helped: those whose queues somebody else's thread serves where that is of
//! use. docs/waiting.md has the whole of it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use crate::lock::lock;
use crate::virtio::{ActivateError, DeviceFault, VirtioDevice};

/// A guest that has been away for so long is not about to come back.
pub(super) const ABSENCE: Duration = Duration::from_millis(25);

/// A guest that is away for less than that between two waits only says what is to be done next.
const WORK: Duration = Duration::from_micros(200);
/// So many times when the guest was away for longer than it had waited, less those when it was not,
/// make it a guest that works. It is one until there are as many of the others.
const SURE: u32 = 16;

/// The virtio devices of a machine, shared by the machine, to which they are added, and its idle
/// port.
#[derive(Clone, Default)]
pub(super) struct Devices(Arc<RwLock<Vec<Arc<dyn VirtioDevice>>>>);

impl Devices {
    pub(super) fn add(&self, device: Arc<dyn VirtioDevice>) {
        let mut devices = self.0.write().unwrap_or_else(PoisonError::into_inner);
        devices.push(device);
    }

    pub(super) fn len(&self) -> usize {
        self.read().len()
    }

    pub(super) fn any(&self, test: impl FnMut(&Arc<dyn VirtioDevice>) -> bool) -> bool {
        let devices = self.read();
        devices.iter().any(test)
    }

    /// The slot of the first one whose driver's kicks nobody takes.
    pub(super) fn unattended(&self) -> Option<usize> {
        self.read().iter().position(|device| !device.is_attended())
    }

    /// Takes note of the devices that their drivers have begun to set up and not started: a guest that
    /// waits will not go on with it.
    pub(super) fn blame_unfinished(&self) {
        for device in self.read().iter() {
            let unfinished = ActivateError::unfinished(device.notifier().driver_status());
            unfinished
                .into_iter()
                .for_each(|why| device.refuse_start(why));
        }
    }

    /// What drivers did wrong with them, with the slots of the devices.
    pub(super) fn faults(&self) -> Vec<(usize, Arc<DeviceFault>)> {
        let devices = self.read();
        let faults = devices.iter().enumerate();
        let faults = faults.filter_map(|(slot, device)| Some((slot, device.fault()?)));
        faults.collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<Arc<dyn VirtioDevice>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The devices in some of a machine's slots, and whether they are still helped.
pub(super) struct Helped {
    devices: Devices,
    slots: Vec<usize>,
    /// A guest that does not come back ends that for good.
    helps: AtomicBool,
    last: Mutex<Visit>,
    /// Whether the guest computes for most of the time.
    works: AtomicBool,
    /// How much speaks for that, from 0 to [`SURE`].
    sign: AtomicU32,
}

/// When the guest was last looked after: let go by the idle port, or left by the poller.
struct Visit {
    began: Instant,
    ended: Instant,
}

impl Helped {
    pub(super) fn new(devices: Devices, slots: Vec<usize>) -> Self {
        Self {
            devices,
            helps: AtomicBool::new(!slots.is_empty()),
            slots,
            last: Mutex::new(Visit {
                began: Instant::now(),
                ended: Instant::now(),
            }),
            works: AtomicBool::new(false),
            sign: AtomicU32::new(0),
        }
    }

    /// Notes that the guest waits. One that computes for most of the time is not helped: its disks can
    /// work meanwhile, and who helps is the one processor that it has.
    pub(super) fn arrive(&self) {
        let mut last = lock(&self.last);
        let now = Instant::now();
        let away = now - last.ended;
        let has_worked = away >= WORK && away > last.ended - last.began;
        last.began = now;
        drop(last);
        let sign = self.sign.load(Ordering::Relaxed);
        let sign = match has_worked {
            true => SURE.min(sign + 1),
            false => sign.saturating_sub(1),
        };
        self.sign.store(sign, Ordering::Relaxed);
        match sign {
            0 => self.works.store(false, Ordering::SeqCst),
            SURE if !self.works.swap(true, Ordering::SeqCst) => self.leave_to_kicks(),
            _ => {}
        }
    }

    /// Serves the queues of these devices. Returns whether any buffer was used.
    pub(super) fn serve(&self) -> bool {
        let mut any = false;
        if self.is_on() {
            self.each(|device| any |= device.serve_here());
            // Another thread may have ended helping before one of the queues was served, which then
            // took this for the beginning of more help.
            if !self.is_on() {
                self.leave_to_kicks();
            }
        }
        any
    }

    /// Whether no device is ever helped.
    pub(super) fn has_none(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether the devices are helped at present.
    pub(super) fn is_on(&self) -> bool {
        self.helps.load(Ordering::SeqCst) && !self.works.load(Ordering::SeqCst)
    }

    fn leave_to_kicks(&self) {
        self.each(|device| device.serve_by_kicks());
    }

    /// Notes that the guest has just been served.
    pub(super) fn leave(&self) {
        lock(&self.last).ended = Instant::now();
    }

    /// Does what has become available while nobody looked, and ends helping if the guest has been
    /// away for long.
    pub(super) fn look_after_guest(&self) {
        let ended = lock(&self.last).ended;
        if self.serve() && ended.elapsed() >= ABSENCE {
            self.helps.store(false, Ordering::SeqCst);
            self.leave_to_kicks();
        }
    }

    fn each(&self, act: impl FnMut(&Arc<dyn VirtioDevice>)) {
        let devices = self.devices.read();
        let helped = self.slots.iter().filter_map(|&slot| devices.get(slot));
        helped.for_each(act);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::machine::testing::SlowDriver;

    /// One visit of a guest that has asked for something and then been away for so long. Whether the
    /// request was done for it.
    fn visit(helped: &Helped, disk: &mut SlowDriver, away: Duration) -> bool {
        disk.request();
        std::thread::sleep(away);
        helped.arrive();
        helped.serve();
        let done = disk.driver.pop_used().is_some();
        if !done {
            disk.block.handle_kick(0);
            assert!(
                disk.driver.pop_used().is_some(),
                "nor by the device's thread"
            );
        }
        helped.leave();
        done
    }

    #[test]
    fn a_guest_that_is_never_away_for_long_is_helped_however_short_its_waits_are() {
        let mut disk = SlowDriver::new();
        let helped = Helped::new(disk.devices(), vec![0]);
        helped.leave();
        for _ in 0..8 * SURE {
            disk.request();
            let left = Instant::now();
            while left.elapsed() < WORK / 4 {
                std::hint::spin_loop();
            }
            helped.arrive();
            helped.serve();
            helped.leave();
            disk.block.handle_kick(0);
            assert!(disk.driver.pop_used().is_some());
        }
        assert!(!helped.works.load(Ordering::Relaxed));
    }

    #[test]
    fn the_device_is_told_as_soon_as_its_guest_is_left_to_it() {
        let mut disk = SlowDriver::new();
        let helped = Helped::new(disk.devices(), vec![0]);
        helped.leave();
        for _ in 0..4 * SURE {
            disk.request();
            std::thread::sleep(5 * WORK);
            helped.arrive();
            if helped.works.load(Ordering::Relaxed) {
                assert!(disk.block.in_flight());
                return;
            }
            helped.serve();
            assert!(!disk.block.in_flight() && disk.driver.pop_used().is_some());
            helped.leave();
        }
        unreachable!("a guest that computes is helped on");
    }

    #[test]
    fn a_guest_that_computes_is_left_to_the_devices_threads_until_it_waits_again() {
        let mut disk = SlowDriver::new();
        let helped = Helped::new(disk.devices(), vec![0]);
        helped.leave();
        assert!(visit(&helped, &mut disk, Duration::ZERO));
        let rounds = 4 * SURE;
        let count = |helped: &Helped, disk: &mut SlowDriver, away| {
            (0..rounds).filter(|_| visit(helped, disk, away)).count()
        };
        let helped_while_busy = count(&helped, &mut disk, 5 * WORK);
        assert!((1..rounds as usize / 2).contains(&helped_while_busy));
        assert!(!visit(&helped, &mut disk, 5 * WORK));
        // What it waits for now takes longer than it is away.
        let mut waits = || {
            disk.request();
            helped.arrive();
            std::thread::sleep(WORK);
            helped.serve();
            let done = disk.driver.pop_used().is_some();
            disk.block.handle_kick(0);
            let _ = disk.driver.pop_used();
            helped.leave();
            done
        };
        let helped_again = (0..rounds).filter(|_| waits()).count();
        assert!(helped_again >= rounds as usize / 2, "{helped_again}");
        // And it stays so.
        assert!(waits());
    }
}
