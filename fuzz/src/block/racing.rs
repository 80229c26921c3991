//! A driver that does not wait: while the disk works on honest requests, another thread writes to their
//! descriptors, headers and rings, over and over, so that what the device reads twice may have changed in
//! between. Whatever it reads: nothing panics, every round ends, the storage is asked for
//! no more than a disk may do, other memory stays as it was, and after a reset the disk works.

use std::cell::Cell;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use arbitrary::{Result, Unstructured};
use guest_abi::layout::DMA_POOL;
use vm_memory::{Bytes, GuestAddress};
use vmm::virtio::VirtioDevice;

use super::super::virtio::Board;
use super::super::virtio::driver::VERSION_1;
use super::super::virtio::memory::Memory;
use super::super::virtio::queue::{AVAIL, HEADERS, QueueLayout, TABLES, USED};
use super::super::{Kept, Seed, with_rig};
use super::action::Request;
use super::disk::Disk;
use super::examine;

/// How often all changes are made at the most. A device that finds more whenever it looks is then done
/// at last.
const PASSES: usize = 2000;
const ROUNDS: usize = 4;
const MAX_REQUESTS: usize = 8;
const MAX_CHANGES: usize = 16;
const INDIRECT_AND_EVENT_INDEX: u64 = 3 << 28;
/// Where a change may be: the offset within the room of a queue, and how many bytes there are.
const PLACES: [(u64, u64); 6] = [
    (0, 32 * 16),
    (AVAIL, 6 + 32 * 2),
    (USED, 6 + 32 * 8),
    (HEADERS, MAX_REQUESTS as u64 * 32),
    (TABLES, MAX_REQUESTS as u64 * 128),
    (HEADERS, 17),
];

struct Rig {
    board: Board,
    disks: [Disk; 2],
}

thread_local! {
    static RIG: Cell<Option<Kept<Rig>>> = const { Cell::new(None) };
}

/// Bytes that are put somewhere.
struct Change {
    address: u64,
    bytes: Vec<u8>,
}

/// Carries `bytes` out: a choice of disk and features, requests, and changes.
///
/// # Panics
///
/// When an invariant does not hold.
pub fn run(bytes: &[u8]) {
    with_rig(&RIG, Rig::new, |rig| {
        // Running out of bytes is no more than the end of the input.
        let _ = rig.drive(&mut Unstructured::new(bytes));
        rig.board.clear();
    });
}

impl Rig {
    fn new() -> Self {
        let board = Board::new();
        let Board { memory, line, .. } = &board;
        let disks = [0, 1].map(|index| Disk::new(index, (64 << 10, 512), memory, line));
        Self { board, disks }
    }

    fn drive(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let setup: u8 = u.arbitrary()?;
        let index = usize::from(setup & 1);
        let disk = &mut self.disks[index];
        let memory = &self.board.memory;
        let features = match setup & 2 {
            0 => VERSION_1,
            _ => VERSION_1 | INDIRECT_AND_EVENT_INDEX,
        };
        let mut requests = Vec::new();
        for slot in 0..=usize::from(setup >> 2) % MAX_REQUESTS {
            requests.push(request(u, slot as u16, setup & 2 != 0)?);
        }
        let mut changes = Vec::new();
        while !u.is_empty() && changes.len() < MAX_CHANGES {
            changes.push(change(u, QueueLayout::of(index).base)?);
        }
        // What the device reads says where it writes, and what it reads may be anything.
        memory.touch_all();
        disk.renew(false);
        for _ in 0..ROUNDS {
            disk.start(features, 32);
            requests.iter().for_each(|request| disk.request(request));
            let is_over = AtomicBool::new(false);
            let begin = Barrier::new(2);
            thread::scope(|scope| {
                scope.spawn(|| {
                    begin.wait();
                    write_on(memory, &changes, &is_over);
                });
                begin.wait();
                disk.probe.device.handle_kick(0);
                disk.probe.device.serve_here();
                is_over.store(true, Ordering::Relaxed);
            });
        }
        examine(disk, &(0, 3, 8 * 512));
        disk.check();
        Ok(())
    }
}

/// Makes the changes over and over, and between them takes each back.
fn write_on(memory: &Memory, changes: &[Change], is_over: &AtomicBool) {
    let read = |change: &Change| {
        let mut bytes = vec![0; change.bytes.len()];
        let at = GuestAddress(change.address);
        memory.dma.read_slice(&mut bytes, at).unwrap();
        bytes
    };
    let before: Vec<_> = changes.iter().map(read).collect();
    for _ in 0..PASSES {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        for (change, before) in changes.iter().zip(&before) {
            memory.write(&change.bytes, change.address);
            memory.write(before, change.address);
        }
    }
}

/// An honest request. Its data lie in two pieces.
fn request(u: &mut Unstructured<'_>, slot: u16, may_be_indirect: bool) -> Result<Request> {
    let [kind, sector, sectors]: [u8; 3] = u.arbitrary()?;
    let at = DMA_POOL + u64::from(slot) * 0x4000;
    let len = (1 + u32::from(sectors & 15)) * 512;
    Ok(Request {
        slot,
        kind: u32::from(kind & 1),
        sector: u64::from(sector & 63),
        header_len: 16,
        data: vec![(at, len), (at + 0x2000, 512)],
        status_len: 1,
        indirect: may_be_indirect && kind & 2 != 0,
        list: Vec::new(),
    })
}

fn change(u: &mut Unstructured<'_>, base: u64) -> Result<Change> {
    let (place, offset, len): (u8, u16, u8) = (u.arbitrary()?, u.arbitrary()?, u.arbitrary()?);
    let (start, room) = PLACES[usize::from(place) % PLACES.len()];
    let len = (1 + usize::from(len & 15)).min(u.len());
    Ok(Change {
        address: base + start + u64::from(offset) % room,
        bytes: u.bytes(len)?.to_vec(),
    })
}

/// Requests whose sector, length, direction or number of descriptors changes, and rings that do.
pub fn seeds() -> Vec<Seed> {
    let seed = |setup: u8, changes: &[(u8, u16, &[u8])]| {
        let mut bytes = vec![setup];
        for number in 0..=setup >> 2 {
            bytes.extend([number, number * 8, 7]);
        }
        for &(place, offset, value) in changes {
            bytes.push(place);
            bytes.extend(offset.to_le_bytes());
            bytes.push(value.len() as u8 - 1);
            bytes.extend(value);
        }
        bytes
    };
    let far = &[0xff; 8];
    vec![
        ("header", seed(0x1d, &[(3, 0, &[0]), (3, 40, far)])),
        ("direction", seed(0x1c, &[(3, 0, &[1]), (3, 32, &[1])])),
        (
            "length",
            seed(0x1d, &[(0, 24, &[0, 0, 1, 0]), (0, 40, far)]),
        ),
        ("address", seed(0x1d, &[(0, 16, far), (0, 80, &[0; 8])])),
        (
            "chain",
            seed(0x1d, &[(0, 30, &[0]), (0, 28, &[5, 0, 1, 0])]),
        ),
        (
            "indirect",
            seed(0x1f, &[(4, 24, far), (4, 14, &[0, 0]), (0, 8, far)]),
        ),
        (
            "rings",
            seed(0x1d, &[(1, 2, &[0xff, 0xff]), (1, 4, &[9]), (2, 2, &[7])]),
        ),
    ]
}
