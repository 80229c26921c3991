//! Devices on the port I/O bus: the two UARTs, and the bounded buffers that carry their bytes
//! between the vCPU's thread and the main loop.

mod byte_queue;
mod uart;

pub use byte_queue::{ByteQueue, Overflow};
pub use uart::Uart;
