//! The way by which a guest reports: COM1, or a console once the program has been given one.
//!
//! Everything goes through one buffer that is sent whole, since leaving the virtual machine costs
//! more than a thousand bytes do.
//!
//! A console that fails is given up: what follows goes by COM1, and [`Channel::fault`] says why.
//! Nothing that was sent after the fault is lost, but what the console had not taken by then is.

use guest_abi::ports::COM1;
use guest_protocol::{GuestMessage, HEADER_LEN, MAX_MESSAGE_LEN, encode_framed};

use crate::hardware::{Ports, Registers};
use crate::serial::Uart;
use crate::virtio::console::{BUFFER_LEN, Console, ConsoleError};

/// The most bytes that are worth sending at once by COM1, which takes them in about a millisecond.
const SERIAL_BATCH: usize = 2048;
// The longest message fits into an empty buffer.
const _: () = assert!(BUFFER_LEN >= HEADER_LEN + MAX_MESSAGE_LEN);

/// The way to the VMM.
#[derive(Debug)]
pub struct Channel<'a, P, R> {
    ports: &'a P,
    uart: Uart<'a, P>,
    console: Option<Console<R>>,
    fault: Option<ConsoleError>,
    /// What waits to be sent: as much as a console's buffer takes.
    buffer: [u8; BUFFER_LEN],
    len: usize,
}

impl<'a, P: Ports, R: Registers> Channel<'a, P, R> {
    /// A channel by COM1.
    #[must_use]
    pub const fn serial(ports: &'a P) -> Self {
        Self {
            ports,
            uart: Uart::new(ports, COM1),
            console: None,
            fault: None,
            buffer: [0; BUFFER_LEN],
            len: 0,
        }
    }

    /// Sends by `console` from here on, and what is waiting by the way there was.
    pub fn use_console(&mut self, console: Console<R>) {
        self.flush();
        self.console = Some(console);
    }

    /// Puts `message`, framed, behind what is waiting.
    pub fn message(&mut self, message: &GuestMessage) {
        self.put(|buffer| encode_framed(message, buffer).ok());
    }

    /// Puts what `write` writes behind what is waiting; it is called again if that did not fit.
    pub fn put(&mut self, write: impl Fn(&mut [u8]) -> Option<usize>) {
        let len = write(&mut self.buffer[self.len..]).unwrap_or_else(|| {
            self.flush();
            // An empty buffer has room for the longest message, which no message comes near.
            write(&mut self.buffer).unwrap_or(0)
        });
        self.len += len;
        if self.len >= self.batch() {
            self.flush();
        }
    }

    /// Sends what is waiting, now that there is time for it. While the console has not yet taken
    /// what was sent before, it goes on waiting: it would be seen no sooner, and the more there is
    /// in a buffer the less each report costs.
    pub fn idle(&mut self) {
        if self.len > 0 && self.is_quiet() {
            self.flush();
        }
    }

    /// Sends what is waiting.
    pub fn flush(&mut self) {
        let len = core::mem::take(&mut self.len);
        if let Some(console) = &mut self.console {
            match console.send(self.ports, &self.buffer[..len]) {
                Ok(()) => return,
                Err(error) => self.give_up(error),
            }
        }
        self.uart.send(&self.buffer[..len]);
    }

    /// How many bytes are worth sending at once.
    const fn batch(&self) -> usize {
        match self.console {
            Some(_) => BUFFER_LEN,
            None => SERIAL_BATCH,
        }
    }

    /// Whether something that is sent now would be seen at once, since nothing is before it.
    fn is_quiet(&mut self) -> bool {
        let quiet = self.console.as_mut().map_or(Ok(true), Console::is_quiet);
        quiet.unwrap_or_else(|error| {
            self.give_up(error);
            true
        })
    }

    /// Sends what is waiting, and waits until all that was sent has been taken.
    pub fn finish(&mut self) {
        self.flush();
        if let Some(console) = &mut self.console
            && let Err(error) = console.finish(self.ports)
        {
            self.give_up(error);
        }
    }

    /// Why the console was given up, if it was.
    #[must_use]
    pub const fn fault(&self) -> Option<&ConsoleError> {
        self.fault.as_ref()
    }

    fn give_up(&mut self, error: ConsoleError) {
        self.console = None;
        self.fault = Some(error);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::rc::Rc;

    use super::*;
    use crate::testing::console::FakeConsole;
    use crate::testing::memory::leak;
    use crate::testing::ports::FakePorts;
    use crate::testing::ports_with;

    fn start(console: &Rc<FakeConsole>) -> Console<Rc<FakeConsole>> {
        Console::init(Rc::clone(console), leak(0x1_0000)).unwrap()
    }

    fn send(channel: &mut Channel<'_, FakePorts, Rc<FakeConsole>>, bytes: &[u8]) {
        channel.put(|buffer| {
            buffer.get_mut(..bytes.len())?.copy_from_slice(bytes);
            Some(bytes.len())
        });
        channel.flush();
    }

    #[test]
    fn what_is_sent_goes_by_com1_until_there_is_a_console() {
        let console = FakeConsole::new(1);
        let ports = ports_with(&[], [Rc::clone(&console) as _], 1);
        let mut channel = Channel::serial(&ports);
        send(&mut channel, b"serial");
        channel.use_console(start(&console));
        send(&mut channel, b"console");
        channel.finish();
        assert_eq!(ports.com1(), b"serial");
        assert_eq!(console.received(), b"console");
        assert!(channel.fault().is_none());
    }

    #[test]
    fn a_console_that_fails_is_given_up_for_com1() {
        let console = FakeConsole::new(1);
        let ports = ports_with(&[], [Rc::clone(&console) as _], 1);
        let mut channel = Channel::serial(&ports);
        channel.use_console(start(&console));
        console.get().fails_at = Some(0);
        send(&mut channel, b"lost");
        channel.finish();
        send(&mut channel, b"late");
        assert_eq!(ports.com1(), b"late");
        assert_eq!(channel.fault(), Some(&ConsoleError::NeedsReset));
    }
}
