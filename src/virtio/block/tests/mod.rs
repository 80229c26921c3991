//! Tests of the whole device, driven by its registers and rings as a guest does it: valid
//! requests in `requests` and `zeroes`, neighbours that are carried out as one in `joined`, drivers that
//! do not flush in `stable`, hostile ones in `hostile`, what one turn may cost in `bounds`, random ones
//! in `random`, helpers in `helping`, and a cost in `cost`.
#![allow(clippy::unwrap_used)]

mod bounds;
mod cost;
mod helping;
mod hostile;
mod joined;
mod random;
mod requests;
mod stable;
mod zeroes;

use std::io;
use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use vm_memory::{Bytes, GuestAddress, VolatileSlice};

use super::batch::Batch;
use super::request::Geometry;
use super::{Block, BlockConfig, IoOperation};
use crate::storage::{MemoryStorage, Storage};
use crate::virtio::testing::{
    AVAIL_RING, DESC_TABLE, Driver, HEADERS, USED_RING, VERSION_1, WRITE, memory,
};
use crate::virtio::worker::Counts;
use crate::virtio::{DescriptorTable, NotificationLine, Notifier, QueueConfig, Turn, VirtioDevice};

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;

/// The feature bit of FLUSH.
const F_FLUSH: u64 = 1 << 9;
/// DISCARD and WRITE_ZEROES.
const F_ZEROES: u64 = 1 << 13 | 1 << 14;

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;
/// The status byte of slot 0.
const STATUS: u64 = HEADERS + 16;
/// What a status byte holds before the device answers.
const UNANSWERED: u8 = 0xff;

const CAPACITY: u64 = 1 << 20;
/// Each sector is filled with its number, less a multiple of 251.
static CONTENTS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let sectors = (0..CAPACITY / 512).map(|sector| [u8::try_from(sector % 251).unwrap(); 512]);
    sectors.collect::<Vec<_>>().into_flattened()
});
const ID: &[u8; 20] = b"a-disk-of-the-tests\0";

/// What the backend was asked for: offset, bytes, buffers.
type Call = (IoOperation, u64, usize, usize);

/// A backend that remembers its calls and fails where it is told to.
struct Recorder {
    storage: MemoryStorage,
    calls: Mutex<Vec<Call>>,
    bad: Mutex<Range<u64>>,
}

impl Recorder {
    fn call(
        &self,
        operation: IoOperation,
        offset: u64,
        buffers: &[VolatileSlice<'_>],
    ) -> io::Result<()> {
        let len: usize = buffers.iter().map(VolatileSlice::len).sum();
        self.note(operation, offset, len, buffers.len())
    }

    fn note(
        &self,
        operation: IoOperation,
        offset: u64,
        len: usize,
        buffers: usize,
    ) -> io::Result<()> {
        let call = (operation, offset, len, buffers);
        self.calls.lock().unwrap().push(call);
        let bad = self.bad.lock().unwrap();
        let end = offset + u64::try_from(len.max(1)).unwrap();
        if offset < bad.end && bad.start < end {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        Ok(())
    }
}

impl Storage for Recorder {
    fn read_at(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.call(IoOperation::Read, offset, buffers)?;
        self.storage.read_at(offset, buffers)
    }

    fn write_at(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.call(IoOperation::Write, offset, buffers)?;
        self.storage.write_at(offset, buffers)
    }

    fn write_zeroes(&self, offset: u64, length: u64, unmap: bool) -> io::Result<()> {
        let len = usize::try_from(length).unwrap();
        self.note(IoOperation::Write, offset, len, 0)?;
        self.storage.write_zeroes(offset, length, unmap)
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        let len = usize::try_from(length).unwrap();
        self.note(IoOperation::Discard, offset, len, 0)?;
        self.storage.discard(offset, length)
    }

    fn flush(&self) -> io::Result<()> {
        self.call(IoOperation::Flush, 0, &[])
    }
}

fn config(sector_size: u32, read_only: bool) -> BlockConfig {
    BlockConfig {
        capacity: CAPACITY,
        sector_size,
        read_only,
        zeroes: false,
        id: *ID,
    }
}

/// A disk and its driver. The device works when the test says so, on the test's own thread.
struct Rig {
    block: Arc<Block<Recorder>>,
    line: Arc<NotificationLine>,
    driver: Driver,
}

impl Rig {
    fn with(sector_size: u32, read_only: bool) -> Self {
        Self::of(&config(sector_size, read_only))
    }

    /// Shows the batch of each turn, which nobody carries out, until nothing is left in the queue of
    /// 2,048 descriptors. The disk is of `config`.
    fn each_batch(&self, config: &BlockConfig, mut look: impl FnMut(&Batch)) {
        let registers = QueueConfig {
            size: 2048,
            desc_table: DESC_TABLE,
            avail_ring: AVAIL_RING,
            used_ring: USED_RING,
            ready: true,
        };
        let memory = &self.driver.memory;
        let mut queue = registers.build(2048, false, memory).unwrap();
        let geometry = Geometry::new(config).negotiated(config.features());
        let (mut batch, mut used) = (Batch::default(), Vec::new());
        let (notifier, counts) = (Notifier::new(Arc::clone(&self.line)), Counts::default());
        loop {
            let table = DescriptorTable::new(&queue, memory, false).unwrap();
            let mut turn = Turn::new(&mut queue, table, memory, &mut used, (&notifier, &counts));
            batch.fill(&mut turn, &geometry).unwrap();
            if batch.requests.is_empty() {
                return;
            }
            look(&batch);
        }
    }

    /// A disk that takes zeros without data.
    fn with_zeroes(sector_size: u32) -> Self {
        Self::of(&BlockConfig {
            zeroes: true,
            ..config(sector_size, false)
        })
    }

    fn of(config: &BlockConfig) -> Self {
        let backend = Arc::new(Recorder {
            storage: MemoryStorage::new(CONTENTS.clone()),
            calls: Mutex::default(),
            bad: Mutex::new(0..0),
        });
        let memory = memory();
        let line = Arc::new(NotificationLine::new().unwrap());
        let block = Block::new(config, backend, memory.clone(), Arc::clone(&line)).unwrap();
        let block = Arc::new(block);
        let driver = Driver::new(block.clone(), memory);
        Self {
            block,
            line,
            driver,
        }
    }

    /// A running disk with sectors of 512 bytes and a queue of 64.
    fn new() -> Self {
        let mut rig = Self::with(512, false);
        rig.start(VERSION_1);
        rig
    }

    /// Starts the disk for a driver that flushes, and has parts made zero if it can, beside these
    /// features.
    fn start(&mut self, features: u64) {
        let zeroes = self.block.device_features() & F_ZEROES;
        self.driver.start(features | F_FLUSH | zeroes, 64);
        self.work();
    }

    /// Lets the device handle its kick.
    fn work(&self) {
        self.block.handle_kick(0);
    }

    /// Makes a request of three descriptors available; returns where its status will be.
    fn push(&mut self, slot: u16, kind: u32, sector: u64, data: (u64, u32)) -> u64 {
        let (header, status) = self.driver.header(slot, kind, sector);
        let flags = if kind == OUT { 0 } else { WRITE };
        let parts = [(header, 16, 0), (data.0, data.1, flags), (status, 1, WRITE)];
        let head = self.driver.chain(&parts);
        self.driver.make_available(head);
        status
    }

    /// Sends one chain with a header before `parts`, which has to name the status byte itself;
    /// returns that byte and the bytes written, or `None` if there is no answer.
    fn send(&mut self, kind: u32, sector: u64, parts: &[(u64, u32, u16)]) -> Option<(u8, u32)> {
        let (header, status) = self.driver.header(0, kind, sector);
        let mut chain = vec![(header, 16, 0)];
        chain.extend_from_slice(parts);
        self.send_chain(&chain, status)
    }

    fn send_chain(&mut self, chain: &[(u64, u32, u16)], status: u64) -> Option<(u8, u32)> {
        let head = self.driver.chain(chain);
        self.driver.make_available(head);
        self.work();
        let (used, written) = self.driver.pop_used()?;
        assert_eq!(used, u32::from(head));
        Some((self.driver.byte(status), written))
    }

    /// Reads a sector the ordinary way, to see that the disk is alive.
    fn assert_alive(&mut self) {
        let status = self.push(60, IN, 7, (0x20_0000, 512));
        self.work();
        assert!(self.driver.pop_used().is_some());
        assert_eq!(self.driver.byte(status), OK);
        assert_eq!(self.driver.byte(0x20_0000), 7);
        assert!(!self.block.notifier().needs_reset());
    }

    fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.block.storage().calls.lock().unwrap())
    }

    fn guest_bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.driver
            .memory
            .read_slice(&mut bytes, GuestAddress(address))
            .unwrap();
        bytes
    }
}
