//! On which processor the threads of a run begin (sched_setaffinity(2)), and that the guest's gives way
//! to all others (sched(7)).
//!
//! The vCPU and the disks work at the same time, and each wakes the other again and again. Where there
//! are two processors, a scheduler that wakes a thread on the processor of the one that woke it, as it
//! does where it takes the idle one for one that its hypervisor does not run, lets them take turns on
//! one of the two for tenths of a second. Threads that began apart stay apart. With more processors
//! there is no need to know better than the scheduler.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// May stand beside a policy, and is not for everybody to take away.
const FLAG: libc::c_int = libc::SCHED_RESET_ON_FORK;

/// Whose processor it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The guest's.
    Vcpu,
    /// That of all devices.
    Devices,
}

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

    /// Has this thread go on at `place`; from there it may go where the scheduler wants it. If the
    /// system does not allow that, it stays where it is.
    pub(super) fn begin_at(&self, place: Place) {
        let mut there = self.allowed;
        match place {
            Place::Devices => there.unset(self.vcpu),
            Place::Vcpu => {
                there.clear();
                there.set(self.vcpu);
            }
        }
        if sched_setaffinity(None, &there).is_ok() {
            // It fails if both have been forbidden since, and then the thread is no longer there either.
            let _ = sched_setaffinity(None, &self.allowed);
        }
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
        for place in [Place::Vcpu, Place::Devices].repeat(100) {
            processors.begin_at(place);
            assert_eq!(sched_getaffinity(None).unwrap(), processors.allowed);
            let is_there = (sched_getcpu() == processors.vcpu) == (place == Place::Vcpu);
            began_there += u32::from(is_there);
        }
        assert!(began_there > 160, "{began_there} of 200");
    }
}
