//! A worker as the transport, the event loop and the idle port see it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use event_manager::{EventOps, EventSubscriber, Events};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{Queue, QueueT};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;

use super::lane::LaneContext;
use super::{DeviceFault, QueueWorker, Service};
use crate::virtio::notify::is_readable;
use crate::virtio::{ActivateError, Notifier, VirtioDevice};

/// What any device offers, whatever its type (virtio 1.2, section 6).
const COMMON_FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC;

impl<S: Service> QueueWorker<S> {
    /// Takes a kick of queue `index` and does what the queue asks for. For the device's thread,
    /// and for who drives the device without an event loop.
    pub fn handle_kick(&self, index: usize) {
        let (Some(lane), Some(kick)) = (self.lanes.get(index), self.kicks.get(index)) else {
            return;
        };
        let take_kick = || {
            // It fails if a reset has taken the kick; the queue is looked at all the same.
            let _ = kick.read();
        };
        lane.on_kick(&self.context(index), take_kick, || self.look_again(index));
    }

    fn context(&self, index: usize) -> LaneContext<'_, S> {
        LaneContext {
            index,
            service: &self.service,
            memory: &self.memory,
            notifier: &self.notifier,
            fault: &self.fault,
        }
    }

    fn is_working(&self, index: usize) -> bool {
        let (Some(lane), Some(kick)) = (self.lanes.get(index), self.kicks.get(index)) else {
            return false;
        };
        // The order matters: a kick that is not there any more was taken by a thread that counts as
        // busy since before. The first look spares the system call while the device works.
        lane.is_busy() || is_readable(kick) || lane.is_busy()
    }
}

impl<S: Service> VirtioDevice for QueueWorker<S> {
    fn device_type(&self) -> u32 {
        self.service.device_type()
    }

    fn device_features(&self) -> u64 {
        COMMON_FEATURES | self.service.features()
    }

    fn queue_max_sizes(&self) -> &[u16] {
        self.service.queue_sizes()
    }

    fn queue_events(&self) -> &[EventFd] {
        &self.kicks
    }

    fn notifier(&self) -> &Notifier {
        &self.notifier
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        self.service.read_config(offset, data);
    }

    fn write_config(&self, offset: usize, data: &[u8]) {
        self.service.write_config(offset, data);
    }

    fn activate(&self, driver_features: u64, queues: Vec<Queue>) -> Result<(), ActivateError> {
        let missing = queues.iter().position(|queue| !queue.ready());
        if let Some(index) = missing {
            return Err(ActivateError::QueueNotReady(index));
        }
        // No queue is at work before it is started, so that no fault of this start is lost.
        self.fault.clear();
        for (lane, queue) in self.lanes.iter().zip(queues) {
            lane.start(queue, driver_features);
        }
        // What the driver made available before it started the device comes with no kick.
        (0..self.lanes.len()).for_each(|index| self.look_again(index));
        Ok(())
    }

    fn stop_queue(&self, index: usize) {
        if let Some(lane) = self.lanes.get(index) {
            lane.stop(&self.context(index));
        }
    }

    fn reset(&self) {
        for (index, (lane, kick)) in self.lanes.iter().zip(&self.kicks).enumerate() {
            lane.stop(&self.context(index));
            // It fails if there is no kick to forget.
            let _ = kick.read();
        }
        self.notifier.reset();
    }

    fn serve_here(&self) -> bool {
        let help =
            |index: usize| self.lanes[index].help(&self.context(index), || self.look_again(index));
        (0..self.lanes.len()).fold(false, |any, index| help(index) | any)
    }

    fn serve_by_kicks(&self) {
        for (index, lane) in self.lanes.iter().enumerate() {
            if lane.leave() {
                // The device's thread asks for kicks again, and looks for what came without one.
                self.look_again(index);
            }
        }
    }

    fn in_flight(&self) -> bool {
        // The order matters: a service may stop expecting input once it has asked its thread to
        // look again. A device that has stopped uses nothing more, whatever comes from outside.
        let expects = |index| !self.notifier.needs_reset() && self.service.expects(index);
        let is_busy = |index| expects(index) || self.is_working(index) || expects(index);
        (0..self.lanes.len()).any(is_busy)
    }

    fn is_attended(&self) -> bool {
        self.subscribed.load(Ordering::Relaxed)
    }

    fn refuse_start(&self, why: ActivateError) {
        self.fault.set(DeviceFault::NotStarted(why));
    }

    fn fault(&self) -> Option<Arc<DeviceFault>> {
        self.fault.get()
    }
}

impl<S: Service> EventSubscriber for QueueWorker<S> {
    fn init(&self, ops: &mut EventOps<'_>) {
        self.subscribed.store(true, Ordering::Relaxed);
        for (index, kick) in (0..).zip(&self.kicks) {
            if let Err(error) = ops.add(Events::with_data(kick, index, EventSet::IN)) {
                let _ = self.unwatched.set(error);
            }
        }
    }

    fn process(&self, events: Events, _ops: &mut EventOps<'_>) {
        self.handle_kick(events.data() as usize);
    }
}
