//! The two UARTs (National Semiconductor 16550A, its data and line status registers): COM1 carries
//! frames both ways, COM2 plain debug text. Both are driven with string instructions, since an
//! access costs the same for one byte as for a FIFO full of them.

use core::fmt::{self, Write as _};

use guest_abi::ports::{COM2, UART_DATA, UART_DATA_READY, UART_FIFO, UART_LINE_STATUS};
use guest_protocol::{HEADER_LEN, MAX_MESSAGE_LEN};
use thiserror::Error;

use crate::hardware::Ports;

/// Longest debug line, its newline included; more of it is cut off.
const LINE_LEN: usize = 160;

/// Why no frame could be received.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SerialError {
    /// The frame's header announces more than any message may have.
    #[error(
        "the configuration's frame announces {0} bytes, more than the {MAX_MESSAGE_LEN} allowed"
    )]
    FrameTooLong(usize),
}

/// One UART, at its first port.
#[derive(Debug)]
pub struct Uart<'a, P> {
    ports: &'a P,
    base: u16,
}

impl<'a, P: Ports> Uart<'a, P> {
    /// The UART whose first port is `base`.
    #[must_use]
    pub const fn new(ports: &'a P, base: u16) -> Self {
        Self { ports, base }
    }

    /// Transmits `bytes`. The transmitter is always ready: the VMM takes whatever is written.
    pub fn send(&self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.ports.write_string(self.base + UART_DATA, bytes);
        }
    }

    /// Receives one frame into `buffer` and returns the message in it.
    ///
    /// # Errors
    ///
    /// [`SerialError::FrameTooLong`] if the header announces more than `buffer` takes.
    pub fn receive_frame<'b>(
        &self,
        buffer: &'b mut [u8; MAX_MESSAGE_LEN],
    ) -> Result<&'b [u8], SerialError> {
        let mut header = [0; HEADER_LEN];
        let mut ready = 0;
        self.receive(&mut header, &mut ready);
        let len = usize::from(u16::from_le_bytes(header));
        let message = buffer
            .get_mut(..len)
            .ok_or(SerialError::FrameTooLong(len))?;
        self.receive(message, &mut ready);
        Ok(message)
    }

    /// Fills `buffer`. `ready` is how many more bytes the FIFO can give before it is refilled: only
    /// when that many have been taken does "data ready" have to be looked at again.
    fn receive(&self, mut buffer: &mut [u8], ready: &mut usize) {
        while !buffer.is_empty() {
            if *ready == 0 {
                self.wait_for_data();
                *ready = UART_FIFO;
            }
            let (now, later) = buffer.split_at_mut(buffer.len().min(*ready));
            self.ports.read_string(self.base + UART_DATA, now);
            *ready -= now.len();
            buffer = later;
        }
    }

    fn wait_for_data(&self) {
        while self.ports.read(self.base + UART_LINE_STATUS) & UART_DATA_READY == 0 {}
    }
}

/// Sends one line of debug text to COM2, cut to a bounded length.
pub fn debug<P: Ports>(ports: &P, text: fmt::Arguments<'_>) {
    let mut line = DebugLine::default();
    // A line that is too long is cut, which is no error. One of what is shown is no reason to lose the
    // rest of the line.
    let _ = line.write_fmt(text);
    Uart::new(ports, COM2).send(line.finish());
}

/// A line that keeps what fits and drops the rest.
#[derive(Default)]
struct DebugLine {
    bytes: heapless::Vec<u8, LINE_LEN>,
}

impl DebugLine {
    fn finish(&mut self) -> &[u8] {
        self.bytes.truncate(LINE_LEN - 1);
        let _ = self.bytes.push(b'\n');
        &self.bytes
    }
}

impl fmt::Write for DebugLine {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = LINE_LEN - self.bytes.len();
        let kept = text.as_bytes().get(..room).unwrap_or(text.as_bytes());
        self.bytes.extend_from_slice(kept).map_err(|_| fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

    use guest_abi::ports::COM1;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::ports::FakePorts;

    fn frame(message: &[u8]) -> Vec<u8> {
        let len = u16::try_from(message.len()).unwrap();
        [&len.to_le_bytes(), message].concat()
    }

    #[test]
    fn a_short_frame_takes_three_accesses() {
        let ports = FakePorts::sending(&frame(b"short"));
        let mut buffer = [0; MAX_MESSAGE_LEN];
        let uart = Uart::new(&ports, COM1);
        assert_eq!(uart.receive_frame(&mut buffer).unwrap(), b"short");
        assert_eq!(ports.accesses(), 3);
    }

    #[test]
    fn a_guest_looks_until_there_is_something_to_be_received() {
        let ports = FakePorts::sending(&frame(b"late"));
        ports.hesitate(5);
        let mut buffer = [0; MAX_MESSAGE_LEN];
        let uart = Uart::new(&ports, COM1);
        assert_eq!(uart.receive_frame(&mut buffer).unwrap(), b"late");
        assert_eq!(ports.accesses(), 5 + 3);
    }

    #[test]
    fn a_frame_that_announces_too_much_is_refused() {
        let ports = FakePorts::sending(&[0x01, 0x10, 0, 0]);
        let mut buffer = [0; MAX_MESSAGE_LEN];
        let uart = Uart::new(&ports, COM1);
        let error = uart.receive_frame(&mut buffer).unwrap_err();
        assert_eq!(error, SerialError::FrameTooLong(0x1001));
    }

    #[test]
    fn a_debug_line_is_one_write_and_cut_to_its_length() {
        let ports = FakePorts::sending(&[]);
        debug(
            &ports,
            format_args!("{}{}", "a".repeat(150), "b".repeat(150)),
        );
        let sent = ports.com2();
        assert_eq!(sent.len(), LINE_LEN);
        assert!(sent.ends_with(b"bbb\n"));
        assert_eq!(ports.accesses(), 1);
    }

    proptest! {
        #[test]
        fn a_frame_of_any_length_arrives_whole_in_bursts_of_one_fifo(len in 0..=MAX_MESSAGE_LEN) {
            let message: Vec<u8> = (0..len).map(|i| (i * 7 + i / 256) as u8).collect();
            let ports = FakePorts::sending(&frame(&message));
            let mut buffer = [0; MAX_MESSAGE_LEN];
            let uart = Uart::new(&ports, COM1);
            prop_assert_eq!(uart.receive_frame(&mut buffer).unwrap(), &message[..]);
            let bursts = (len + HEADER_LEN).div_ceil(UART_FIFO);
            prop_assert!(ports.accesses() <= 2 * bursts + 1);
        }
    }
}
