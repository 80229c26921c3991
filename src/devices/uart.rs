//! A UART on the port I/O bus: vm-superio's 16550A between the guest's ports and two byte queues.
//!
//! What the guest transmits goes to a [`ByteQueue`]. What it is to receive waits here, in a queue of
//! its own, and goes from there into the 64-byte FIFO. The FIFO is refilled only when it is empty,
//! and then with as many bytes as fit: the guest ABI promises both. An empty FIFO wakes the main
//! loop through an eventfd, and the main loop refills it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};

use guest_abi::ports::{UART_DATA, UART_FIFO};
use vm_device::DevicePio;
use vm_device::bus::{PioAddress, PioAddressOffset};
use vm_superio::serial::SerialEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::ByteQueue;
use crate::lock::lock;

/// The longest string that KVM hands over at once: a page.
const STRING: usize = 4096;

/// The guest has no interrupts: it polls the line status register.
struct NoInterrupt;

impl Trigger for NoInterrupt {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Wakes the main loop when the guest has taken the last byte of the FIFO.
struct RefillOnEmpty(Arc<EventFd>);

impl SerialEvents for RefillOnEmpty {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}

    fn in_buffer_empty(&self) {
        // A full counter means that the main loop has been told already.
        let _ = self.0.write(1);
    }
}

struct State {
    /// Transmits into a buffer, which is handed on once a port access rather than once a byte.
    serial: Serial<NoInterrupt, RefillOnEmpty, Vec<u8>>,
    /// What the guest has still to receive.
    pending: VecDeque<u8>,
}

/// One UART. Shared by the bus, the vCPU's thread and the main loop through an `Arc`.
pub struct Uart {
    state: Mutex<State>,
    transmitted: Arc<ByteQueue>,
    empty: Arc<EventFd>,
}

impl Uart {
    /// A UART that transmits into `transmitted` and has nothing to be received.
    ///
    /// # Errors
    ///
    /// If the system has no eventfd to spare.
    pub fn new(transmitted: Arc<ByteQueue>) -> io::Result<Self> {
        let empty = Arc::new(EventFd::new(EFD_NONBLOCK)?);
        let events = RefillOnEmpty(empty.clone());
        Ok(Self {
            state: Mutex::new(State {
                serial: Serial::with_events(NoInterrupt, events, Vec::with_capacity(STRING)),
                pending: VecDeque::new(),
            }),
            transmitted,
            empty,
        })
    }

    /// Queues `bytes` for the guest to receive, however many, and fills the FIFO.
    pub fn queue_input(&self, bytes: &[u8]) {
        lock(&self.state).pending.extend(bytes);
        self.refill();
    }

    /// How many bytes wait for the guest to receive, beside those in the FIFO.
    #[must_use]
    pub fn pending_input(&self) -> usize {
        lock(&self.state).pending.len()
    }

    /// Refills the FIFO if it is empty. For the main loop, when [`Uart::empty_event`] fires.
    pub fn refill(&self) {
        let _ = self.empty.read();
        let mut state = lock(&self.state);
        if state.serial.fifo_capacity() == UART_FIFO {
            let State { serial, pending } = &mut *state;
            let burst: Vec<u8> = pending.drain(..pending.len().min(UART_FIFO)).collect();
            // In loopback mode the UART takes nothing; a guest that asks for that loses input.
            let _ = serial.enqueue_raw_bytes(&burst);
        }
    }

    /// Becomes readable when the guest has emptied the FIFO.
    #[must_use]
    pub fn empty_event(&self) -> &EventFd {
        &self.empty
    }
}

/// A string instruction arrives as one slice that is longer than a register: all its bytes are for
/// the same register, one after the other.
impl DevicePio for Uart {
    fn pio_read(&self, _base: PioAddress, offset: PioAddressOffset, data: &mut [u8]) {
        let offset = u8::try_from(offset).unwrap_or(u8::MAX);
        let mut state = lock(&self.state);
        data.fill_with(|| state.serial.read(offset));
    }

    fn pio_write(&self, _base: PioAddress, offset: PioAddressOffset, data: &[u8]) {
        let register = u8::try_from(offset).unwrap_or(u8::MAX);
        let mut state = lock(&self.state);
        for &byte in data {
            // It cannot fail: the UART writes to a buffer in memory, and its interrupt does nothing.
            let _ = state.serial.write(register, byte);
        }
        if offset == UART_DATA {
            let mut bytes = std::mem::take(state.serial.writer_mut());
            drop(state);
            // This may wait for room, so the lock is not held: the main loop needs it to refill.
            self.transmitted.push(&bytes);
            // The buffer is given back, so that its memory is used again.
            bytes.clear();
            *lock(&self.state).serial.writer_mut() = bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use guest_abi::ports::{COM1, UART_DATA_READY, UART_LINE_STATUS};

    use super::*;
    use crate::devices::Overflow;

    const BASE: PioAddress = PioAddress(COM1);

    fn uart() -> (Uart, Arc<ByteQueue>) {
        let queue = Arc::new(ByteQueue::new(1 << 16, Overflow::Drop).unwrap());
        (Uart::new(queue.clone()).unwrap(), queue)
    }

    fn read(uart: &Uart, offset: u16) -> u8 {
        let mut data = [0xaa];
        uart.pio_read(BASE, offset, &mut data);
        data[0]
    }

    #[test]
    fn input_of_any_length_arrives_whole_through_the_fifo() {
        let (uart, _) = uart();
        let sent: Vec<u8> = (0..700_u16).map(|n| (n % 251) as u8).collect();
        uart.queue_input(&sent);
        let mut received = Vec::new();
        while received.len() < sent.len() {
            if read(&uart, UART_LINE_STATUS) & UART_DATA_READY == 0 {
                assert!(uart.empty_event().read().is_ok(), "the main loop is told");
                uart.refill();
            } else {
                received.push(read(&uart, UART_DATA));
            }
        }
        assert_eq!(received, sent);
        assert_eq!(read(&uart, UART_LINE_STATUS) & UART_DATA_READY, 0);
    }

    #[test]
    fn a_string_read_takes_a_whole_fifo_at_once() {
        let (uart, _) = uart();
        let sent: Vec<u8> = (0..100).collect();
        uart.queue_input(&sent);
        let mut burst = [0; UART_FIFO];
        uart.pio_read(BASE, UART_DATA, &mut burst);
        assert_eq!(burst, sent[..UART_FIFO]);
        uart.refill();
        let mut rest = [0; 100 - UART_FIFO];
        uart.pio_read(BASE, UART_DATA, &mut rest);
        assert_eq!(rest, sent[UART_FIFO..]);
    }

    #[test]
    fn input_that_the_fifo_has_no_room_for_is_pending() {
        let (uart, _) = uart();
        assert_eq!(uart.pending_input(), 0);
        uart.queue_input(&[1; UART_FIFO + 7]);
        assert_eq!(uart.pending_input(), 7);
    }

    #[test]
    fn a_fifo_that_is_not_empty_is_not_refilled() {
        let (uart, _) = uart();
        uart.queue_input(&[1; 70]);
        read(&uart, UART_DATA);
        uart.refill();
        let state = lock(&uart.state);
        assert_eq!(state.serial.fifo_capacity(), 1);
    }

    #[test]
    fn a_string_write_is_transmitted_in_order() {
        let (uart, queue) = uart();
        uart.pio_write(BASE, UART_DATA, b"hello ");
        uart.pio_write(BASE, UART_DATA, b"world");
        let mut out = [0; 32];
        let len = queue.take(&mut out);
        assert_eq!(&out[..len], b"hello world");
    }

    #[test]
    fn the_divisor_latch_and_unknown_registers_transmit_nothing() {
        let (uart, queue) = uart();
        uart.pio_write(BASE, 3, &[0x80]);
        uart.pio_write(BASE, 0, &[12]);
        uart.pio_write(BASE, 3, &[0x03]);
        uart.pio_write(BASE, 7, &[1]);
        assert!(queue.is_empty());
    }
}
