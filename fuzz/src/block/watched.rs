//! A storage that watches the device: it checks each transfer that it is asked for.

use std::io;
use std::mem;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use vm_memory::VolatileSlice;
use vmm::storage::{MemoryStorage, Storage};

use super::super::virtio::memory::Memory;

/// The kernel's IOV_MAX: a real storage could not pass more buffers on.
const MAX_BUFFERS: usize = 1024;
/// Contents are compared in pieces of so many bytes: the sanitizer makes large buffers costly.
pub const PIECE: usize = 0x4000;
/// Transfers that touch these bytes of a faulty disk fail.
pub const FAULTY: Range<u64> = 0x8000..0x9000;

/// A disk in memory that accepts only what a device may ask for.
pub struct Watched {
    storage: MemoryStorage,
    pattern: Mutex<Vec<u8>>,
    memory: Arc<Memory>,
    pub capacity: u64,
    pub sector_size: u64,
    pub read_only: bool,
    pub faulty: AtomicBool,
    pub read: AtomicU64,
    pub written: AtomicU64,
    pub zeroed: AtomicU64,
    /// Where it does not hold its pattern any more.
    changed: Mutex<Vec<Range<u64>>>,
}

impl Watched {
    pub fn new((capacity, sector_size): (u64, u32), read_only: bool, memory: &Arc<Memory>) -> Self {
        let pattern = pattern(capacity);
        Self {
            storage: MemoryStorage::new(pattern.clone()),
            pattern: Mutex::new(pattern),
            memory: memory.clone(),
            capacity,
            sector_size: sector_size.into(),
            read_only,
            faulty: AtomicBool::new(false),
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
            zeroed: AtomicU64::new(0),
            changed: Mutex::default(),
        }
    }

    pub fn is_faulty(&self) -> bool {
        self.faulty.load(Ordering::Relaxed)
    }

    /// Whether the disk holds `bytes` from `offset` up.
    pub fn holds(&self, offset: u64, bytes: &[u8]) -> bool {
        let mut held = [0; PIECE];
        (offset..)
            .step_by(PIECE)
            .zip(bytes.chunks(PIECE))
            .all(|(offset, bytes)| {
                let held = &mut held[..bytes.len()];
                let buffer = VolatileSlice::from(&mut *held);
                self.storage.read_at(offset, &[buffer]).unwrap();
                held == bytes
            })
    }

    /// Makes the disk what it was when it was new.
    pub fn restore(&self) {
        let mut changed = mem::take(&mut *self.changed.lock().unwrap());
        changed.sort_unstable_by_key(|range| range.start);
        let mut pattern = self.pattern.lock().unwrap();
        let mut done = 0;
        for range in changed {
            // Most of what is written again and again is one place.
            let range = range.start.max(done)..range.end;
            if range.is_empty() {
                continue;
            }
            let [start, end] = [range.start, range.end].map(|at| usize::try_from(at).unwrap());
            let buffer = VolatileSlice::from(&mut pattern[start..end]);
            self.storage.write_at(range.start, &[buffer]).unwrap();
            done = range.end;
        }
    }

    /// The bytes of the disk that the transfer is about.
    fn check(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<Range<u64>> {
        assert!(buffers.len() <= MAX_BUFFERS, "{} buffers", buffers.len());
        let len: usize = buffers.iter().map(VolatileSlice::len).sum();
        let len = u64::try_from(len).unwrap();
        self.check_extent(offset, len)
    }

    fn check_extent(&self, offset: u64, len: u64) -> io::Result<Range<u64>> {
        assert!(len > 0, "an empty transfer");
        let whole = offset.is_multiple_of(self.sector_size) && len.is_multiple_of(self.sector_size);
        assert!(whole, "{len} bytes at {offset} are not whole sectors");
        let end = offset.checked_add(len).unwrap();
        assert!(
            end <= self.capacity,
            "{len} bytes at {offset} are past the end"
        );
        if self.is_faulty() && offset < FAULTY.end && FAULTY.start < end {
            return Err(io::ErrorKind::Other.into());
        }
        Ok(offset..end)
    }

    fn guest_address(&self, buffer: &VolatileSlice<'_>) -> u64 {
        let start = buffer.ptr_guard().as_ptr() as usize;
        let address = self.memory.guest_address(start, buffer.len());
        assert!(address.is_some(), "a buffer out of reach");
        address.unwrap()
    }
}

impl Storage for Watched {
    fn read_at(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        let range = self.check(offset, buffers)?;
        for buffer in buffers {
            let address = self.guest_address(buffer);
            self.memory.touch(address, buffer.len() as u64);
        }
        self.storage.read_at(offset, buffers)?;
        self.read
            .fetch_add(range.end - range.start, Ordering::Relaxed);
        Ok(())
    }

    fn write_at(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        assert!(!self.read_only, "a read-only disk is written to");
        let range = self.check(offset, buffers)?;
        for buffer in buffers {
            self.guest_address(buffer);
        }
        self.storage.write_at(offset, buffers)?;
        self.written
            .fetch_add(range.end - range.start, Ordering::Relaxed);
        self.changed.lock().unwrap().push(range);
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, length: u64, unmap: bool) -> io::Result<()> {
        assert!(!self.read_only, "a read-only disk is made zero");
        let range = self.check_extent(offset, length)?;
        self.storage.write_zeroes(offset, length, unmap)?;
        self.zeroed.fetch_add(length, Ordering::Relaxed);
        self.changed.lock().unwrap().push(range);
        Ok(())
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        assert!(!self.read_only, "a read-only disk is discarded");
        let range = self.check_extent(offset, length)?;
        self.storage.discard(offset, length)?;
        self.changed.lock().unwrap().push(range);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

/// What both disks hold at first.
fn pattern(capacity: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(capacity).unwrap()];
    for (sector, bytes) in bytes.chunks_mut(512).enumerate() {
        bytes.fill((sector % 251) as u8);
    }
    bytes
}
