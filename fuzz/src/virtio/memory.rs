//! The memory that devices may reach, with a note of each place that may have changed: it is
//! cleared after an input by writing to those places alone. That nothing else has changed is an
//! invariant as well.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use guest_abi::layout::{DMA_POOL, DMA_POOL_SIZE, INPUT_QUEUE};
use vm_memory::{
    ByteValued, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionMmap,
};

/// The notes are about blocks of so many bytes.
const BLOCK: u64 = 1024;
const END: u64 = DMA_POOL + DMA_POOL_SIZE;
const WORDS: usize = ((END - INPUT_QUEUE) / BLOCK / 64) as usize;
static ZEROS: [u8; 0x1_0000] = [0; 0x1_0000];

/// Guest memory within reach of devices.
pub struct Memory {
    pub dma: GuestMemoryMmap,
    /// Where it lies in this process, with the guest's address of its start.
    spans: Vec<(Range<usize>, u64)>,
    /// One bit for each block from [`INPUT_QUEUE`] up: whether it may hold anything but zeros.
    touched: [AtomicU64; WORDS],
}

impl Memory {
    pub fn new(dma: GuestMemoryMmap) -> Self {
        let span = |region: &GuestRegionMmap| {
            let start = region.get_mmap().as_ptr() as usize;
            let len = usize::try_from(region.len()).unwrap();
            (start..start + len, region.start_addr().0)
        };
        Self {
            spans: dma.iter().map(span).collect(),
            dma,
            touched: [const { AtomicU64::new(0) }; WORDS],
        }
    }

    /// Writes as far as there is memory.
    pub fn write(&self, bytes: &[u8], address: u64) {
        self.touch(address, bytes.len() as u64);
        let _ = self.dma.write_slice(bytes, GuestAddress(address));
    }

    pub fn write_obj(&self, value: impl ByteValued, address: u64) {
        self.write(value.as_slice(), address);
    }

    /// Writes zeros, which leave nothing to be cleared.
    pub fn zero(&self, address: u64, len: usize) {
        let zeros = &ZEROS[..len];
        self.dma.write_slice(zeros, GuestAddress(address)).unwrap();
    }

    /// Takes note that these bytes may change.
    pub fn touch(&self, address: u64, len: u64) {
        let start = address.max(INPUT_QUEUE);
        let end = address.saturating_add(len).min(END);
        if start >= end {
            return;
        }
        for block in (start - INPUT_QUEUE) / BLOCK..=(end - 1 - INPUT_QUEUE) / BLOCK {
            self.touched[(block / 64) as usize].fetch_or(1 << (block % 64), Ordering::Relaxed);
        }
    }

    /// Takes note that anything may change.
    pub fn touch_all(&self) {
        self.touch(INPUT_QUEUE, END - INPUT_QUEUE);
    }

    /// The guest's address of bytes in this process; `None` if they are not within reach.
    pub fn guest_address(&self, start: usize, len: usize) -> Option<u64> {
        let (span, address) = self
            .spans
            .iter()
            .find(|(span, _)| start >= span.start && start + len <= span.end)?;
        Some(address + (start - span.start) as u64)
    }

    /// Makes it what it was when it was new.
    pub fn clear(&self) {
        for (index, word) in (0..).zip(&self.touched) {
            let mut bits = word.swap(0, Ordering::Relaxed);
            while bits != 0 {
                let first = bits.trailing_zeros();
                let count = (bits >> first).trailing_ones();
                let at = INPUT_QUEUE + (index * 64 + u64::from(first)) * BLOCK;
                self.zero_what_is_there(at, u64::from(count) * BLOCK);
                let done = u64::MAX.checked_shl(first + count).unwrap_or(0);
                bits &= done;
            }
        }
    }

    /// Whether all of it is zero.
    pub fn is_clear(&self) -> bool {
        // A piece at a time, which stays in the processor's cache.
        let mut piece = vec![0xff; ZEROS.len()];
        self.spans.iter().all(|(span, address)| {
            (0..span.len()).step_by(ZEROS.len()).all(|start| {
                let bytes = &mut piece[..ZEROS.len().min(span.len() - start)];
                let at = GuestAddress(address + start as u64);
                self.dma.read_slice(bytes, at).unwrap();
                *bytes == ZEROS[..bytes.len()]
            })
        })
    }

    /// There is none between the queues and the pool.
    fn zero_what_is_there(&self, address: u64, len: u64) {
        for region in self.dma.iter() {
            let start = address.max(region.start_addr().0);
            let end = (address + len).min(region.last_addr().0 + 1);
            if start < end {
                self.zero(start, usize::try_from(end - start).unwrap());
            }
        }
    }
}
