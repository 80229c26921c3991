//! A thread that looks at the queues of the helped devices again and again, for a guest with a single
//! request under way.
//!
//! Such a guest and its disks never work at the same time, and each request would cost an exit to
//! the VMM, which takes many times as long as the request. If instead a thread looks at the queues
//! all the time, and the guest at its rings, neither of the two ever sleeps or leaves the virtual
//! machine. That takes a second processor, and is of no use where there is none or where it is
//! busy. So polling is called for by the idle port, ends as soon as it is in vain, and is tried less
//! and less often then (QEMU and KVM poll in the same way before they sleep).

use std::hint::spin_loop;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use event_manager::{EventOps, EventSubscriber, Events};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::helped::Helped;
use crate::lock::lock;

/// Polling ends when there has been nothing for so long: a guest that has begun to look at its rings
/// leaves them for some exits again and again before it does so most of the time.
const PATIENCE: Duration = Duration::from_millis(1);
/// After so long the thread's event loop has a look at its other events.
const QUANTUM: Duration = Duration::from_millis(5);
/// So many looks in vain for one at the clock.
const LOOKS: u32 = 16;
/// Polling was worth it if so many requests were done in one go.
const WORTH: u64 = 64;
/// How long polling is not tried again after it has ended, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(250));

/// What polls, as a subscriber of the event loop of some device's thread.
pub struct Poller {
    helped: Arc<Helped>,
    call: EventFd,
    /// From the call to the end of polling.
    is_called: AtomicBool,
    /// From its beginning to its end. The thread may have other work before.
    is_active: AtomicBool,
    session: Mutex<Session>,
}

/// One go of polling, which takes as many quanta as are worth it, and what comes after it.
struct Session {
    served: u64,
    pause: Duration,
    not_before: Instant,
}

impl Poller {
    /// `None` if there is a single processor: whoever polls there keeps from its work what it waits
    /// for.
    ///
    /// # Errors
    ///
    /// The host has no eventfd.
    pub(super) fn new(helped: Arc<Helped>) -> io::Result<Option<Self>> {
        match available_parallelism().is_ok_and(|processors| processors.get() == 1) {
            true => Ok(None),
            false => Self::over(helped).map(Some),
        }
    }

    fn over(helped: Arc<Helped>) -> io::Result<Self> {
        Ok(Self {
            helped,
            call: EventFd::new(EFD_NONBLOCK)?,
            is_called: AtomicBool::new(false),
            is_active: AtomicBool::new(false),
            session: Mutex::new(Session {
                served: 0,
                pause: PAUSES.0,
                not_before: Instant::now(),
            }),
        })
    }

    /// Whether the queues are looked at all the time.
    pub(super) fn is_active(&self) -> bool {
        self.is_active.load(Ordering::SeqCst)
    }

    /// Has polling begin, unless it was in vain not long ago.
    pub(super) fn call(&self) {
        if self.is_called.load(Ordering::SeqCst) || lock(&self.session).not_before > Instant::now()
        {
            return;
        }
        self.is_called.store(true, Ordering::SeqCst);
        // Cannot fail: the counter is far from full.
        let _ = self.call.write(1);
    }

    /// Whether polling has been called for and has not ended.
    #[cfg(test)]
    pub(super) fn is_called(&self) -> bool {
        self.is_called.load(Ordering::SeqCst)
    }

    /// Polls for one quantum at the most.
    fn poll(&self) {
        let _ = self.call.read();
        self.is_active.store(true, Ordering::SeqCst);
        let began = Instant::now();
        let mut last = began;
        let mut served = 0;
        let is_over = loop {
            let found = (0..LOOKS).any(|_| {
                spin_loop();
                self.helped.serve()
            });
            let now = Instant::now();
            if found {
                served += 1;
                last = now;
            }
            if now - last >= PATIENCE {
                break true;
            }
            if now - began >= QUANTUM {
                break false;
            }
        };
        let mut session = lock(&self.session);
        session.served += served;
        if !is_over {
            let _ = self.call.write(1);
            return;
        }
        session.pause = match session.served >= WORTH {
            true => PAUSES.0,
            false => PAUSES.1.min(session.pause * 2),
        };
        session.served = 0;
        session.not_before = Instant::now() + session.pause;
        drop(session);
        // In this order: who sees that polling is over sees a guest that has just been served.
        self.helped.leave();
        self.is_active.store(false, Ordering::SeqCst);
        self.is_called.store(false, Ordering::SeqCst);
    }
}

/// The subscriber of a device, on whose thread polling takes place too.
pub struct WithPoller<D> {
    /// The device.
    pub device: Arc<D>,
    /// What polls.
    pub poller: Arc<Poller>,
}

impl<D: EventSubscriber> EventSubscriber for WithPoller<D> {
    fn init(&self, ops: &mut EventOps<'_>) {
        self.device.init(ops);
        // If the host refuses that, there is no polling, and nothing depends on it.
        let _ = ops.add(Events::new(&self.poller.call, EventSet::IN));
    }

    fn process(&self, events: Events, ops: &mut EventOps<'_>) {
        match events.fd() == self.poller.call.as_raw_fd() {
            true => self.poller.poll(),
            false => self.device.process(events, ops),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use event_manager::{EventManager, SubscriberOps};

    use super::*;
    use crate::machine::testing::SlowDriver;

    /// A poller for one disk, whose driver has shown that it waits for each request.
    fn scene() -> (Poller, SlowDriver) {
        let disk = SlowDriver::new();
        let helped = Helped::new(disk.devices(), vec![0]);
        (Poller::over(Arc::new(helped)).unwrap(), disk)
    }

    #[test]
    fn requests_are_done_while_neither_side_sleeps_or_kicks() {
        let (poller, mut disk) = scene();
        disk.request();
        std::thread::scope(|scope| {
            let polling = scope.spawn(|| {
                // As long as there are requests it is called again after each quantum.
                poller.call();
                while poller.call.read().is_ok() {
                    let _ = poller.call.write(1);
                    poller.poll();
                }
            });
            let mut done = 0;
            while done < 1000 {
                // In this order: what was done before the end has been seen after it.
                let is_over = polling.is_finished();
                if disk.driver.pop_used().is_some() {
                    done += 1;
                    disk.request();
                } else if is_over {
                    break;
                }
                spin_loop();
            }
            assert!(done >= 1, "not one request was done");
        });
        assert!(!poller.is_active(), "it ends when there is nothing more");
    }

    #[test]
    fn polling_that_was_worth_it_may_begin_again_as_soon_as_before() {
        let (poller, mut disk) = scene();
        for (served_before, pause) in [(WORTH - 1, PAUSES.0), (WORTH - 2, PAUSES.0 * 2)] {
            lock(&poller.session).served = served_before;
            disk.request();
            let began = Instant::now();
            poller.poll();
            assert!(disk.driver.pop_used().is_some());
            assert!(began.elapsed() >= PATIENCE, "it waits for the next one");
            assert_eq!(lock(&poller.session).pause, pause);
        }
    }

    #[test]
    fn a_call_is_answered_on_the_thread_of_the_device_and_its_kicks_too() {
        let (poller, mut disk) = scene();
        let (poller, device) = (Arc::new(poller), disk.block.clone());
        let mut events = EventManager::new().unwrap();
        events.add_subscriber(Arc::new(WithPoller {
            device: device.clone(),
            poller: poller.clone(),
        }));
        poller.call();
        assert_eq!(events.run_with_timeout(1000).unwrap(), 1);
        assert_eq!(
            lock(&poller.session).pause,
            PAUSES.0 * 2,
            "it has polled in vain"
        );
        disk.request();
        device.look_again(0);
        assert_eq!(events.run_with_timeout(1000).unwrap(), 1);
        assert!(disk.driver.pop_used().is_some());
    }

    #[test]
    fn polling_in_vain_is_tried_less_and_less_often() {
        let (poller, _disk) = scene();
        for expected in [2, 4, 8, 16] {
            lock(&poller.session).not_before = Instant::now();
            poller.call();
            assert!(poller.call.read().is_ok(), "it was called");
            poller.poll();
            assert_eq!(lock(&poller.session).pause, Duration::from_millis(expected));
            assert!(!poller.is_active());
            poller.call();
            assert!(
                poller.call.read().is_err(),
                "not so soon after the last time"
            );
        }
    }
}
