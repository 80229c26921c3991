//! The guest as a program: its entry point, and the real ports, registers and memory for the
//! library to run on. It is started in ring 3 without an operating system, an interrupt table or a
//! C library; whatever goes wrong by itself ends the run.
#![no_std]
#![no_main]

mod machine;

use core::fmt;
use core::panic::PanicInfo;

use guest::app::{self, Attached, EXIT_PANIC, Machine};
use guest::serial::debug;
use guest_abi::layout;
use machine::heap::Heap;
use machine::mmio::MmioRegisters;
use machine::ports::X86Ports;

#[global_allocator]
static HEAP: Heap = Heap::empty();

/// The linker script cannot read the address map, so it is held against it here.
const _: () = assert!(layout::IMAGE == 0x1_0000, "guest.ld has another address");

/// Where the VMM starts the guest: like a function that was just called, with nothing to return to.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".text._start")]
extern "C" fn _start() -> ! {
    HEAP.init();
    let ports = X86Ports;
    let machine = Machine {
        ports: &ports,
        input: attached(layout::INPUT_MMIO, layout::INPUT_QUEUE),
        output: attached(layout::OUTPUT_MMIO, layout::OUTPUT_QUEUE),
        pool: machine::dma(layout::DMA_POOL, layout::DMA_POOL_SIZE),
    };
    ports.exit(app::run(machine))
}

fn attached(registers: u64, queue: u64) -> Attached<MmioRegisters> {
    Attached {
        registers: MmioRegisters::at(registers),
        address: registers,
        queue: machine::dma(queue, layout::QUEUE_SIZE),
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let message = info.message();
    match info.location() {
        Some(place) => say(format_args!(
            "panic at {}:{}: {message}",
            place.file(),
            place.line()
        )),
        None => say(format_args!("panic: {message}")),
    }
    X86Ports.exit(EXIT_PANIC)
}

fn say(text: fmt::Arguments<'_>) {
    debug(&X86Ports, text);
}
