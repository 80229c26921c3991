//! A hostile driver of two block devices, a read-only and a writable one (virtio 1.2, sections
//! 2.7, 4.2.2 and 5.2). Whatever it does: nothing panics, every round ends, memory that devices
//! may not reach and the read-only disk stay as they were, and after a reset the disk works.

mod action;
mod disk;
mod queue;
mod watched;

use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use guest_abi::layout::{
    DMA_POOL, DMA_POOL_SIZE, INPUT_QUEUE, OUTPUT_QUEUE, PAGE_SIZE, QUEUE_SIZE,
};
use vm_memory::{Bytes, GuestAddress};
use vmm::machine::GuestRam;
use vmm::virtio::{IrqLine, VirtioDevice};

use action::{Action, Request};
use disk::{Disk, OUT, VERSION_1};

/// More would make single inputs slow without reaching anything new.
const MAX_ACTIONS: usize = 128;
const OK: u8 = 0;
const IOERR: u8 = 1;

/// Carries `bytes` out as a driver's actions.
///
/// # Panics
///
/// When an invariant does not hold.
pub fn run(bytes: &[u8]) {
    // Running out of bytes is no more than the end of the input.
    let _ = drive(&mut Unstructured::new(bytes));
}

fn drive(u: &mut Unstructured<'_>) -> Result<()> {
    let ram = GuestRam::new(guest_abi::layout::Shape::COPYING).unwrap();
    let line = Arc::new(IrqLine::new().unwrap());
    let setup: u8 = u.arbitrary()?;
    let exam = transfer(u)?;
    let sector_size = if setup & 1 == 0 { 512 } else { 4096 };
    // The larger one has room for more than the device moves at once, but costs time.
    let capacity = if setup & 0x18 == 0x18 {
        512 << 10
    } else {
        64 << 10
    };
    let faulty = if setup & 2 == 0 { 0..0 } else { 0x8000..0x9000 };
    let geometry = (capacity, sector_size);
    let mut disks =
        [0, 1].map(|index| Disk::new(index, geometry, faulty.clone(), ram.dma(), &line));
    if setup & 4 == 0 {
        for disk in &mut disks {
            disk.start(VERSION_1 | 1 << 28, 32);
        }
    }
    for _ in 0..MAX_ACTIONS {
        if u.is_empty() {
            break;
        }
        let (index, action) = Action::take(u)?;
        disks[index].apply(action);
    }
    for disk in &mut disks {
        disk.check();
        examine(disk, &exam);
        disk.check();
        disk.check_contents();
    }
    assert!(guards_are_clean(&ram), "memory out of reach has changed");
    Ok(())
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
    let len = if wild & 4 == 0 {
        u.int_in_range(0..=600u32)? * 512
    } else {
        u.int_in_range(0..=0x10_0000)?
    };
    Ok((kind, sector, len))
}

/// Starts the disk anew, as after whatever came before, and looks at its answer to one request.
fn examine(disk: &mut Disk, &(kind, sector, len): &(u32, u64, u32)) {
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
    assert!(
        !disk.probe.interrupt().needs_reset(),
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

/// In 128 bits, so that nothing can wrap.
fn is_valid(disk: &Disk, kind: u32, sector: u64, len: u32) -> bool {
    let backend = disk.probe.device.storage();
    let start = u128::from(sector) * 512;
    let end = start + u128::from(len);
    let unit = u128::from(backend.sector_size);
    let faulty = u128::from(backend.faulty.start)..u128::from(backend.faulty.end);
    len > 0
        && end <= u128::from(backend.capacity)
        && start % unit == 0
        && end % unit == 0
        && !(kind == OUT && backend.read_only)
        && !(start < faulty.end && faulty.start < end)
}

fn assert_data(disk: &Disk, sector: u64, len: u32) {
    let mut read = vec![0; len as usize];
    let at = GuestAddress(DMA_POOL);
    disk.memory.read_slice(&mut read, at).unwrap();
    let start = (sector * 512) as usize;
    let stored = disk.probe.device.storage().storage.contents();
    assert!(
        read == stored[start..start + read.len()],
        "wrong data was read"
    );
}

/// Whether the pages next to what devices may reach are still zero.
fn guards_are_clean(ram: &GuestRam) -> bool {
    let guards = [
        INPUT_QUEUE - PAGE_SIZE,
        OUTPUT_QUEUE + QUEUE_SIZE,
        DMA_POOL - PAGE_SIZE,
        DMA_POOL + DMA_POOL_SIZE,
    ];
    guards.iter().all(|&guard| {
        let mut page = [0xff; PAGE_SIZE as usize];
        ram.all()
            .read_slice(&mut page, GuestAddress(guard))
            .unwrap();
        page == [0; PAGE_SIZE as usize]
    })
}
