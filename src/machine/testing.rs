//! What the machine's own tests share: guest memory with a small image and the processor's tables, and
//! a disk whose driver waits for each request.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use guest_abi::layout::{IMAGE, INPUT_MMIO, OUTPUT_MMIO, PAGE_SIZE, STACK_TOP, TSS};
use guest_abi::ports::{COM1, COM2, EXIT, IDLE, UART_PORTS};
use kvm_bindings::kvm_regs;
use vm_memory::{Bytes, GuestAddress};

use super::fault::{FloatState, Scene};
use super::helped::Devices;
use super::page_tables::{self, IMAGE_PAGES};
use super::{GuestRam, PagePermissions, segments};
use crate::storage::MemoryStorage;
use crate::virtio::NotificationLine;
use crate::virtio::block::{Block, BlockConfig, ID_BYTES};
use crate::virtio::testing::{DATA, Driver, VERSION_1, WRITE, memory};

/// The request that reads (virtio 1.2, section 5.2.6).
const READ: u32 = 0;

/// The memory of a guest: a page of code that can be run, a page of constants, and nothing more.
pub(super) struct Scenery(GuestRam);

impl Scenery {
    /// With `code` at the start of the image.
    pub(super) fn with(code: &[u8]) -> Self {
        Self::with_code_in_page(0, code)
    }

    /// With `code` at the start of this page of the image, which alone of the first two can be run.
    pub(super) fn with_code_in_page(page: usize, code: &[u8]) -> Self {
        let ram = GuestRam::new(guest_abi::layout::Shape::COPYING).unwrap();
        let mut image = [PagePermissions::default(); IMAGE_PAGES];
        image[0].read = true;
        image[1].read = true;
        image[page].execute = true;
        page_tables::write(&ram, &image, &[INPUT_MMIO, OUTPUT_MMIO]).unwrap();
        let uarts = [COM1, COM2].map(|first| first..first + UART_PORTS);
        let ports: Vec<u16> = uarts.into_iter().flatten().chain([EXIT, IDLE]).collect();
        segments::write_tables(ram.all(), &ports).unwrap();
        let scenery = Self(ram);
        scenery.write(IMAGE + page as u64 * PAGE_SIZE, code);
        scenery
    }

    /// Puts `bytes` at `address`.
    pub(super) fn write(&self, address: u64, bytes: &[u8]) {
        let memory = self.0.all();
        memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    /// A guest that is at its first instruction.
    pub(super) fn scene(&self) -> Scene<'_> {
        Scene {
            regs: kvm_regs {
                rip: IMAGE,
                rsp: STACK_TOP,
                rflags: 2,
                ..Default::default()
            },
            float: FloatState::default(),
            tss: TSS,
            tss_limit: segments::TSS_LIMIT,
            memory: self.0.all(),
        }
    }
}

/// A disk, and its driver, which has shown that it waits for each request.
pub(super) struct SlowDriver {
    pub(super) line: Arc<NotificationLine>,
    pub(super) block: Arc<Block<MemoryStorage>>,
    pub(super) driver: Driver,
}

impl SlowDriver {
    pub(super) fn new() -> Self {
        let (memory, line) = (memory(), Arc::new(NotificationLine::new().unwrap()));
        let config = BlockConfig {
            capacity: 4096,
            sector_size: 512,
            read_only: true,
            id: [0; ID_BYTES],
            zeroes: false,
        };
        let storage = Arc::new(MemoryStorage::new(vec![0; 4096]));
        let block = Block::new(&config, storage, memory.clone(), line.clone()).unwrap();
        let block = Arc::new(block);
        let mut driver = Driver::new(block.clone(), memory);
        driver.start(VERSION_1, 64);
        let mut disk = Self {
            line,
            block,
            driver,
        };
        for _ in 0..20 {
            disk.request();
            disk.block.handle_kick(0);
            assert!(disk.driver.pop_used().is_some());
        }
        disk
    }

    /// The disk as the only device of a machine.
    pub(super) fn devices(&self) -> Devices {
        let devices = Devices::default();
        devices.add(self.block.clone());
        devices
    }

    pub(super) fn request(&mut self) {
        let (header, status) = self.driver.header(0, READ, 0);
        let parts = [(header, 16, 0), (DATA, 512, WRITE), (status, 1, WRITE)];
        let head = self.driver.chain(&parts);
        self.driver.make_available(head);
    }
}
