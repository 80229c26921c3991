//! Carries requests out, in the order in which they came: a run of neighbours is one call of the
//! backend, and the used ring is updated once for many of them (virtio 1.2, sections 5.2.6.2 and
//! 2.7.8). If a run fails each of its requests is tried alone, so that only the bad one fails.

use std::ops::Range;

use thiserror::Error;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestMemoryError, VolatileSlice};

use super::BlockCounters;
use super::batch::{Batch, MAX_RUN_BYTES, run_extent, run_len};
use super::disk::{Disk, IoOperation, TransferError, transfer_of};
use super::request::{Extent, Operation, Request, RequestFault, Status};
use crate::storage::Storage;
use crate::virtio::{QueueError, UsedElement, needs_notification, publish_used};

/// The used ring is updated at the latest when so many bytes have been moved since last time.
const PUBLISH_BYTES: u64 = MAX_RUN_BYTES;
/// After so many bytes the disk's thread goes back to its event loop, which may have to stop.
const ROUND_BYTES: u64 = 16 << 20;
/// The same for requests, which need not have data, and their descriptors, which may be many.
const ROUND_WORK: usize = 32 << 10;

/// Requests are large that have so many bytes on average.
const LARGE_REQUEST: u64 = 16 << 10;

/// Why a queue was stopped: nothing that could be answered with a status byte.
#[derive(Debug, Error)]
pub enum QueueFault {
    /// The rings.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// One chain.
    #[error("cannot answer the request at descriptor {head}: {fault}")]
    Request {
        /// Index of its first descriptor.
        head: u16,
        /// What is wrong with it.
        fault: RequestFault,
    },
    /// The status byte that was there when the request was parsed.
    #[error("cannot write the status of the request at descriptor {head}: {source}")]
    Status {
        /// Index of its first descriptor.
        head: u16,
        /// The reason.
        source: GuestMemoryError,
    },
    /// The descriptor table.
    #[error("cannot use the descriptor table: {0}")]
    Table(RequestFault),
}

/// How a round of work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The queue is empty, and the driver will notify when it is not.
    Empty,
    /// There may be more, and the driver need not notify.
    More,
}

/// What to do about the driver's notifications when the queue is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WhenEmpty {
    /// Ask for them.
    AskForKicks,
    /// Do without if the requests are large, since whoever works on the queue will look at it
    /// again. Many small ones cost more than a wake-up, and are better left to the disk's thread.
    LookAgainIfLarge,
}

/// An active queue and the room that its requests need.
#[derive(Debug)]
pub(super) struct QueueHandler {
    queue: Queue,
    indirect: bool,
    batch: Batch,
    completions: Completions,
    /// What was true of the last batch.
    has_large_requests: bool,
}

/// Requests that are answered but not yet in the used ring.
#[derive(Debug, Default)]
struct Completions {
    used: Vec<UsedElement>,
    bytes: u64,
    counters: BlockCounters,
}

impl QueueHandler {
    pub(super) fn new(queue: Queue, indirect: bool) -> Self {
        Self {
            queue,
            indirect,
            batch: Batch::default(),
            completions: Completions::default(),
            has_large_requests: false,
        }
    }

    /// Whether the requests of the last batch were large.
    pub(super) fn has_large_requests(&self) -> bool {
        self.has_large_requests
    }

    /// Carries out what is available until the queue is empty or enough for one round.
    pub(super) fn process<B: Storage>(
        &mut self,
        disk: &Disk<B>,
        when_empty: WhenEmpty,
    ) -> Result<Progress, QueueFault> {
        let mut slices = Vec::new();
        let (mut bytes, mut work) = (0, 0);
        while work < ROUND_WORK {
            self.queue
                .disable_notification(&disk.memory)
                .map_err(QueueError::from)?;
            while self.take_and_execute(disk, &mut slices)? {
                bytes += self.batch.bytes;
                let requests = self.batch.requests.len() as u64;
                self.has_large_requests = self.batch.bytes >= requests * LARGE_REQUEST;
                work += self.batch.requests.len() + self.batch.segments.len();
                if bytes >= ROUND_BYTES || work >= ROUND_WORK {
                    return Ok(Progress::More);
                }
            }
            if when_empty == WhenEmpty::LookAgainIfLarge && self.has_large_requests {
                return Ok(Progress::Empty);
            }
            // Looks once more: what came before the wish for a kick could be seen comes with none.
            let more = self.queue.enable_notification(&disk.memory);
            if !more.map_err(QueueError::from)? {
                return Ok(Progress::Empty);
            }
            // A driver that moves the index to and fro would otherwise keep this loop busy.
            work += 1;
        }
        Ok(Progress::More)
    }

    /// Returns whether there was anything to do.
    fn take_and_execute<'m, B: Storage>(
        &mut self,
        disk: &'m Disk<B>,
        slices: &mut Vec<VolatileSlice<'m>>,
    ) -> Result<bool, QueueFault> {
        let filled = self
            .batch
            .fill(&mut self.queue, &disk.memory, &disk.geometry, self.indirect);
        let taken = self.batch.requests.len();
        let mut next = 0;
        while next < taken {
            let end = next + run_len(&self.batch.requests[next..]);
            self.completions
                .execute(disk, &self.batch, next..end, slices)?;
            next = end;
            if self.completions.bytes >= PUBLISH_BYTES {
                self.completions.publish(&mut self.queue, disk)?;
            }
        }
        self.completions.publish(&mut self.queue, disk)?;
        // What was sound before the fault has been answered.
        filled.map(|()| taken > 0)
    }
}

impl Completions {
    fn execute<'m, B: Storage>(
        &mut self,
        disk: &'m Disk<B>,
        batch: &Batch,
        run: Range<usize>,
        slices: &mut Vec<VolatileSlice<'m>>,
    ) -> Result<(), QueueFault> {
        let requests = &batch.requests[run];
        if requests.len() > 1 && self.execute_joined(disk, batch, requests, slices) {
            return requests
                .iter()
                .try_for_each(|request| self.complete(disk, request, Ok(data_len(request))));
        }
        for request in requests {
            let outcome = self.execute_one(disk, batch, request, slices);
            self.complete(disk, request, outcome)?;
        }
        Ok(())
    }

    fn execute_joined<'m, B: Storage>(
        &mut self,
        disk: &'m Disk<B>,
        batch: &Batch,
        run: &[Request],
        slices: &mut Vec<VolatileSlice<'m>>,
    ) -> bool {
        let (Some(first), Some(last), Some(extent)) = (run.first(), run.last(), run_extent(run))
        else {
            return false;
        };
        let Some((operation, _)) = transfer_of(first.operation) else {
            return false;
        };
        let segments = &batch.segments[first.segments.start..last.segments.end];
        let result = disk.transfer(operation, extent, segments, slices);
        self.count_call(&result);
        result.is_ok()
    }

    /// Returns how many bytes of data were moved.
    fn execute_one<'m, B: Storage>(
        &mut self,
        disk: &'m Disk<B>,
        batch: &Batch,
        request: &Request,
        slices: &mut Vec<VolatileSlice<'m>>,
    ) -> Result<u32, Status> {
        let segments = &batch.segments[request.segments.clone()];
        let (operation, extent, segments) = match request.operation {
            Operation::Refuse(status) => return Err(status),
            Operation::GetId => return disk.write_id(segments).map_err(|_| Status::IoErr),
            // Its data, if there is any, means nothing.
            Operation::Flush => (IoOperation::Flush, Extent { offset: 0, len: 0 }, &[][..]),
            Operation::Read(extent) => (IoOperation::Read, extent, segments),
            Operation::Write(extent) => (IoOperation::Write, extent, segments),
        };
        let result = disk.transfer(operation, extent, segments, slices);
        self.count_call(&result);
        match result {
            Ok(()) => Ok(extent.len),
            Err(TransferError::Memory(_)) => Err(Status::IoErr),
            Err(TransferError::Io(source)) => {
                disk.record(operation, extent, source);
                Err(Status::IoErr)
            }
        }
    }

    fn count_call(&mut self, result: &Result<(), TransferError>) {
        if !matches!(result, Err(TransferError::Memory(_))) {
            self.counters.backend_calls += 1;
        }
    }

    /// Answers a request that moved so many bytes, or failed.
    fn complete<B: Storage>(
        &mut self,
        disk: &Disk<B>,
        request: &Request,
        outcome: Result<u32, Status>,
    ) -> Result<(), QueueFault> {
        let status = outcome.err().unwrap_or(Status::Ok);
        let head = request.head;
        disk.write_status(status, request.status)
            .map_err(|source| QueueFault::Status { head, source })?;
        let moved = outcome.unwrap_or_default();
        let written = match request.operation {
            Operation::Read(_) => {
                self.counters.bytes_read += u64::from(moved);
                moved
            }
            Operation::Write(_) => {
                self.counters.bytes_written += u64::from(moved);
                0
            }
            Operation::GetId => moved,
            Operation::Flush | Operation::Refuse(_) => 0,
        };
        self.counters.requests += 1;
        self.counters.errors += u64::from(status != Status::Ok);
        self.bytes += u64::from(moved);
        // The status byte is written too.
        self.used.push(UsedElement::new(head, written + 1));
        Ok(())
    }

    /// Puts what is answered into the used ring and notifies the driver if it wants to know.
    fn publish<B>(&mut self, queue: &mut Queue, disk: &Disk<B>) -> Result<(), QueueFault> {
        let Ok(count @ 1..) = u16::try_from(self.used.len()) else {
            return Ok(());
        };
        publish_used(queue, &disk.memory, &self.used)?;
        self.used.clear();
        self.bytes = 0;
        disk.interrupt.count_used(u64::from(count));
        if needs_notification(queue, &disk.memory, count)? {
            disk.interrupt.signal_used();
            self.counters.notifications += 1;
        }
        disk.stats.add(&self.counters);
        self.counters = BlockCounters::default();
        Ok(())
    }
}

fn data_len(request: &Request) -> u32 {
    transfer_of(request.operation).map_or(0, |(_, extent)| extent.len)
}
