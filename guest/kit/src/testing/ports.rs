//! The ports: COM1 with a FIFO that is refilled as the contract of `guest_abi::ports::COM1` has
//! it, COM2, and the idle port.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;

use guest_abi::ports::{COM1, COM2, IDLE, UART_DATA_READY, UART_FIFO, UART_LINE_STATUS};

use crate::hardware::Ports;

/// What the line status register says besides: that there is nothing left to be transmitted.
const TRANSMITTER_EMPTY: u8 = 0x60;

pub struct FakePorts {
    to_guest: RefCell<VecDeque<u8>>,
    fifo: RefCell<VecDeque<u8>>,
    com1: RefCell<Vec<u8>>,
    com2: RefCell<Vec<u8>>,
    accesses: Cell<usize>,
    /// How often there is nothing to be received yet.
    late: Cell<usize>,
    /// What the clock shows, and by how much it rises each time that it is read.
    clock: Cell<(u64, u64)>,
    idle: RefCell<Box<dyn FnMut()>>,
}

impl fmt::Debug for FakePorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakePorts")
    }
}

impl FakePorts {
    pub fn sending(bytes: &[u8]) -> Self {
        Self::with_idle(bytes, || panic!("nothing to wait for"))
    }

    pub fn with_idle(bytes: &[u8], idle: impl FnMut() + 'static) -> Self {
        Self {
            to_guest: RefCell::new(bytes.iter().copied().collect()),
            fifo: RefCell::default(),
            com1: RefCell::default(),
            com2: RefCell::default(),
            accesses: Cell::default(),
            late: Cell::default(),
            clock: Cell::default(),
            idle: RefCell::new(Box::new(idle)),
        }
    }

    /// Sends nothing until the guest has looked so many times.
    pub fn hesitate(&self, times: usize) {
        self.late.set(times);
    }

    /// Has a clock, which rises by `step` each time that it is read.
    pub fn tick_by(&self, step: u64) {
        self.clock.set((0, step));
    }

    pub fn accesses(&self) -> usize {
        self.accesses.get()
    }

    pub fn com1(&self) -> Vec<u8> {
        self.com1.borrow().clone()
    }

    pub fn com2(&self) -> Vec<u8> {
        self.com2.borrow().clone()
    }

    fn count(&self) {
        self.accesses.set(self.accesses.get() + 1);
    }

    fn line_status(&self) -> u8 {
        if let Some(late) = self.late.get().checked_sub(1) {
            self.late.set(late);
            return TRANSMITTER_EMPTY;
        }
        let (mut fifo, mut rest) = (self.fifo.borrow_mut(), self.to_guest.borrow_mut());
        if fifo.is_empty() {
            let len = rest.len().min(UART_FIFO);
            fifo.extend(rest.drain(..len));
        }
        if fifo.is_empty() {
            TRANSMITTER_EMPTY
        } else {
            TRANSMITTER_EMPTY | UART_DATA_READY
        }
    }
}

impl Ports for FakePorts {
    fn ticks(&self) -> u64 {
        let (now, step) = self.clock.get();
        self.clock.set((now + step, step));
        now
    }

    fn read(&self, port: u16) -> u8 {
        self.count();
        match port {
            IDLE => {
                self.idle.borrow_mut()();
                0
            }
            port if port == COM1 + UART_LINE_STATUS => self.line_status(),
            port => panic!("read of port {port:#x}"),
        }
    }

    fn write(&self, port: u16, _: u8) {
        panic!("write to port {port:#x}");
    }

    fn read_string(&self, port: u16, buffer: &mut [u8]) {
        self.count();
        assert_eq!(port, COM1);
        let mut fifo = self.fifo.borrow_mut();
        assert!(buffer.len() <= fifo.len(), "more than the FIFO holds");
        buffer.fill_with(|| fifo.pop_front().unwrap());
    }

    fn write_string(&self, port: u16, bytes: &[u8]) {
        self.count();
        let sink = match port {
            COM1 => &self.com1,
            COM2 => &self.com2,
            port => panic!("write to port {port:#x}"),
        };
        sink.borrow_mut().extend_from_slice(bytes);
    }
}
