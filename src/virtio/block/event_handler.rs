//! The block device on an event loop: the queue's eventfd, which is the ioeventfd of its notify
//! register, is all that it waits for.

use event_manager::{EventOps, EventSubscriber, Events};
use vmm_sys_util::epoll::EventSet;

use super::Block;
use crate::storage::Storage;

impl<B: Storage> EventSubscriber for Block<B> {
    fn init(&self, ops: &mut EventOps) {
        // Cannot fail: the eventfd is open and new to this loop.
        let _ = ops.add(Events::new(self.kick(), EventSet::IN));
    }

    fn process(&self, _events: Events, _ops: &mut EventOps) {
        self.handle_kick();
    }
}
