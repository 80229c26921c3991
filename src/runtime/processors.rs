//! On which processor the threads of a run begin, and that they part where they meet
//! (sched_setaffinity(2)); and that the guest's gives way to all others (sched(7)).
//!
//! The vCPU and the disks work at the same time, and each wakes the other again and again. Where there
//! are two processors, a scheduler that wakes a thread on the processor of the one that woke it, as it
//! does where it takes the idle one for one that its hypervisor does not run, lets them take turns on
//! one of the two for tenths of a second. Threads that began apart mostly stay apart, and where they do not
//! the device's goes away again. With more processors there is no need to know better than the
//! scheduler.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use event_manager::{EventOps, EventSubscriber, Events};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::crew::Subscriber;
use crate::lock::lock;
use crate::machine::Whereabouts;

/// How long a device's thread stays where it is after it has gone away from the vCPU's for the first time.
/// To go costs some ten microseconds, and more if the other processor has work of its own.
const FIRST_STAY: Duration = Duration::from_millis(1);
/// How much longer each stay is than the one before. Where a scheduler brings the two together again and
/// again it has its reason: the one has nothing to do while the other works, or somebody else needs the other
/// processor.
const LONGER: u32 = 4;
/// The longest stay.
const LONGEST_STAY: Duration = Duration::from_millis(256);

/// May stand beside a policy, and is not for everybody to take away.
const FLAG: libc::c_int = libc::SCHED_RESET_ON_FORK;

/// The two processors that this process may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Processors {
    allowed: CpuSet,
    vcpu: usize,
}

impl Processors {
    /// `None` if there are not just two.
    pub(super) fn two() -> Option<Self> {
        let allowed = sched_getaffinity(None).ok()?;
        let vcpu = (0..CpuSet::MAX_CPU).find(|&cpu| allowed.is_set(cpu))?;
        (allowed.count() == 2).then_some(Self { allowed, vcpu })
    }

    /// Has this thread, which is to be the vCPU's, go on at one of the two. From there it may go where the
    /// scheduler wants it. If the system does not allow that, it stays where it is.
    pub(super) fn begin_at_vcpu(&self) {
        let mut there = CpuSet::new();
        there.set(self.vcpu);
        self.go(there);
    }

    /// The same for a device's thread, at the other one.
    pub(super) fn begin_at_devices(&self) {
        self.leave(self.vcpu);
    }

    /// Has this thread go on at the other one than `processor`.
    fn leave(&self, processor: usize) {
        let mut there = self.allowed;
        there.unset(processor);
        self.go(there);
    }

    fn go(&self, there: CpuSet) {
        if sched_setaffinity(None, &there).is_ok() {
            // It fails if both have been forbidden since, and then the thread is no longer there either.
            let _ = sched_setaffinity(None, &self.allowed);
        }
    }
}

/// What a device's thread serves, away from the processor of the vCPU.
pub(super) struct KeptApart {
    inner: Arc<dyn Subscriber>,
    processors: Processors,
    vcpu: Arc<Whereabouts>,
    /// When the thread went away for the last time, and how long it stays. The thread has this for itself.
    stay: Mutex<Option<(Instant, Duration)>>,
}

impl KeptApart {
    pub(super) fn new(
        inner: Arc<dyn Subscriber>,
        processors: Processors,
        vcpu: Arc<Whereabouts>,
    ) -> Self {
        Self {
            inner,
            processors,
            vcpu,
            stay: Mutex::new(None),
        }
    }

    /// Has this thread go on elsewhere if it is where the vCPU is, unless it went a short time ago.
    fn part(&self) {
        let Some(shared) = self.vcpu.shared() else {
            return;
        };
        let mut stay = lock(&self.stay);
        let next = match *stay {
            Some((since, stay)) if since.elapsed() < stay => return,
            Some((_, stay)) => (stay * LONGER).min(LONGEST_STAY),
            None => FIRST_STAY,
        };
        *stay = Some((Instant::now(), next));
        // Somebody may have chosen other processors for it since it began, and then it stays there.
        if sched_getaffinity(None) == Ok(self.processors.allowed) {
            self.processors.leave(shared);
        }
    }
}

impl EventSubscriber for KeptApart {
    fn init(&self, ops: &mut EventOps<'_>) {
        self.inner.init(ops);
    }

    /// Woken on the processor of the vCPU, the thread would take turns with it.
    fn process(&self, events: Events, ops: &mut EventOps<'_>) {
        self.part();
        self.inner.process(events, ops);
    }
}

impl Subscriber for KeptApart {
    fn unwatched(&self) -> Option<&event_manager::Error> {
        self.inner.unwatched()
    }
}

/// Has this thread go on like any other where the process was started under a real-time policy. A
/// guest that never waits would keep the only processor from the threads that are to end it.
pub(super) fn give_up_real_time() {
    // musl's functions of these names do nothing but fail.
    // SAFETY: the call takes a number, and 0 is this thread.
    let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) };
    let Ok(policy) = libc::c_int::try_from(policy) else {
        return;
    };
    if policy < 0 || !matches!(policy & !FLAG, libc::SCHED_FIFO | libc::SCHED_RR) {
        return;
    }
    let ordinary = libc::SCHED_OTHER | policy & FLAG;
    // SAFETY: all zeros are a valid value, and the priority of this policy.
    let priority = unsafe { std::mem::zeroed::<libc::sched_param>() };
    // Without it the run goes on as it was started.
    // SAFETY: `priority` is valid for reading.
    unsafe {
        libc::syscall(
            libc::SYS_sched_setscheduler,
            0,
            ordinary,
            &raw const priority,
        )
    };
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::print_stderr)]

    use rustix::thread::sched_getcpu;

    use super::*;

    #[test]
    fn threads_begin_apart_and_may_go_anywhere_from_there() {
        let Some(processors) = Processors::two() else {
            eprintln!("skipped: this process may not use just two processors");
            return;
        };
        // The scheduler may move a thread at once, but hardly each time.
        let mut began_there = 0;
        for is_vcpu in [true, false].repeat(100) {
            match is_vcpu {
                true => processors.begin_at_vcpu(),
                false => processors.begin_at_devices(),
            }
            assert_eq!(sched_getaffinity(None).unwrap(), processors.allowed);
            began_there += u32::from((sched_getcpu() == processors.vcpu) == is_vcpu);
        }
        assert!(began_there > 160, "{began_there} of 200");
    }

    /// A device without events.
    struct Nothing;

    impl EventSubscriber for Nothing {
        fn init(&self, _: &mut EventOps<'_>) {}

        fn process(&self, _: Events, _: &mut EventOps<'_>) {}
    }

    impl Subscriber for Nothing {
        fn unwatched(&self) -> Option<&event_manager::Error> {
            None
        }
    }

    #[test]
    fn a_device_goes_away_from_the_vcpu_but_not_at_once_again() {
        let Some(processors) = Processors::two() else {
            eprintln!("skipped: this process may not use just two processors");
            return;
        };
        let vcpu = Arc::new(Whereabouts::default());
        let apart = || KeptApart::new(Arc::new(Nothing), processors, vcpu.clone());
        let follows = |apart: &KeptApart| {
            vcpu.note();
            let met = sched_getcpu();
            apart.part();
            sched_getcpu() != met
        };
        // The scheduler may move a thread at once, but hardly each time.
        let went = (0..100).filter(|_| follows(&apart())).count();
        assert!(went > 80, "{went} of 100");
        let same = apart();
        *lock(&same.stay) = Some((Instant::now(), Duration::from_secs(3600)));
        let went = (0..100).filter(|_| follows(&same)).count();
        assert!(went < 20, "{went} of 100");
        assert_eq!(sched_getaffinity(None).unwrap(), processors.allowed);
    }

    #[test]
    fn a_thread_stays_where_somebody_else_has_put_it() {
        let Some(processors) = Processors::two() else {
            eprintln!("skipped: this process may not use just two processors");
            return;
        };
        let mut one = processors.allowed;
        one.unset(processors.vcpu);
        sched_setaffinity(None, &one).unwrap();
        let vcpu = Arc::new(Whereabouts::default());
        let apart = KeptApart::new(Arc::new(Nothing), processors, vcpu.clone());
        vcpu.note();
        apart.part();
        let after = sched_getaffinity(None).unwrap();
        sched_setaffinity(None, &processors.allowed).unwrap();
        assert_eq!(after, one);
    }
}
