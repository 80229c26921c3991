//! The block driver of the `virtio-drivers` crate, an independent implementation, drives the block
//! device through its MMIO registers (virtio 1.2, sections 4.2 and 5.2). There is no KVM in it: a
//! register access is a call, and the disk works on its own thread behind its eventfd.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use event_manager::{EventManager, SubscriberOps};
use virtio_drivers::device::blk::{BlkReq, BlkResp, RespStatus, VirtIOBlk};
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{BufferDirection, Error, Hal, PhysAddr};
use vm_device::DeviceMmio;
use vm_device::bus::MmioAddress;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm::storage::MemoryStorage;
use vmm::virtio::block::{Block, BlockConfig};
use vmm::virtio::{IrqLine, MmioTransport, VirtioDevice};

const PAGE: u64 = 4096;
const MEMORY_SIZE: u64 = 16 << 20;
const CAPACITY: usize = 64 << 10;
const ID: &[u8; 20] = b"virtio-drivers-test\0";

thread_local! {
    /// The guest's memory: the driver's `Hal` has no state of its own, and each test its thread.
    static GUEST: Cell<Option<Guest>> = const { Cell::new(None) };
}

/// Guest memory with a pointer to its next free page: nothing is ever given back.
#[derive(Clone)]
struct Guest {
    memory: GuestMemoryMmap,
    next: u64,
}

fn with_guest<T>(call: impl FnOnce(&mut Guest) -> T) -> T {
    GUEST.with(|cell| {
        let mut guest = cell.take().unwrap();
        let result = call(&mut guest);
        cell.set(Some(guest));
        result
    })
}

impl Guest {
    fn allocate(&mut self, bytes: usize) -> (PhysAddr, NonNull<u8>) {
        let address = self.next;
        self.next += u64::try_from(bytes).unwrap().next_multiple_of(PAGE);
        let slice = self.memory.get_slice(GuestAddress(address), bytes).unwrap();
        let pointer = NonNull::new(slice.ptr_guard_mut().as_ptr()).unwrap();
        (address, pointer)
    }
}

/// The driver's view of guest memory. Buffers are the test's own, so they are copied in and out.
struct TestHal;

// SAFETY: `dma_alloc` hands out pages of the mapping that no one else gets, zeroed, since a fresh
// anonymous mapping is; the mapping outlives the driver, which is dropped before its memory is.
unsafe impl Hal for TestHal {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        with_guest(|guest| guest.allocate(pages * virtio_drivers::PAGE_SIZE))
    }

    unsafe fn dma_dealloc(_: PhysAddr, _: NonNull<u8>, _: usize) -> i32 {
        0
    }

    unsafe fn mmio_phys_to_virt(_: PhysAddr, _: usize) -> NonNull<u8> {
        panic!("registers are reached through the transport")
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        with_guest(|guest| {
            let (address, _) = guest.allocate(buffer.len());
            if direction != BufferDirection::DeviceToDriver {
                // SAFETY: the caller promises a buffer that may be read.
                let bytes = unsafe { buffer.as_ref() };
                let at = GuestAddress(address);
                guest.memory.write_slice(bytes, at).unwrap();
            }
            address
        })
    }

    unsafe fn unshare(address: PhysAddr, mut buffer: NonNull<[u8]>, direction: BufferDirection) {
        if direction != BufferDirection::DriverToDevice {
            // SAFETY: the caller promises a buffer that it does not use meanwhile.
            let bytes = unsafe { buffer.as_mut() };
            let at = GuestAddress(address);
            with_guest(|guest| guest.memory.read_slice(bytes, at).unwrap());
        }
    }
}

/// The driver's access to the registers: 32 bits at a time, as a guest's loads and stores.
struct Registers {
    mmio: Arc<MmioTransport>,
}

impl Registers {
    fn read(&self, offset: u64) -> u32 {
        let mut data = [0xaa; 4];
        self.mmio.mmio_read(MmioAddress(0), offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&self, offset: u64, value: u32) {
        let data = value.to_le_bytes();
        self.mmio.mmio_write(MmioAddress(0), offset, &data);
    }

    fn write_address(&self, offset: u64, address: PhysAddr) {
        self.write(offset, u32::try_from(address & 0xffff_ffff).unwrap());
        self.write(offset + 4, u32::try_from(address >> 32).unwrap());
    }
}

impl Transport for Registers {
    fn device_type(&self) -> DeviceType {
        DeviceType::try_from(self.read(0x08)).unwrap()
    }

    fn read_device_features(&mut self) -> u64 {
        self.write(0x14, 0);
        let low = u64::from(self.read(0x10));
        self.write(0x14, 1);
        low | u64::from(self.read(0x10)) << 32
    }

    fn write_driver_features(&mut self, features: u64) {
        self.write(0x24, 0);
        self.write(0x20, u32::try_from(features & 0xffff_ffff).unwrap());
        self.write(0x24, 1);
        self.write(0x20, u32::try_from(features >> 32).unwrap());
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.write(0x30, queue.into());
        self.read(0x34)
    }

    fn notify(&mut self, queue: u16) {
        self.write(0x50, queue.into());
    }

    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::from_bits_truncate(self.read(0x70))
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.write(0x70, status.bits());
    }

    fn set_guest_page_size(&mut self, _: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        self.read(0x04) == 1
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver_area: PhysAddr,
        device_area: PhysAddr,
    ) {
        self.write(0x30, queue.into());
        self.write(0x38, size);
        self.write_address(0x80, descriptors);
        self.write_address(0x90, driver_area);
        self.write_address(0xa0, device_area);
        self.write(0x44, 1);
    }

    fn queue_unset(&mut self, queue: u16) {
        self.write(0x30, queue.into());
        self.write(0x44, 0);
        while self.read(0x44) != 0 {}
        self.write(0x38, 0);
        for offset in [0x80, 0x90, 0xa0] {
            self.write_address(offset, 0);
        }
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.write(0x30, queue.into());
        self.read(0x44) != 0
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        let status = self.read(0x60);
        self.write(0x64, status);
        InterruptStatus::from_bits_truncate(status)
    }

    fn read_config_generation(&self) -> u32 {
        self.read(0xfc)
    }

    fn read_config_space<T>(&self, offset: usize) -> Result<T, Error> {
        let mut data = vec![0; size_of::<T>()];
        let at = 0x100 + u64::try_from(offset).unwrap();
        self.mmio.mmio_read(MmioAddress(0), at, &mut data);
        // SAFETY: there are as many bytes as a `T` has, and the trait's own bound on `T`, which
        // every caller meets, says that any bytes make one (`zerocopy::FromBytes`).
        Ok(unsafe { data.as_ptr().cast::<T>().read_unaligned() })
    }

    fn write_config_space<T>(&mut self, _: usize, _: T) -> Result<(), Error> {
        panic!("there is nothing in the configuration space to write")
    }
}

type Driver = VirtIOBlk<TestHal, Registers>;

/// A disk on its own thread, as the machine runs it.
struct Machine {
    block: Arc<Block<MemoryStorage>>,
    mmio: Arc<MmioTransport>,
    line: Arc<IrqLine>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Machine {
    fn new(read_only: bool) -> Self {
        let size = usize::try_from(MEMORY_SIZE).unwrap();
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size)]).unwrap();
        let guest = Guest {
            memory: memory.clone(),
            next: PAGE,
        };
        GUEST.with(|cell| cell.set(Some(guest)));
        let config = BlockConfig {
            capacity: u64::try_from(CAPACITY).unwrap(),
            sector_size: 512,
            read_only,
            zeroes: false,
            id: *ID,
        };
        let contents = (0..CAPACITY).map(|byte| u8::try_from(byte / 512).unwrap());
        let backend = MemoryStorage::new(contents.collect());
        let line = Arc::new(IrqLine::new().unwrap());
        let block = Block::new(&config, backend, memory.clone(), Arc::clone(&line)).unwrap();
        let block = Arc::new(block);
        let mmio = Arc::new(MmioTransport::new(block.clone(), memory));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (block, stop) = (Arc::clone(&block), Arc::clone(&stop));
            move || run(block, &stop)
        });
        Self {
            block,
            mmio,
            line,
            stop,
            thread: Some(thread),
        }
    }

    fn driver(&self) -> Driver {
        let mmio = Arc::clone(&self.mmio);
        Driver::new(Registers { mmio }).unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

/// The disk's event loop; it wakes now and then to see whether the test is over.
fn run(block: Arc<Block<MemoryStorage>>, stop: &AtomicBool) {
    let mut events = EventManager::new().unwrap();
    events.add_subscriber(block);
    while !stop.load(Ordering::SeqCst) {
        events.run_with_timeout(10).unwrap();
    }
}

#[test]
fn the_driver_sees_the_capacity_and_whether_it_may_write() {
    for read_only in [false, true] {
        let machine = Machine::new(read_only);
        let driver = machine.driver();
        assert_eq!(driver.capacity(), 128);
        assert_eq!(driver.readonly(), read_only);
    }
}

#[test]
fn sectors_are_read_and_written() {
    let machine = Machine::new(false);
    let mut driver = machine.driver();
    let mut sectors = [0; 1024];
    driver.read_blocks(6, &mut sectors).unwrap();
    assert_eq!(sectors, *[[6; 512], [7; 512]].concat());
    driver.write_blocks(126, &sectors).unwrap();
    assert_eq!(machine.block.storage().contents()[126 * 512..], sectors);
    let mut back = [0; 1024];
    driver.read_blocks(126, &mut back).unwrap();
    assert_eq!(back, sectors);
}

#[test]
fn many_requests_one_after_the_other_are_all_answered() {
    let machine = Machine::new(false);
    let mut driver = machine.driver();
    for round in 0..500 {
        let mut sector = [0; 512];
        driver.read_blocks(round % 128, &mut sector).unwrap();
        assert_eq!(usize::from(sector[0]), round % 128);
    }
    assert_eq!(machine.block.counters().requests, 500);
}

#[test]
fn a_flush_and_the_device_id_are_answered() {
    let machine = Machine::new(false);
    let mut driver = machine.driver();
    driver.flush().unwrap();
    let mut id = [0; 20];
    let len = driver.device_id(&mut id).unwrap();
    assert_eq!(&id[..len], &ID[..19]);
}

#[test]
fn a_read_only_disk_is_read_but_not_written() {
    let machine = Machine::new(true);
    let mut driver = machine.driver();
    assert_eq!(driver.write_blocks(0, &[9; 512]), Err(Error::IoError));
    let mut sector = [9; 512];
    driver.read_blocks(0, &mut sector).unwrap();
    assert_eq!(sector, [0; 512]);
    driver.flush().unwrap();
}

#[test]
fn a_request_past_the_end_fails_and_the_disk_stays_alive() {
    let machine = Machine::new(false);
    let mut driver = machine.driver();
    let mut sectors = [0; 1024];
    for first in [127, 128, usize::MAX] {
        let result = driver.read_blocks(first, &mut sectors);
        assert_eq!(result, Err(Error::IoError), "sector {first}");
    }
    driver.read_blocks(126, &mut sectors).unwrap();
    assert_eq!(sectors[0], 126);
}

#[test]
fn a_second_driver_takes_over_from_one_that_is_gone() {
    let machine = Machine::new(false);
    for round in 0..20 {
        let mut driver = machine.driver();
        let mut sector = [0; 512];
        driver.read_blocks(round, &mut sector).unwrap();
        assert_eq!(usize::from(sector[0]), round);
        drop(driver);
        let registers = Registers {
            mmio: Arc::clone(&machine.mmio),
        };
        assert_eq!(registers.read(0x44), 0, "the queue is still ready");
    }
    assert!(!machine.block.interrupt().needs_reset());
}

#[test]
fn a_request_that_is_not_waited_for_ends_with_an_interrupt() {
    let machine = Machine::new(false);
    let mut driver = machine.driver();
    let mut request = BlkReq::default();
    let mut buffer = [0; 512];
    let mut response = BlkResp::default();
    // SAFETY: none of the three is touched before the request is complete.
    let token = unsafe { driver.read_blocks_nb(42, &mut request, &mut buffer, &mut response) };
    let token = token.unwrap();
    while !machine.line.take() {
        std::thread::yield_now();
    }
    assert_eq!(machine.line.completions(), 1);
    assert!(
        driver
            .ack_interrupt()
            .contains(InterruptStatus::QUEUE_INTERRUPT)
    );
    assert!(driver.ack_interrupt().is_empty());
    assert_eq!(driver.peek_used(), Some(token));
    // SAFETY: these are the buffers of the request with this token.
    unsafe { driver.complete_read_blocks(token, &request, &mut buffer, &mut response) }.unwrap();
    assert_eq!(response.status(), RespStatus::OK);
    assert_eq!(buffer, [42; 512]);
}

#[test]
fn nothing_is_in_flight_once_every_request_is_answered() {
    let machine = Machine::new(false);
    let mut driver = machine.driver();
    driver.read_blocks(0, &mut [0; 512]).unwrap();
    while machine.block.in_flight() {
        std::thread::yield_now();
    }
    assert_eq!(machine.line.completions(), 1);
}
