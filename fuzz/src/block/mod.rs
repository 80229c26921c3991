//! A hostile driver of two block devices, a read-only and a writable one (virtio 1.2, sections
//! 2.7, 4.2.2 and 5.2). Whatever it does: nothing panics, every round ends, memory that devices
//! may not reach and the read-only disk stay as they were, and after a reset the disk works.

mod action;
mod disk;
pub mod racing;
pub mod seeds;
mod watched;
mod writer;

use std::cell::Cell;
use std::sync::atomic::Ordering;

use arbitrary::{Result, Unstructured};
use guest_abi::layout::DMA_POOL;
use vm_memory::{Bytes, GuestAddress};
use vmm::virtio::VirtioDevice;
use vmm::virtio::block::Block;

use super::virtio::Board;
use super::virtio::driver::VERSION_1;
use super::{Kept, with_rig};
use action::{Action, Request};
use disk::{Disk, OUT};
use watched::{FAULTY, PIECE, Watched};

/// More would make single inputs slow without reaching anything new.
const MAX_ACTIONS: usize = 128;
/// After so many calls of the storage at most, a disk has not lost count of what has failed: each
/// success may cut each failure in two, and it remembers 64 pieces.
const REMEMBERED: u64 = 13;
const OK: u8 = 0;
const IOERR: u8 = 1;

/// The machine of all inputs, reset between them.
struct Rig {
    board: Board,
    /// The two disks, small and large, with small and large sectors; made when they are needed.
    disks: [Option<[Disk; 2]>; 4],
}

thread_local! {
    static RIG: Cell<Option<Kept<Rig>>> = const { Cell::new(None) };
}

/// What the disks were asked for by an input's actions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Requests that were answered.
    pub requests: u64,
    /// Those of them that failed.
    pub errors: u64,
}

/// Carries `bytes` out as a driver's actions.
///
/// # Panics
///
/// When an invariant does not hold.
pub fn run(bytes: &[u8]) {
    answers(bytes);
}

/// The same, and counts what came of it.
///
/// # Panics
///
/// When an invariant does not hold.
pub fn answers(bytes: &[u8]) -> Answers {
    with_rig(&RIG, Rig::new, |rig| {
        // Running out of bytes is no more than the end of the input.
        let answers = rig.drive(&mut Unstructured::new(bytes));
        rig.board.clear();
        answers.unwrap_or_default()
    })
}

impl Rig {
    fn new() -> Self {
        Self {
            board: Board::new(),
            disks: [const { None }; 4],
        }
    }

    fn drive(&mut self, u: &mut Unstructured<'_>) -> Result<Answers> {
        let setup: u8 = u.arbitrary()?;
        let exam = transfer(u)?;
        let Board { memory, line, .. } = &self.board;
        let disks =
            self.disks[usize::from(setup & 1 | (setup >> 2) & 2)].get_or_insert_with(|| {
                let sector_size = if setup & 1 == 0 { 512 } else { 4096 };
                // The larger one has room for more than the device moves at once.
                let capacity = if setup & 8 == 0 { 64 << 10 } else { 512 << 10 };
                [0, 1].map(|index| Disk::new(index, (capacity, sector_size), memory, line))
            });
        for disk in disks.iter_mut() {
            disk.renew(setup & 2 != 0);
        }
        if setup & 4 == 0 {
            for disk in disks.iter_mut() {
                disk.start(VERSION_1 | 1 << 28, 32);
            }
        }
        let before = count(disks);
        let calls_before = disks
            .each_ref()
            .map(|disk| disk.probe.device.counters().backend_calls);
        for _ in 0..MAX_ACTIONS {
            if u.is_empty() {
                break;
            }
            let (index, action) = Action::take(u)?;
            disks[index].apply(action);
        }
        let answers = Answers {
            requests: count(disks).requests - before.requests,
            errors: count(disks).errors - before.errors,
        };
        for (index, disk) in disks.iter_mut().enumerate() {
            disk.check();
            let calls = disk.probe.device.counters().backend_calls - calls_before[index];
            examine(disk, &exam);
            disk.check();
            if disk.probe.device.io_error().is_some() && !make_good(disk) {
                assert!(calls > REMEMBERED, "an error is not made good");
                let storage = disk.probe.device.storage();
                let geometry = (storage.capacity, storage.sector_size as u32);
                *disk = Disk::new(index, geometry, memory, line);
            }
        }
        Ok(answers)
    }
}

fn count(disks: &[Disk; 2]) -> Answers {
    let counters = disks
        .iter()
        .map(|disk| Block::<Watched>::counters(&disk.probe.device));
    counters.fold(Answers::default(), |sum, disk| Answers {
        requests: sum.requests + disk.requests,
        errors: sum.errors + disk.errors,
    })
}

/// Reads and writes all of a disk that has failed and fails no more; whether that makes up for it.
fn make_good(disk: &mut Disk) -> bool {
    let storage = disk.probe.device.storage();
    storage.faulty.store(false, Ordering::Relaxed);
    let len = storage.capacity as u32;
    let kinds = if storage.read_only { 1 } else { 2 };
    for kind in 0..kinds {
        ask(disk, (kind, 0, len));
        assert_eq!(disk.status_of(0), OK);
    }
    disk.probe.device.io_error().is_none()
}

/// A request by an honest driver: kind, sector, bytes.
fn transfer(u: &mut Unstructured<'_>) -> Result<(u32, u64, u32)> {
    let wild: u8 = u.arbitrary()?;
    let kind = u32::from(wild & 1);
    let sector = if wild & 2 == 0 {
        u.int_in_range(0..=1100)?
    } else {
        u.arbitrary()?
    };
    let len = match wild & 0xc {
        0xc => u.int_in_range(0..=0x10_0000)?,
        8 => u.int_in_range(0..=600u32)? * 512,
        _ => u.int_in_range(0..=24u32)? * 512,
    };
    Ok((kind, sector, len))
}

/// Starts the disk anew, as after whatever came before, and looks at its answer to one request.
fn examine(disk: &mut Disk, &(kind, sector, len): &(u32, u64, u32)) {
    ask(disk, (kind, sector, len));
    assert!(
        !disk.probe.notifier().needs_reset(),
        "a reset does not help"
    );
    let expected = if is_valid(disk, kind, sector, len) {
        OK
    } else {
        IOERR
    };
    assert_eq!(
        disk.status_of(0),
        expected,
        "kind {kind}, sector {sector}, {len} bytes"
    );
    if expected == OK && kind != OUT {
        assert_data(disk, sector, len);
    }
}

/// Starts the disk anew and makes it do one request.
fn ask(disk: &mut Disk, (kind, sector, len): (u32, u64, u32)) {
    disk.start(VERSION_1, 16);
    disk.request(&Request {
        slot: 0,
        kind,
        sector,
        header_len: 16,
        data: vec![(DMA_POOL, len)],
        status_len: 1,
        indirect: false,
        list: Vec::new(),
    });
    disk.work();
}

/// In 128 bits, so that nothing can wrap.
fn is_valid(disk: &Disk, kind: u32, sector: u64, len: u32) -> bool {
    let storage = disk.probe.device.storage();
    let start = u128::from(sector) * 512;
    let end = start + u128::from(len);
    let unit = u128::from(storage.sector_size);
    let fails = start < u128::from(FAULTY.end) && u128::from(FAULTY.start) < end;
    len > 0
        && end <= u128::from(storage.capacity)
        && start % unit == 0
        && end % unit == 0
        && !(kind == OUT && storage.read_only)
        && !(storage.is_faulty() && fails)
}

fn assert_data(disk: &Disk, sector: u64, len: u32) {
    let mut piece = [0; PIECE];
    let storage = disk.probe.device.storage();
    for start in (0..len as usize).step_by(PIECE) {
        let read = &mut piece[..PIECE.min(len as usize - start)];
        let at = GuestAddress(DMA_POOL + start as u64);
        disk.memory.dma.read_slice(read, at).unwrap();
        let holds = storage.holds(sector * 512 + start as u64, read);
        assert!(holds, "wrong data was read");
    }
}
