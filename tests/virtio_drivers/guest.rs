//! What the drivers of the `virtio-drivers` crate need: guest memory, the registers of a device, and
//! a thread on which the device works.

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use event_manager::{EventManager, EventSubscriber, SubscriberOps};
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{BufferDirection, Error, Hal, PhysAddr};
use vm_device::DeviceMmio;
use vm_device::bus::MmioAddress;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm::virtio::MmioTransport;

const PAGE: u64 = 4096;
const MEMORY_SIZE: u64 = 16 << 20;

thread_local! {
    /// The guest's memory: the driver's `Hal` has no state of its own, and each test its thread.
    static GUEST: Cell<Option<Guest>> = const { Cell::new(None) };
}

/// Guest memory with a pointer to its next free page: nothing is ever given back.
#[derive(Clone)]
pub(crate) struct Guest {
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

/// Waits until `condition` holds: an interrupt that is lost is a failure, and no hang.
#[track_caller]
pub(crate) fn until(mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "it does not happen"
        );
        std::thread::yield_now();
    }
}

/// A fresh guest memory for this thread's driver.
pub(crate) fn new_memory() -> GuestMemoryMmap {
    let size = usize::try_from(MEMORY_SIZE).unwrap();
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size)]).unwrap();
    let guest = Guest {
        memory: memory.clone(),
        next: PAGE,
    };
    GUEST.with(|cell| cell.set(Some(guest)));
    memory
}

/// The driver's view of guest memory. Buffers are the test's own, so they are copied in and out.
pub(crate) struct TestHal;

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
pub(crate) struct Registers {
    pub(crate) mmio: Arc<MmioTransport>,
}

impl Registers {
    pub(crate) fn read(&self, offset: u64) -> u32 {
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
        until(|| self.read(0x44) == 0);
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

/// A device's thread, which ends with the test.
pub(crate) struct DeviceThread {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl DeviceThread {
    pub(crate) fn start(device: Arc<dyn EventSubscriber + Send + Sync>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || run(device, &stop)
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for DeviceThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

/// The device's event loop; it wakes now and then to see whether the test is over.
fn run(device: Arc<dyn EventSubscriber + Send + Sync>, stop: &AtomicBool) {
    let mut events = EventManager::new().unwrap();
    events.add_subscriber(device);
    while !stop.load(Ordering::SeqCst) {
        events.run_with_timeout(10).unwrap();
    }
}
