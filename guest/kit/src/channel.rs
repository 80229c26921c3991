//! The way by which a guest reports: COM1, or a console once the program has been given one.
//!
//! A console that fails is given up: what follows goes by COM1, and [`Channel::fault`] says why.
//! Nothing that was sent after the fault is lost, but what the console had not taken by then is.

use guest_abi::ports::COM1;

use crate::hardware::{Ports, Registers};
use crate::serial::Uart;
use crate::virtio::console::{BUFFER_LEN, Console, ConsoleError};

/// Most bytes worth sending at once by COM1: about a millisecond's worth.
const SERIAL_BATCH: usize = 2048;

/// The way to the VMM.
#[derive(Debug)]
pub struct Channel<'a, P, R> {
    ports: &'a P,
    uart: Uart<'a, P>,
    console: Option<Console<R>>,
    fault: Option<ConsoleError>,
}

impl<'a, P: Ports, R: Registers> Channel<'a, P, R> {
    /// The way by COM1.
    #[must_use]
    pub const fn serial(ports: &'a P) -> Self {
        Self {
            ports,
            uart: Uart::new(ports, COM1),
            console: None,
            fault: None,
        }
    }

    /// Sends by `console` from here on.
    pub fn use_console(&mut self, console: Console<R>) {
        self.console = Some(console);
    }

    /// How many bytes are worth sending at once.
    #[must_use]
    pub const fn batch(&self) -> usize {
        match self.console {
            Some(_) => BUFFER_LEN,
            None => SERIAL_BATCH,
        }
    }

    /// Sends `bytes`.
    pub fn send(&mut self, bytes: &[u8]) {
        if let Some(console) = &mut self.console {
            match console.send(self.ports, bytes) {
                Ok(()) => return,
                Err(error) => self.give_up(error),
            }
        }
        self.uart.send(bytes);
    }

    /// Whether something that is sent now would be seen at once, since nothing is before it.
    pub fn is_quiet(&mut self) -> bool {
        let quiet = self.console.as_mut().map_or(Ok(true), Console::is_quiet);
        quiet.unwrap_or_else(|error| {
            self.give_up(error);
            true
        })
    }

    /// Waits until all that was sent has been taken.
    pub fn finish(&mut self) {
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
    use crate::testing::ports_with;

    fn start(console: &Rc<FakeConsole>) -> Console<Rc<FakeConsole>> {
        Console::init(Rc::clone(console), leak(0x1_0000)).unwrap()
    }

    #[test]
    fn what_is_sent_goes_by_com1_until_there_is_a_console() {
        let console = FakeConsole::new(1);
        let ports = ports_with(&[], [Rc::clone(&console) as _], 1);
        let mut channel = Channel::serial(&ports);
        channel.send(b"serial");
        channel.use_console(start(&console));
        channel.send(b"console");
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
        channel.send(b"lost");
        channel.finish();
        channel.send(b"late");
        assert_eq!(ports.com1(), b"late");
        assert_eq!(channel.fault(), Some(&ConsoleError::NeedsReset));
    }
}
