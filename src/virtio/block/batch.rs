//! Takes all requests that the driver has made available and finds those that can be carried out
//! as one: the same direction, neighbours on the disk. The limits bound the memory that a driver
//! can make the device use, and how long it is away from its event loop.

use super::disk::transfer_of;
use super::request::{Extent, Geometry, Operation, Request, Segment, parse};
use super::zeroes::part_count;
use crate::virtio::{QueueFault, Turn};

/// Most bytes that are moved by one call of the storage, unless a single request has more. Small
/// enough that whoever waits for the data can start on it while the rest is still on its way.
pub(super) const MAX_JOINED_BYTES: u64 = 256 << 10;
/// Most segments of joined requests; each may fall into two regions, and IOV_MAX is 1024.
const MAX_JOINED_SEGMENTS: usize = 512;
/// A batch takes no more requests once those in it have so many bytes.
const MAX_BATCH_BYTES: u64 = 1 << 20;
/// A batch takes no more requests once those in it have so many segments.
const MAX_BATCH_SEGMENTS: usize = 4096;

/// A batch takes no more requests once those in it are so much work beside their data, in the unit of
/// [`Turn::count_work`]: a few flushes, or some hundred parts that become zero.
const MAX_BATCH_WORK: usize = 8 << 10;
/// What a flush counts as: with `--fsync` it takes milliseconds. A round has sixteen of them.
pub(super) const FLUSH_WORK: usize = 2 << 10;
/// What a part that becomes zero or is discarded counts as: it can be a system call.
const PART_WORK: usize = 16;

/// Requests that were taken and are not carried out yet. The lists are kept from turn to turn, so
/// that they are allocated once.
#[derive(Debug, Default)]
pub struct Batch {
    pub(super) requests: Vec<Request>,
    pub(super) segments: Vec<Segment>,
    pub(super) bytes: u64,
    /// What the requests cost beside their bytes and descriptors.
    pub(super) work: usize,
}

impl Batch {
    /// Replaces the batch by what is available, up to the limits.
    ///
    /// # Errors
    ///
    /// What stops the queue. The batch then holds what was taken before it.
    pub(super) fn fill(
        &mut self,
        turn: &mut Turn<'_>,
        geometry: &Geometry,
    ) -> Result<(), QueueFault> {
        self.requests.clear();
        self.segments.clear();
        self.bytes = 0;
        self.work = 0;
        let memory = turn.memory();
        turn.take(|chain| {
            let head = chain.head();
            let request = parse(chain, memory, geometry, &mut self.segments)
                .map_err(QueueFault::chain(head))?;
            self.push(request);
            Ok(self.has_room())
        })
    }

    fn has_room(&self) -> bool {
        self.bytes < MAX_BATCH_BYTES
            && self.segments.len() < MAX_BATCH_SEGMENTS
            && self.work < MAX_BATCH_WORK
    }

    fn push(&mut self, request: Request) {
        match request.operation {
            Operation::Read(extent) | Operation::Write(extent) => {
                self.bytes += u64::from(extent.len);
            }
            Operation::Zeroes(_) => {
                let list = &self.segments[request.segments.clone()];
                self.work += PART_WORK * part_count(list);
            }
            Operation::Flush => self.work += FLUSH_WORK,
            Operation::GetId | Operation::Refuse(_) => {}
        }
        self.requests.push(request);
    }
}

/// How many of `requests`, from the first one up, can be carried out as one.
pub(super) fn joined_len(requests: &[Request]) -> usize {
    let Some(first) = requests.first() else {
        return 0;
    };
    let Some((direction, extent)) = transfer_of(first.operation) else {
        return 1;
    };
    let mut end = extent.end();
    let joins = requests[1..].iter().take_while(|next| {
        let Some((next_direction, next_extent)) = transfer_of(next.operation) else {
            return false;
        };
        let fits = next_direction == direction
            && next_extent.offset == end
            && next_extent.end() - extent.offset <= MAX_JOINED_BYTES
            && next.segments.end - first.segments.start <= MAX_JOINED_SEGMENTS;
        end = next_extent.end();
        fits
    });
    1 + joins.count()
}

/// The part of the disk that joined requests cover.
pub(super) fn joined_extent(run: &[Request]) -> Option<Extent> {
    let (_, first) = transfer_of(run.first()?.operation)?;
    let (_, last) = transfer_of(run.last()?.operation)?;
    let len = u32::try_from(last.end() - first.offset).ok()?;
    Some(Extent {
        offset: first.offset,
        len,
    })
}
