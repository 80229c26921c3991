//! The block driver and the block device (virtio 1.2, section 5.2).

use std::sync::Arc;

use virtio_drivers::Error;
use virtio_drivers::device::blk::{BlkReq, BlkResp, RespStatus, VirtIOBlk};
use virtio_drivers::transport::InterruptStatus;
use virtio_drivers::transport::Transport as _;
use vmm::storage::MemoryStorage;
use vmm::virtio::block::{Block, BlockConfig};
use vmm::virtio::{MmioTransport, NotificationLine, VirtioDevice};

use crate::guest::{DeviceThread, Registers, TestHal, new_memory, until};

const CAPACITY: usize = 64 << 10;
const ID: &[u8; 20] = b"virtio-drivers-test\0";

type Driver = VirtIOBlk<TestHal, Registers>;

/// A disk on its own thread, as the machine runs it.
struct Machine {
    block: Arc<Block<MemoryStorage>>,
    mmio: Arc<MmioTransport>,
    line: Arc<NotificationLine>,
    _thread: DeviceThread,
}

impl Machine {
    fn new(read_only: bool) -> Self {
        let memory = new_memory();
        let config = BlockConfig {
            capacity: u64::try_from(CAPACITY).unwrap(),
            sector_size: 512,
            read_only,
            zeroes: true,
            id: *ID,
        };
        let contents = (0..CAPACITY).map(|byte| u8::try_from(byte / 512).unwrap());
        let backend = MemoryStorage::new(contents.collect());
        let line = Arc::new(NotificationLine::new().unwrap());
        let block = Block::new(&config, backend, memory.clone(), Arc::clone(&line)).unwrap();
        let block = Arc::new(block);
        let mmio = Arc::new(MmioTransport::new(block.clone(), memory));
        Self {
            _thread: DeviceThread::start(block.clone()),
            block,
            mmio,
            line,
        }
    }

    fn driver(&self) -> Driver {
        let mmio = Arc::clone(&self.mmio);
        Driver::new(Registers { mmio }).unwrap()
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
fn the_driver_finds_the_whole_geometry_where_the_specification_has_it() {
    for read_only in [false, true] {
        let machine = Machine::new(read_only);
        let mmio = Arc::clone(&machine.mmio);
        let mut registers = Registers { mmio };
        let features = registers.read_device_features();
        let offered = |bit: u32| features & (1 << bit) != 0;
        // SIZE_MAX, SEG_MAX, BLK_SIZE, FLUSH, TOPOLOGY, VERSION_1.
        assert!([1, 2, 6, 9, 10, 32].into_iter().all(offered));
        assert_eq!(offered(5), read_only);
        // DISCARD and WRITE_ZEROES.
        assert_eq!((offered(13), offered(14)), (!read_only, !read_only));
        let long = |at| registers.read_config_space::<u32>(at).unwrap();
        let short = |at| registers.read_config_space::<u16>(at).unwrap();
        let byte = |at| registers.read_config_space::<u8>(at).unwrap();
        assert_eq!(registers.read_config_space::<u64>(0).unwrap(), 128);
        assert_eq!((long(8), long(12), long(20)), (1 << 20, 126, 512));
        assert_eq!((byte(24), byte(25), short(26), long(28)), (3, 0, 8, 256));
        // Cylinders, heads and sectors belong to a feature that is not offered.
        assert_eq!(long(16), 0);
        assert_eq!((byte(32), short(34)), (0, 1));
        let most = if read_only { 0 } else { u32::MAX };
        let parts = if read_only { 0 } else { 256 };
        assert_eq!((long(36), long(40)), (most, parts));
        assert_eq!(long(44), u32::from(!read_only));
        assert_eq!((long(48), long(52)), (most, parts));
        assert_eq!(byte(56), u8::from(!read_only));
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
    assert!(!machine.block.notifier().needs_reset());
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
    until(|| machine.line.take());
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
    until(|| !machine.block.in_flight());
    assert_eq!(machine.line.completions(), 1);
}
