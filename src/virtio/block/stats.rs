//! What a block device counts while it works. The counters only ever grow, over resets too, and
//! are exact once the device is at rest.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::virtio::QueueCounters;

/// The counters of one disk, shared by its thread and whoever reports them.
#[derive(Debug, Default)]
pub(super) struct BlockStats {
    requests: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    bytes_zeroed: AtomicU64,
    backend_calls: AtomicU64,
    errors: AtomicU64,
}

/// What a disk has counted up to one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockCounters {
    /// Times that the disk's thread was woken by its queue's eventfd.
    pub kicks: u64,
    /// Requests answered, errors included.
    pub requests: u64,
    /// Bytes read from the storage for requests that succeeded.
    pub bytes_read: u64,
    /// Bytes written to the storage for requests that succeeded.
    pub bytes_written: u64,
    /// Bytes made zero without data. Of a request that fails those count that came before its error.
    pub bytes_zeroed: u64,
    /// Calls of the storage: reads, writes, flushes, and parts made zero or discarded.
    pub backend_calls: u64,
    /// Requests answered with a status other than OK.
    pub errors: u64,
    /// Used buffer notifications sent.
    pub notifications: u64,
}

impl BlockStats {
    /// The values now, with those of the queue.
    pub(super) fn counters(&self, queue: QueueCounters) -> BlockCounters {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BlockCounters {
            kicks: queue.kicks,
            requests: load(&self.requests),
            bytes_read: load(&self.bytes_read),
            bytes_written: load(&self.bytes_written),
            bytes_zeroed: load(&self.bytes_zeroed),
            backend_calls: load(&self.backend_calls),
            errors: load(&self.errors),
            notifications: queue.notifications,
        }
    }

    /// Adds what happened since the last call. It is called once a batch and not once a request.
    pub(super) fn add(&self, delta: &BlockCounters) {
        let add = |counter: &AtomicU64, value| {
            counter.fetch_add(value, Ordering::Relaxed);
        };
        add(&self.requests, delta.requests);
        add(&self.bytes_read, delta.bytes_read);
        add(&self.bytes_written, delta.bytes_written);
        add(&self.bytes_zeroed, delta.bytes_zeroed);
        add(&self.backend_calls, delta.backend_calls);
        add(&self.errors, delta.errors);
    }
}
