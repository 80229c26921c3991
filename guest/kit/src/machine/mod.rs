//! The real machine under the library's traits: the only code of a guest that cannot run on the
//! host. Everything unsafe about the processor and the address map is in here.

pub mod heap;
mod libc;
mod mmio;
mod ports;

use core::panic::PanicInfo;
use core::ptr::{self, NonNull};

use guest_abi::layout;

use crate::dma::DmaRegion;
use crate::hardware::Attached;
use crate::serial::debug;
use heap::LockedHeap;

pub use mmio::MmioRegisters;
pub use ports::X86Ports;

/// Exit status of a run that ended by a panic.
pub const EXIT_PANIC: u8 = 101;

/// The linker script cannot read the address map, so it is held against it here.
const _: () = assert!(layout::IMAGE == 0x1_0000, "guest.ld has another address");

/// The machine that a program runs on. There is one, and it gives away each part once.
#[derive(Debug)]
pub struct Platform {
    /// One bit a slot.
    slots_taken: u16,
    pool_taken: bool,
}

impl Platform {
    /// The I/O ports.
    #[must_use]
    pub const fn ports(&self) -> X86Ports {
        X86Ports
    }

    /// The virtio device in `slot`: its registers and the memory for its queues.
    ///
    /// A slot that the VMM gave no device is not mapped: touching its registers ends the run.
    ///
    /// # Panics
    ///
    /// If there is no such slot or it was taken before: the program's mistake.
    pub fn device(&mut self, slot: usize) -> Attached<MmioRegisters> {
        assert!(slot < layout::MAX_SLOTS, "slot {slot} does not exist");
        let bit = 1 << slot;
        assert!(self.slots_taken & bit == 0, "slot {slot} is taken");
        self.slots_taken |= bit;
        let address = layout::registers(slot);
        Attached {
            registers: MmioRegisters::at(address),
            address,
            // SAFETY: the bit above makes this the only region of this slot.
            queue: unsafe { dma(layout::queue(slot), layout::QUEUE_SIZE) },
        }
    }

    /// The memory for data, which all devices reach: 2.5 MiB.
    ///
    /// # Panics
    ///
    /// If it was taken before: the program's mistake.
    pub fn pool(&mut self) -> DmaRegion {
        assert!(!self.pool_taken, "the pool is taken");
        self.pool_taken = true;
        // SAFETY: the flag above makes this the only region of the pool.
        unsafe { dma(layout::DMA_POOL, layout::DMA_POOL_SIZE) }
    }
}

/// The memory of one region of the address map, for devices and this program alike.
///
/// # Safety
///
/// The region is one of the map's queues or its pool, and no other value stands for it.
unsafe fn dma(start: u64, size: u64) -> DmaRegion {
    // The guest is a 64-bit program, so neither conversion loses anything.
    let address = usize::try_from(start).unwrap_or(0);
    let len = usize::try_from(size).unwrap_or(0);
    let base = ptr::with_exposed_provenance_mut(address);
    let base = NonNull::new(base).unwrap_or(NonNull::dangling());
    // SAFETY: the address map has these pages mapped to themselves, readable and writable, for as
    // long as the machine exists (where a slot has no device they are not mapped, and an access
    // ends the run); the image and the stack lie elsewhere. The caller vouches for the rest.
    unsafe { DmaRegion::new(base, len) }
}

/// Runs a program, with `memory` for its heap: what its entry point calls, and only that.
///
/// # Safety
///
/// Called once, first of all, by the only thread that there is. The memory is there for as long as the
/// program runs, and nothing else refers to it.
pub unsafe fn run(heap: &'static LockedHeap, memory: *mut [u8], main: fn(Platform) -> u8) -> ! {
    // SAFETY: the caller vouches for the memory, which the heap aligns, and for this being the only
    // call.
    unsafe { heap.lock().init(memory.cast(), memory.len()) };
    X86Ports.exit(main(Platform {
        slots_taken: 0,
        pool_taken: false,
    }))
}

/// Says what happened on COM2 and ends the run: what a program's panic handler calls.
pub fn panic(info: &PanicInfo<'_>) -> ! {
    let message = info.message();
    match info.location() {
        Some(place) => debug(
            &X86Ports,
            format_args!("panic at {}:{}: {message}", place.file(), place.line()),
        ),
        None => debug(&X86Ports, format_args!("panic: {message}")),
    }
    X86Ports.exit(EXIT_PANIC)
}

/// Makes a function the start of a program: `entry!(main)`, with a `fn main(machine: Platform) -> u8`
/// whose result is the run's exit status.
///
/// It defines the entry point, the panic handler and the global allocator, whose heap has 128 KiB
/// of the image unless another size in bytes is given: `entry!(main, heap: 512 << 10)`. With
/// `entry!(main, heap: region)` it is the 3 MiB that a machine has which is made with a heap. What it
/// expands to needs `unsafe` for the entry point's symbol: a program may `deny(unsafe_code)`, but
/// not `forbid` it.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        $crate::entry!($main, heap: $crate::machine::heap::USUAL_SIZE);
    };
    ($main:path, heap: region) => {
        $crate::entry!(@with $main, {
            // SAFETY: the entry point alone has this, which runs once, before there is a heap.
            unsafe { $crate::machine::heap::region() }
        });
    };
    ($main:path, heap: $size:expr) => {
        $crate::entry!(@with $main, {
            static MEMORY: $crate::machine::heap::ImageMemory<{ $size }> =
                $crate::machine::heap::ImageMemory::new();
            MEMORY.bytes()
        });
    };
    (@with $main:path, $memory:expr) => {
        #[global_allocator]
        static HEAP: $crate::machine::heap::LockedHeap = $crate::machine::heap::LockedHeap::empty();

        /// Where the VMM starts the guest: like a function that was just called, with nothing to
        /// return to.
        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        #[unsafe(link_section = ".text._start")]
        extern "C" fn _start() -> ! {
            let memory = $memory;
            // SAFETY: the VMM enters here once, and nothing in the program calls this. Nothing else
            // in it refers to the memory.
            unsafe { $crate::machine::run(&HEAP, memory, $main) }
        }

        #[panic_handler]
        fn panic(info: &::core::panic::PanicInfo<'_>) -> ! {
            $crate::machine::panic(info)
        }
    };
}
