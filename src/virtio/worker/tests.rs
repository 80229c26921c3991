//! What the worker does around a service, whatever that does with its chains.
#![allow(clippy::unwrap_used)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::virtio::VirtioDevice;
use crate::virtio::testing::{
    DATA, Driver, EVENT_IDX, INDIRECT, INDIRECT_DESC, VERSION_1, WRITE, memory,
};

const SIZE: u16 = 1024;

/// What a [`Scripted`] service does with a queue.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Script {
    /// One chain a turn, which is read to its end and returned.
    TakeOne,
    /// Nothing.
    TakeNone,
    /// Puts back what it has not taken, and returns the next chain.
    PutBackFirst,
    /// Returns the next chain more often than any queue has room for.
    ReturnTooOften,
    /// As many chains as a turn gives, each of which is read to its end and returned.
    TakeAll,
    /// One chain, that was more work than it looks like.
    TakeMuchWork,
}

struct Scripted {
    script: Script,
    turns: AtomicU32,
    configured: Mutex<Vec<(usize, Vec<u8>)>>,
}

impl Service for Scripted {
    type Room = ();

    fn device_type(&self) -> u32 {
        4
    }

    fn queue_sizes(&self) -> &[u16] {
        &[SIZE]
    }

    fn write_config(&self, offset: usize, data: &[u8]) {
        self.configured.lock().unwrap().push((offset, data.into()));
    }

    fn serve(&self, turn: &mut Turn<'_>, (): &mut ()) -> Result<(), QueueFault> {
        match self.script {
            Script::TakeNone => return Ok(()),
            Script::PutBackFirst => turn.put_back(),
            Script::TakeMuchWork => turn.count_work(10_000),
            Script::TakeOne | Script::TakeAll | Script::ReturnTooOften => {}
        }
        self.turns.fetch_add(1, Ordering::Relaxed);
        while let Some(mut chain) = turn.next_chain()? {
            let head = chain.head();
            while chain
                .next_descriptor()
                .map_err(QueueFault::chain(head))?
                .is_some()
            {}
            turn.complete(head, 0);
            match self.script {
                Script::TakeAll => {}
                Script::ReturnTooOften => (0..=u16::MAX).for_each(|_| turn.complete(head, 0)),
                _ => break,
            }
        }
        Ok(())
    }
}

/// A device that follows the script, and its driver, which has started it.
fn device(script: Script, features: u64) -> (Arc<QueueWorker<Scripted>>, Driver) {
    let (device, mut driver) = new_device(script);
    driver.start(features, SIZE);
    device.handle_kick(0);
    (device, driver)
}

/// The same before anybody has started it.
fn new_device(script: Script) -> (Arc<QueueWorker<Scripted>>, Driver) {
    let (memory, line) = (memory(), Arc::new(NotificationLine::new().unwrap()));
    let service = Scripted {
        script,
        turns: AtomicU32::new(0),
        configured: Mutex::default(),
    };
    let device = Arc::new(QueueWorker::serving(service, memory.clone(), line).unwrap());
    let driver = Driver::new(device.clone(), memory);
    (device, driver)
}

#[test]
#[cfg_attr(miri, ignore = "65,536 descriptors take Miri many minutes")]
fn long_chains_are_work_that_another_round_goes_on_with() {
    let (device, mut driver) = device(Script::TakeOne, VERSION_1);
    // Many heads of the same chain, which has as many descriptors as there are.
    let head = driver.chain(&vec![(DATA, 1, 0); usize::from(SIZE)]);
    (0..64).for_each(|_| driver.make_available(head));
    let mut rounds = 0;
    driver.write(0x50, 0);
    while device.in_flight() {
        device.handle_kick(0);
        rounds += 1;
        assert!(rounds <= 64);
    }
    assert_eq!(driver.used_index(), 64);
    assert!(rounds >= 2, "{rounds}");
}

#[test]
#[cfg_attr(miri, ignore = "65,536 descriptors take Miri many minutes")]
fn a_turn_gives_no_more_chains_after_many_descriptors() {
    let (device, mut driver) = device(Script::TakeAll, VERSION_1);
    let head = driver.chain(&vec![(DATA, 0, 0); usize::from(SIZE)]);
    (0..64).for_each(|_| driver.make_available(head));
    let before = device.service().turns.load(Ordering::Relaxed);
    while driver.used_index() < 64 {
        device.handle_kick(0);
    }
    let turns = device.service().turns.load(Ordering::Relaxed) - before;
    assert!(turns >= 4, "{turns}");
}

#[test]
fn work_that_is_counted_ends_a_round() {
    let (device, mut driver) = device(Script::TakeMuchWork, VERSION_1);
    for _ in 0..8 {
        let head = driver.chain(&[(DATA, 1, 0)]);
        driver.make_available(head);
    }
    device.handle_kick(0);
    assert_eq!(driver.used_index(), 4);
    assert!(device.in_flight(), "it is looked at again");
    device.handle_kick(0);
    assert_eq!(driver.used_index(), 8);
}

#[test]
fn a_service_that_returns_more_than_a_queue_has_room_for_is_stopped_and_told_of() {
    let (device, mut driver) = device(Script::ReturnTooOften, VERSION_1);
    let head = driver.chain(&[(DATA, 1, 0)]);
    driver.make_available(head);
    device.handle_kick(0);
    assert_eq!(driver.used_index(), 0);
    assert!(device.notifier().needs_reset());
    let fault = device.fault().unwrap().to_string();
    assert!(
        fault.contains("cannot publish 65537 used buffers in a ring of 1024"),
        "{fault}"
    );
}

#[test]
#[cfg_attr(miri, ignore = "32,768 turns take Miri many minutes")]
fn a_service_that_leaves_what_is_available_keeps_no_thread_for_ever() {
    let (device, mut driver) = device(Script::TakeNone, VERSION_1);
    let head = driver.chain(&[(DATA, 1, 0)]);
    driver.make_available(head);
    device.handle_kick(0);
    assert!(device.in_flight(), "it is looked at again");
    assert_eq!(driver.used_index(), 0);
}

#[test]
fn nothing_is_put_back_that_was_not_taken() {
    let (device, mut driver) = device(Script::PutBackFirst, VERSION_1);
    for _ in 0..3 {
        let head = driver.chain(&[(DATA, 1, WRITE)]);
        driver.make_available(head);
        device.handle_kick(0);
        assert_eq!(driver.pop_used(), Some((head.into(), 0)));
    }
    assert_eq!(driver.pop_used(), None);
}

#[test]
fn indirect_tables_are_followed_only_if_the_driver_has_chosen_them() {
    for (features, is_served) in [(VERSION_1, false), (VERSION_1 | INDIRECT_DESC, true)] {
        let (device, mut driver) = device(Script::TakeOne, features);
        driver.write_descriptor(DATA, 0, DATA, 1, 0, 0);
        let head = driver.chain(&[(DATA, 16, INDIRECT)]);
        driver.make_available(head);
        device.handle_kick(0);
        assert_eq!(driver.pop_used().is_some(), is_served);
        assert_eq!(device.notifier().needs_reset(), !is_served);
        assert_eq!(device.fault().is_none(), is_served);
    }
}

#[test]
fn a_fault_is_told_of_until_the_device_has_been_started_again() {
    let (device, mut driver) = device(Script::TakeOne, VERSION_1);
    let told = || device.fault().map(|fault| fault.to_string());
    let broken = |driver: &mut Driver, head: u16| {
        driver.make_available(head);
        device.handle_kick(0);
        let index = format!("descriptor {head} is outside");
        assert!(told().unwrap().contains(&index), "{:?}", told());
    };
    assert_eq!(told(), None);
    broken(&mut driver, SIZE);
    driver.write(0x70, 0);
    assert!(told().is_some(), "nothing works yet");
    driver.start(VERSION_1, SIZE);
    assert_eq!(told(), None);
    // What comes then is told of like the first.
    broken(&mut driver, SIZE + 1);
}

#[test]
fn of_several_refusals_to_start_the_first_is_told_of_until_one_start_succeeds() {
    let (device, mut driver) = device(Script::TakeOne, VERSION_1);
    let told = || device.fault().map(|fault| fault.to_string());
    // DRIVER_OK by itself, and then with all that has to come before it but no queue.
    driver.write(0x70, 0);
    driver.write(0x70, 4);
    let first = told().unwrap();
    assert!(first.contains("without a status of FEATURES_OK"), "{first}");
    driver.negotiate(VERSION_1);
    driver.write(0x70, 15);
    assert!(device.notifier().needs_reset());
    assert_eq!(told(), Some(first));
    driver.start(VERSION_1, SIZE);
    assert_eq!(told(), None);
}

#[test]
fn features_that_are_refused_are_told_of_until_others_are_accepted() {
    let (device, driver) = new_device(Script::TakeOne);
    let told = || device.fault().map(|fault| fault.to_string());
    driver.negotiate(VERSION_1 | 1 << 63);
    let refused = told().unwrap();
    assert!(
        refused.contains("chose the features 0x8000000100000000, and"),
        "{refused}"
    );
    // DRIVER_OK all the same, which does not count.
    driver.write(0x70, 15);
    assert_eq!(told(), Some(refused.clone()));
    driver.negotiate(VERSION_1);
    assert_eq!(told(), Some(refused), "nothing has started");
    driver.write(0x70, 15);
    assert_eq!(told().unwrap(), "queue 0 is not ready");
}

#[test]
fn a_status_that_is_ignored_is_told_of_if_it_was_to_start_the_device() {
    for (before, written) in [(1, 4), (0xb, 4), (0x83, 0xf), (3, 0x1f), (3, 0x10f)] {
        let (device, driver) = new_device(Script::TakeOne);
        driver.negotiate(VERSION_1);
        driver.write(0x70, 0);
        driver.write(0x70, before & 3);
        if before == 0xb {
            driver.negotiate(VERSION_1);
        }
        driver.write(0x70, before);
        assert!(device.fault().is_none());
        driver.write(0x70, written);
        let why = device.fault().unwrap().to_string();
        let expected = format!("wrote a status of {written:#x} where it was {before:#x};");
        assert!(why.contains(&expected), "{why}");
    }
    // A device that runs goes on.
    let (device, driver) = device(Script::TakeOne, VERSION_1);
    driver.write(0x70, 4);
    assert!(device.fault().is_none());
}

#[test]
fn what_the_driver_writes_to_the_configuration_reaches_the_service() {
    let (device, _driver) = device(Script::TakeOne, VERSION_1);
    device.write_config(3, &[1, 2]);
    let configured = device.service().configured.lock().unwrap();
    assert_eq!(*configured, [(3, vec![1, 2])]);
}

#[test]
fn a_service_without_features_of_its_own_offers_those_of_its_queues() {
    let (device, _driver) = device(Script::TakeOne, VERSION_1);
    assert_eq!(
        device.device_features(),
        VERSION_1 | EVENT_IDX | INDIRECT_DESC
    );
}

/// Serves two chains a turn at most. Once the gate is closed, each chain whose descriptor may be written
/// says that it has been taken, and waits for the gate.
struct Gated {
    closed: AtomicBool,
    taken: Sender<()>,
    gate: Mutex<Receiver<()>>,
}

impl Service for Gated {
    type Room = ();

    fn device_type(&self) -> u32 {
        4
    }

    fn queue_sizes(&self) -> &[u16] {
        &[SIZE]
    }

    fn serve(&self, turn: &mut Turn<'_>, (): &mut ()) -> Result<(), QueueFault> {
        for _ in 0..2 {
            let Some(mut chain) = turn.next_chain()? else {
                break;
            };
            let head = chain.head();
            let first = chain.next_descriptor().map_err(QueueFault::chain(head))?;
            if self.closed.load(Ordering::SeqCst) && first.unwrap().is_write_only() {
                self.taken.send(()).unwrap();
                self.gate.lock().unwrap().recv().unwrap();
            }
            turn.complete(head, 0);
        }
        Ok(())
    }
}

/// A helper may be another thread than the one that asks, as the poller is. What it does must be seen
/// even after its round has found that the queue no longer wants help.
#[test]
fn what_a_helper_works_on_is_in_flight_to_the_end_of_its_round() {
    let (memory, line) = (memory(), Arc::new(NotificationLine::new().unwrap()));
    let ((taken, wait_until_taken), (open, gate)) = (channel(), channel());
    let service = Gated {
        closed: AtomicBool::new(false),
        taken,
        gate: Mutex::new(gate),
    };
    let device = Arc::new(QueueWorker::serving(service, memory.clone(), line).unwrap());
    let mut driver = Driver::new(device.clone(), memory);
    driver.start(VERSION_1, SIZE);
    for _ in 0..20 {
        let head = driver.chain(&[(DATA, 1, 0)]);
        driver.make_available(head);
        device.handle_kick(0);
    }
    device.service().closed.store(true, Ordering::SeqCst);
    for flags in [0, 0, WRITE] {
        let head = driver.chain(&[(DATA, 1, flags)]);
        driver.make_available(head);
    }
    thread::scope(|scope| {
        scope.spawn(|| device.serve_here());
        wait_until_taken.recv().unwrap();
        assert!(!device.serve_here(), "help is no longer wanted");
        assert!(device.in_flight());
        open.send(()).unwrap();
    });
    assert!(!device.in_flight());
    assert_eq!(driver.used_index(), 23);
}

#[test]
fn what_another_thread_does_meanwhile_is_not_taken_for_the_helpers_work() {
    let (device, mut driver) = device(Script::TakeOne, VERSION_1);
    for _ in 0..20 {
        let head = driver.chain(&[(DATA, 1, 0)]);
        driver.make_available(head);
        device.handle_kick(0);
    }
    let head = driver.chain(&[(DATA, 1, 0)]);
    driver.make_available(head);
    assert!(device.serve_here(), "help is wanted");
    let is_over = AtomicBool::new(false);
    let counts = &device.lanes[0].counts.used;
    thread::scope(|scope| {
        // As the device's thread counts, at work on the queue.
        scope.spawn(|| {
            device.lanes[0].while_locked(|| {
                while !is_over.load(Ordering::Relaxed) {
                    counts.fetch_add(1, Ordering::Relaxed);
                }
            });
        });
        let mut last = counts.load(Ordering::Relaxed);
        while counts.load(Ordering::Relaxed) == last {
            thread::yield_now();
        }
        // Where both threads have one processor, they take turns now and then.
        let (began, mut changes, mut helped) = (Instant::now(), 0, 0);
        while changes < 50_000 && began.elapsed() < Duration::from_secs(1) {
            helped += u32::from(device.serve_here());
            let now = counts.load(Ordering::Relaxed);
            changes += u32::from(now != last);
            last = now;
        }
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(helped, 0);
    });
}
