//! Waiting for block devices: a few looks at their rings, and then the idle port.
//!
//! Waiting never spins for long: on a machine whose processors have other work, a spinning
//! processor takes the time that the disks need. What follows when one side says that it sleeps and
//! the other that there is something, and why neither misses the other, is in docs/waiting.md.

use core::hint::spin_loop;

use guest_abi::ports::IDLE;

use crate::hardware::{Ports, Registers};
use crate::virtio::block::{BlockDevice, BlockError};

/// How often the rings are looked at, at most, before the processor blocks: a microsecond or two.
const SPINS: u32 = 32;
/// The same where a single request is under way, and the VMM may look at the queue all the time: as
/// long as it takes to leave the virtual machine and come back. Under Miri, a test's disk does nothing
/// meanwhile.
const SPINS_ALONE: u32 = if cfg!(miri) { 20 } else { 2000 };
/// As long as that is in vain it is tried less and less often: once in so many waits in the end.
const MAX_PAUSE: u32 = 256;
/// The program is woken when one part in so many of all that is under way is left to write. One third:
/// with more, reads that are faster than writes wake it in between, and each waking up costs an exit;
/// with less, the output may run dry before the program has handed over more.
const RESERVE: u16 = 3;
/// So many requests are enough for that in any case: even the smallest takes half a microsecond.
const MAX_RESERVE: u16 = 64;

/// Block devices that a program waits for together, numbered from 0 up.
pub trait Devices<R> {
    /// Calls `act` with each of them and its number.
    fn each(&mut self, act: impl FnMut(usize, &mut BlockDevice<R>));
}

impl<R> Devices<R> for BlockDevice<R> {
    fn each(&mut self, mut act: impl FnMut(usize, &mut Self)) {
        act(0, self);
    }
}

/// What wakes a program that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// What keeps the device with this number busy, which writes what the others have read.
    ///
    /// It is the slowest, and must never run dry: while it has enough to do, it alone wakes the
    /// program, when a reserve is left that lasts until there is more; what was read meanwhile is
    /// taken along. With less than that left to write, reads wake the program too, as soon as
    /// there are so many, since they give the output something to do.
    Output(usize),
    /// The same, but also every single read that comes back: for a program that can do something
    /// with it before the output needs more.
    OutputAndReads(usize),
    /// The device with this number and nothing else. What others have done is left for later.
    Only(usize),
}

impl Wake {
    const fn concerns(self, number: usize) -> bool {
        match self {
            Self::Only(only) => only == number,
            Self::Output(_) | Self::OutputAndReads(_) => true,
        }
    }
}

/// What a device did that it cannot recover from, and its number.
#[derive(Debug, PartialEq, Eq)]
pub struct DeviceFault {
    /// The number that [`Devices::each`] gives it.
    pub number: usize,
    /// What it did.
    pub error: BlockError,
}

/// How a program waits: it remembers whether looking was worth it.
#[derive(Debug)]
pub struct Waiter {
    spins: u32,
    /// Waits for a single request until the rings are looked at for long again.
    pause: u32,
    /// How many it will be the next time, if that is in vain.
    next_pause: u32,
}

impl Default for Waiter {
    fn default() -> Self {
        Self {
            spins: SPINS,
            pause: 1,
            next_pause: 2,
        }
    }
}

impl Waiter {
    /// Waits until a request has come back. It may return although none has. Only to be called while
    /// something is under way. `before_sleep` is called if the looks at the rings were in vain.
    ///
    /// Whether a device has failed is asked only after a wake-up that brought nothing, since each
    /// such question leaves the virtual machine.
    ///
    /// # Errors
    ///
    /// [`DeviceFault`] if a device has failed by itself.
    pub fn wait<R: Registers>(
        &mut self,
        ports: &impl Ports,
        devices: &mut impl Devices<R>,
        wake: Wake,
        before_sleep: impl FnOnce(),
    ) -> Result<(), DeviceFault> {
        if self.spin(devices, wake) {
            return Ok(());
        }
        before_sleep();
        arm(devices, wake);
        // What came back before the wish for a notification was seen would never cause one.
        let slept = !has_completions(devices, wake);
        if slept {
            ports.read(IDLE);
        }
        devices.each(|_, device| device.disarm());
        match slept && !has_completions(devices, wake) {
            true => check(devices),
            false => Ok(()),
        }
    }

    /// Looks at the rings again and again for a short time; whether something has come back.
    fn spin<R: Registers>(&mut self, devices: &mut impl Devices<R>, wake: Wake) -> bool {
        let is_alone = under_way(devices) <= 1;
        let mut look = |times: u32| {
            (0..times).any(|_| {
                spin_loop();
                has_completions(devices, wake)
            })
        };
        if !is_alone {
            let found = look(self.spins);
            // It is always in vain where the disks work only while the processor waits.
            self.spins = if found {
                SPINS
            } else {
                (self.spins / 2).max(1)
            };
            return found;
        }
        if let Some(pause) = self.pause.checked_sub(1) {
            self.pause = pause;
            return look(1);
        }
        let found = look(SPINS_ALONE);
        if found {
            self.next_pause = 1;
        } else {
            self.pause = self.next_pause;
            self.next_pause = MAX_PAUSE.min(self.next_pause * 2);
        }
        found
    }
}

fn under_way<R: Registers>(devices: &mut impl Devices<R>) -> u16 {
    let mut sum = 0_u16;
    devices.each(|_, device| sum = sum.saturating_add(device.in_flight()));
    sum
}

/// Asks for the notifications that are worth waking up for.
fn arm<R: Registers>(devices: &mut impl Devices<R>, wake: Wake) {
    let (output, every_read) = match wake {
        Wake::Only(only) => {
            return devices.each(|number, device| {
                if number == only {
                    device.arm(1);
                }
            });
        }
        Wake::Output(output) => (output, false),
        Wake::OutputAndReads(output) => (output, true),
    };
    let mut writing = 0;
    devices.each(|number, device| {
        if number == output {
            writing = device.in_flight();
        }
    });
    let reserve = (under_way(devices) / RESERVE).min(MAX_RESERVE);
    let is_busy = writing > reserve;
    devices.each(|number, device| {
        let count = device.in_flight();
        let after = match (number == output, is_busy) {
            _ if count == 0 => return,
            (true, true) => count - reserve,
            (true, false) => count,
            (false, _) if every_read => 1,
            (false, true) => return,
            (false, false) => count.min(reserve),
        };
        device.arm(after);
    });
}

fn has_completions<R: Registers>(devices: &mut impl Devices<R>, wake: Wake) -> bool {
    let mut any = false;
    devices.each(|number, device| any |= wake.concerns(number) && device.has_completions());
    any
}

/// A wake-up that brings nothing may be a device's way to say that it has failed.
fn check<R: Registers>(devices: &mut impl Devices<R>) -> Result<(), DeviceFault> {
    let mut result = Ok(());
    devices.each(|number, device| {
        if result.is_ok() {
            result = device
                .check()
                .map_err(|error| DeviceFault { number, error });
        }
    });
    result
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::rc::Rc;

    use guest_abi::layout::QUEUE_SIZE;
    use guest_abi::limits::MIN_SECTOR_SIZE;

    use super::*;
    use crate::testing::Device;
    use crate::testing::disk::FakeDisk;
    use crate::testing::memory::leak;
    use crate::testing::ports_with;
    use crate::virtio::block::Purpose;
    use crate::virtio::requests::{Kind, Request};

    const OUTPUT: usize = 1;
    /// In how many ways the disks behave, one after the other.
    const SEEDS: u64 = if cfg!(miri) { 2 } else { 50 };

    type Both = [BlockDevice<Rc<FakeDisk>>; 2];

    impl<R, const N: usize> Devices<R> for [BlockDevice<R>; N] {
        fn each(&mut self, mut act: impl FnMut(usize, &mut BlockDevice<R>)) {
            for (number, device) in self.iter_mut().enumerate() {
                act(number, device);
            }
        }
    }

    /// Two disks that work while the program waits, a request or a few at a time.
    fn disks(seed: u64) -> (impl Ports, Both) {
        let (ports, disks, _) = watched_disks(seed);
        (ports, disks)
    }

    /// The same with the disks as they are from the inside.
    fn watched_disks(seed: u64) -> (impl Ports, Both, [Rc<FakeDisk>; 2]) {
        let fakes = [0, 1].map(|number| FakeDisk::new(vec![0; 1 << 16], 512, seed + number));
        let ports = ports_with(&[], fakes.clone().map(|fake| fake as _), seed);
        let devices = [(0, Purpose::Read), (1, Purpose::Write)].map(|(index, purpose)| {
            let queue = leak(usize::try_from(QUEUE_SIZE).unwrap());
            let fake: &Rc<FakeDisk> = &fakes[index];
            BlockDevice::init(Rc::clone(fake), queue, purpose, 16, |_| {}).unwrap()
        });
        (ports, devices, fakes)
    }

    /// How often the program sleeps until everything has come back.
    fn sleeps(ports: &impl Ports, disks: &mut Both, wake: Wake) -> usize {
        let (mut waiter, mut sleeps) = (Waiter::default(), 0);
        while disks.iter().any(|disk| disk.in_flight() > 0) {
            let wait = waiter.wait(ports, disks, wake, || sleeps += 1);
            assert_eq!(wait, Ok(()));
            disks.iter_mut().map(completed).for_each(|_| {});
        }
        sleeps
    }

    fn start(disk: &mut BlockDevice<Rc<FakeDisk>>, kind: Kind, requests: u16) {
        submit(disk, kind, requests);
        disk.kick();
    }

    fn submit(disk: &mut BlockDevice<Rc<FakeDisk>>, kind: Kind, requests: u16) {
        let data = leak(usize::try_from(MIN_SECTOR_SIZE).unwrap());
        for slot in 0..requests {
            let request = Request {
                kind,
                sector: slot.into(),
                address: data.address(0),
                len: MIN_SECTOR_SIZE,
            };
            disk.submit(slot, request);
        }
    }

    fn completed(disk: &mut BlockDevice<Rc<FakeDisk>>) -> u16 {
        let mut count = 0;
        while disk.complete().unwrap().is_some() {
            count += 1;
        }
        count
    }

    #[test]
    fn an_output_that_has_enough_to_do_lets_the_program_sleep_until_the_reserve_is_left() {
        for seed in 0..SEEDS {
            let (ports, mut disks) = disks(seed);
            start(&mut disks[0], Kind::Read, 6);
            start(&mut disks[1], Kind::Write, 10);
            let each = sleeps(&ports, &mut disks, Wake::Output(OUTPUT));
            assert!(each <= 6, "{each} sleeps for 16 requests");
        }
    }

    #[test]
    fn reads_wake_the_program_when_the_output_has_nothing_to_do() {
        for seed in 0..SEEDS {
            let (ports, mut disks) = disks(seed);
            start(&mut disks[0], Kind::Read, 8);
            let each = sleeps(&ports, &mut disks, Wake::Output(OUTPUT));
            assert!((1..=4).contains(&each), "{each} sleeps for 8 requests");
        }
    }

    #[test]
    fn who_waits_for_one_disk_is_woken_by_that_one() {
        for seed in 0..SEEDS {
            let (ports, mut disks) = disks(seed);
            start(&mut disks[0], Kind::Read, 1);
            start(&mut disks[1], Kind::Write, 16);
            let mut waiter = Waiter::default();
            let wait = waiter.wait(&ports, &mut disks, Wake::Only(0), || {});
            assert_eq!(wait, Ok(()));
            assert_eq!(completed(&mut disks[0]), 1);
        }
    }

    /// How often the program sleeps with so many reads and writes under way, whatever the disks do.
    fn all_sleeps(reads: u16, writes: u16, wake: Wake) -> Vec<usize> {
        let count = |seed| {
            let (ports, mut disks) = disks(seed);
            start(&mut disks[0], Kind::Read, reads);
            start(&mut disks[1], Kind::Write, writes);
            sleeps(&ports, &mut disks, wake)
        };
        (0..SEEDS).map(count).collect()
    }

    #[test]
    fn an_output_wakes_the_program_each_time_when_a_third_is_left() {
        for count in all_sleeps(0, 16, Wake::Output(OUTPUT)) {
            assert!((2..=5).contains(&count), "{count} sleeps for 16 writes");
        }
        // It does up to four at a time, and notifies with those among which the eleventh is.
        let done = (0..SEEDS).map(|seed| {
            let (_, mut disks, fakes) = watched_disks(seed);
            start(&mut disks[1], Kind::Write, 16);
            arm(&mut disks, Wake::Output(OUTPUT));
            while fakes[1].is_busy() && !fakes[1].take_notification() {
                fakes[1].work();
            }
            completed(&mut disks[1])
        });
        assert!(done.min() >= Some(11));
    }

    #[test]
    fn a_program_that_can_use_every_read_is_woken_more_often() {
        let at_leisure = all_sleeps(6, 10, Wake::Output(OUTPUT));
        let eager = all_sleeps(6, 10, Wake::OutputAndReads(OUTPUT));
        let more = at_leisure
            .iter()
            .zip(&eager)
            .filter(|(less, more)| less < more);
        assert!(
            more.count() > at_leisure.len() / 2,
            "{at_leisure:?} {eager:?}"
        );
    }

    #[test]
    fn a_device_is_asked_whether_it_has_failed_only_if_nothing_came_back() {
        for seed in 0..SEEDS {
            let (ports, mut disks, fakes) = watched_disks(seed);
            start(&mut disks[0], Kind::Read, 1);
            let accesses = || fakes.iter().map(|fake| fake.get().accesses).sum::<usize>();
            let before = accesses();
            let wait = Waiter::default().wait(&ports, &mut disks, Wake::Only(0), || {});
            assert_eq!((wait, completed(&mut disks[0])), (Ok(()), 1));
            assert_eq!(accesses(), before);
        }
    }

    #[test]
    fn looks_at_the_rings_of_busy_disks_get_fewer_where_they_are_in_vain() {
        let (_, mut disks) = disks(1);
        // The disk is not told, and so it never answers.
        submit(&mut disks[0], Kind::Read, 2);
        let mut waiter = Waiter::default();
        let looks = [16, 8, 4, 2, 1, 1].map(|expected| {
            assert!(!waiter.spin(&mut disks, Wake::Only(0)));
            (waiter.spins, expected)
        });
        assert!(
            looks.iter().all(|(spins, expected)| spins == expected),
            "{looks:?}"
        );
    }

    #[test]
    fn long_looks_at_the_rings_are_rare_where_they_are_in_vain() {
        let (_, mut disks) = disks(1);
        // The disk is not told, and so it never answers.
        submit(&mut disks[0], Kind::Read, 1);
        let mut waiter = Waiter::default();
        let waits = 4 * MAX_PAUSE;
        let long = (0..waits).filter(|_| {
            let is_long = waiter.pause == 0;
            assert!(!waiter.spin(&mut disks, Wake::Only(0)));
            is_long
        });
        assert!((4..16).contains(&long.count()));
    }
}
