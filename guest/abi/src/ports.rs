//! The I/O ports that a guest may use, and no others: the I/O permission bitmap of the task state
//! segment forbids the rest (Intel SDM volume 1, "I/O Permission Bit Map").

/// First port of COM1, which carries framed Protocol Buffers both ways.
///
/// The VMM refills the 64-byte receive FIFO only when it is empty and then with as many bytes as
/// it has, up to 64. A driver that has seen "data ready" after an empty FIFO, and that knows how
/// many bytes are still to come, may therefore take `min(64, rest)` bytes with one `rep insb`.
pub const COM1: u16 = 0x3f8;
/// First port of COM2, which carries plain debug text from the guest.
pub const COM2: u16 = 0x2f8;
/// How many ports a UART has.
pub const UART_PORTS: u16 = 8;
/// Depth of a UART's receive FIFO in bytes.
pub const UART_FIFO: usize = 64;
/// Offset of the data register: transmit on a write, receive on a read.
pub const UART_DATA: u16 = 0;
/// Offset of the line status register.
pub const UART_LINE_STATUS: u16 = 5;
/// Line status: a received byte is waiting.
pub const UART_DATA_READY: u8 = 0x01;

/// Writing a byte here ends the run; the byte is the guest's exit status, 0 is success.
pub const EXIT: u16 = 0xf4;
/// Reading a byte here blocks until a virtqueue has used buffers that were not there before.
///
/// The read returns when a device has sent its used buffer notification since the last read of
/// this port. The value read is 0. If nothing is in flight on any queue, no one could ever wake
/// the guest, and the VMM ends the run with an error.
pub const IDLE: u16 = 0xf5;
