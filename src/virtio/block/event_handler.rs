//! The block device on an event loop: the queue's eventfd, which is the ioeventfd of its notify
//! register, is all that it waits for.

use event_manager::{EventOps, EventSubscriber, Events};
use vmm_sys_util::epoll::EventSet;

use super::{Block, BlockBackend};

impl<B: BlockBackend> EventSubscriber for Block<B> {
    fn init(&self, ops: &mut EventOps) {
        if let Err(error) = ops.add(Events::new(self.kick(), EventSet::IN)) {
            log::error!("cannot wait for the disk's queue: {error}");
        }
    }

    fn process(&self, _events: Events, _ops: &mut EventOps) {
        self.handle_kick();
    }
}
