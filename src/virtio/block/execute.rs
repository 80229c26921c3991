//! Carries requests out, in the order in which they came: requests that are neighbours on the disk
//! are joined into one call of the storage, and the used ring is updated once for many of them
//! (virtio 1.2, sections 5.2.6.2 and 2.7.8). If a joined call fails, each of its requests is tried
//! alone, so that only the one at fault fails. A driver that takes an answered write for stable is
//! answered only when a flush has followed, one for all writes of the batch.

use thiserror::Error;
use virtio_bindings::virtio_blk::VIRTIO_BLK_T_GET_ID;
use vm_memory::{Bytes, GuestMemoryError, VolatileSlice};

use super::BlockCounters;
use super::batch::{Batch, FLUSH_WORK, MAX_JOINED_BYTES, joined_extent, joined_len};
use super::config::expects_stable_writes;
use super::device::BlockService;
use super::disk::{BlockIoError, Direction, TransferError, transfer_of};
use super::refusal::Refusal;
use super::request::{Extent, Operation, Request, Status};
use super::zeroes::{self, ZeroKind};
use crate::storage::Storage;
use crate::virtio::{QueueFault, Turn};

/// The used ring is updated at the latest when so many bytes have been moved since last time.
const PUBLISH_BYTES: u64 = MAX_JOINED_BYTES;

/// The status byte cannot be written, although it could be when the request was parsed.
#[derive(Debug, Error)]
#[error("cannot write its status: {0}")]
struct StatusFault(#[from] GuestMemoryError);

/// A batch that is being carried out.
pub(super) struct Execution<'t, 'm, B: ?Sized> {
    service: &'t BlockService<B>,
    batch: &'t Batch,
    turn: &'t mut Turn<'m>,
    /// Room for the resolved segments of joined requests.
    slices: Vec<VolatileSlice<'m>>,
    /// Bytes moved since the used ring was updated.
    unpublished: u64,
    /// Whether what is written has to be stable before the driver has the answer.
    stable_writes: bool,
    /// Requests that have written so many bytes, and are answered when that is stable.
    unstable: Vec<(&'t Request, u32)>,
    counters: BlockCounters,
}

impl<'t, 'm, B: Storage + ?Sized> Execution<'t, 'm, B> {
    pub(super) fn new(
        service: &'t BlockService<B>,
        batch: &'t Batch,
        turn: &'t mut Turn<'m>,
    ) -> Self {
        Self {
            service,
            batch,
            stable_writes: expects_stable_writes(turn.features()),
            turn,
            slices: Vec::new(),
            unpublished: 0,
            unstable: Vec::new(),
            counters: BlockCounters::default(),
        }
    }

    /// Carries all of the batch out; what has been answered when an error occurs is in the turn.
    pub(super) fn run(mut self) -> Result<(), QueueFault> {
        let mut rest = self.batch.requests.as_slice();
        let mut result = Ok(());
        while !rest.is_empty() && result.is_ok() {
            let (joined, behind) = rest.split_at(joined_len(rest));
            rest = behind;
            result = self.execute(joined);
        }
        let stabilised = self.stabilise();
        self.turn.count_bytes(self.batch.bytes);
        self.turn.count_work(self.batch.work);
        self.service.stats.add(&self.counters);
        result.and(stabilised)
    }

    fn execute(&mut self, joined: &'t [Request]) -> Result<(), QueueFault> {
        if joined.len() > 1 && self.execute_joined(joined) {
            for request in joined {
                self.answer(request, Ok(data_len(request)))?;
            }
        } else {
            for request in joined {
                let outcome = self.execute_one(request);
                self.answer(request, outcome)?;
            }
        }
        if self.unpublished >= PUBLISH_BYTES {
            self.service.stats.add(&std::mem::take(&mut self.counters));
            self.unpublished = 0;
            self.turn.publish()?;
        }
        Ok(())
    }

    fn execute_joined(&mut self, joined: &[Request]) -> bool {
        let (Some(first), Some(last), Some(extent)) =
            (joined.first(), joined.last(), joined_extent(joined))
        else {
            return false;
        };
        let Some((direction, _)) = transfer_of(first.operation) else {
            return false;
        };
        let segments = first.segments.start..last.segments.end;
        self.transfer(direction, extent, segments).is_ok()
    }

    /// Returns how many bytes of data were moved.
    fn execute_one(&mut self, request: &Request) -> Result<u32, Status> {
        let segments = request.segments.clone();
        let (direction, extent) = match request.operation {
            Operation::Refuse(refusal) => return Err(self.service.refusal.note(refusal)),
            Operation::GetId => {
                let segments = &self.batch.segments[segments];
                let written = self.service.write_id(self.turn.memory(), segments);
                let refusal = Refusal::unreachable(VIRTIO_BLK_T_GET_ID, 0, 0);
                return written.map_err(|_| self.service.refusal.note(refusal));
            }
            Operation::Zeroes(kind) => return self.execute_zeroes(kind, segments),
            // A flush has no data. If there is some, it is ignored.
            Operation::Flush => return self.flush().map(|()| 0),
            Operation::Read(extent) => (Direction::Read, extent),
            Operation::Write(extent) => (Direction::Write, extent),
        };
        match self.transfer(direction, extent, segments) {
            Ok(()) => Ok(extent.len),
            Err(TransferError::Memory(_)) => {
                let Extent { offset, len } = extent;
                let refusal = Refusal::unreachable(direction.request(), offset, len.into());
                Err(self.service.refusal.note(refusal))
            }
            Err(TransferError::Io(error)) => Err(self.failed(error)),
        }
    }

    fn flush(&mut self) -> Result<(), Status> {
        self.counters.backend_calls += 1;
        self.service.flush().map_err(|error| self.failed(error))
    }

    /// Remembers an error of the host; returns what the request is answered with.
    fn failed(&self, error: BlockIoError) -> Status {
        self.service.failures.add(error);
        Status::IoErr
    }

    /// Makes all that the request names zero, or forgets it. If not all of it is possible, nothing
    /// is tried.
    fn execute_zeroes(
        &mut self,
        kind: ZeroKind,
        segments: std::ops::Range<usize>,
    ) -> Result<u32, Status> {
        let segments = &self.batch.segments[segments];
        let service = self.service;
        let parts = zeroes::parts(self.turn.memory(), segments, kind, &service.geometry);
        for part in parts.map_err(|refusal| service.refusal.note(refusal))? {
            self.counters.backend_calls += 1;
            self.counters.bytes_zeroed += service.zero(kind, part)?;
        }
        Ok(0)
    }

    fn transfer(
        &mut self,
        direction: Direction,
        extent: Extent,
        segments: std::ops::Range<usize>,
    ) -> Result<(), TransferError> {
        let segments = &self.batch.segments[segments];
        let memory = self.turn.memory();
        let service = self.service;
        let result = service.transfer(memory, direction, extent, segments, &mut self.slices);
        if !matches!(result, Err(TransferError::Memory(_))) {
            self.counters.backend_calls += 1;
        }
        result
    }

    /// Answers a request now, or once what it has written is stable, if the driver counts on that.
    fn answer(
        &mut self,
        request: &'t Request,
        outcome: Result<u32, Status>,
    ) -> Result<(), QueueFault> {
        match outcome {
            Ok(moved) if self.stable_writes && request.operation.is_write() => {
                self.unstable.push((request, moved));
                Ok(())
            }
            _ => self.complete(request, outcome),
        }
    }

    /// Makes stable what has been written, and answers the requests that wait for it. If it cannot be
    /// made stable they have failed.
    fn stabilise(&mut self) -> Result<(), QueueFault> {
        if self.unstable.is_empty() {
            return Ok(());
        }
        let flushed = self.flush();
        self.turn.count_work(FLUSH_WORK);
        for (request, moved) in std::mem::take(&mut self.unstable) {
            self.complete(request, flushed.map(|()| moved))?;
        }
        Ok(())
    }

    /// Answers a request that moved so many bytes, or failed.
    fn complete(
        &mut self,
        request: &Request,
        outcome: Result<u32, Status>,
    ) -> Result<(), QueueFault> {
        let status = outcome.err().unwrap_or(Status::Ok);
        self.turn
            .memory()
            .write_obj(status as u8, request.status)
            .map_err(StatusFault::from)
            .map_err(QueueFault::chain(request.head))?;
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
            Operation::Zeroes(_) | Operation::Flush | Operation::Refuse(_) => 0,
        };
        self.counters.requests += 1;
        self.counters.errors += u64::from(status != Status::Ok);
        self.unpublished += u64::from(moved);
        // What the driver is told is written without a gap from the beginning (section 2.7.8.2). The
        // status byte lies behind the data, and counts only if all of the data was written.
        let all = u64::from(written) == request.writable;
        self.turn.complete(request.head, written + u32::from(all));
        Ok(())
    }
}

fn data_len(request: &Request) -> u32 {
    transfer_of(request.operation).map_or(0, |(_, extent)| extent.len)
}
