//! Watches the readers of what a run says, for as long as something waits for room, and no longer:
//! a reader that has room while nothing waits would wake the main loop again and again.

use std::os::fd::RawFd;

use event_manager::{EventOps, Events};
use vmm_sys_util::epoll::EventSet;

use crate::report::Console;

/// Descriptors of the console that are watched.
pub(super) struct Room(Vec<RawFd>);

impl Room {
    /// Watches nothing yet, and has room for all descriptors that there can be.
    pub(super) fn new() -> Self {
        Self(Vec::with_capacity(2))
    }

    /// Watches what waits for room now, as `token`. Nothing is lost where that fails, since each
    /// tick tries as well.
    pub(super) fn watch(&mut self, console: &Console, token: u32, ops: &mut EventOps<'_>) {
        let events = |fd| Events::with_data_raw(fd, token, EventSet::OUT);
        self.0.retain(|&fd| {
            let waits = console.waiting().any(|waiting| waiting == fd);
            waits || ops.remove(events(fd)).is_err()
        });
        for fd in console.waiting() {
            if !self.0.contains(&fd) && ops.add(events(fd)).is_ok() {
                self.0.push(fd);
            }
        }
    }
}
