//! The way by which a guest reports: COM1, or a console once the program has been given one.
//!
//! Everything goes through one buffer that is sent whole, since leaving the virtual machine costs
//! more than a thousand bytes do.
//!
//! A console that fails is given up: what follows goes by COM1, and [`Channel::fault`] says why.
//! Nothing that was sent after the fault is lost, but what the console had not taken by then is.

use guest_abi::ports::COM1;
use guest_protocol::{HEADER_LEN, MAX_MESSAGE_LEN, Message, encode_framed};

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

    /// Puts `message`, framed, behind what is waiting. It may be of another schema than that of the
    /// VMM's own programs, if the operation on the host knows it.
    ///
    /// # Panics
    ///
    /// If the message is longer than [`MAX_MESSAGE_LEN`]. No host takes such a one, and one that is
    /// left out could make a failure look like a success.
    pub fn message(&mut self, message: &impl Message) {
        let len = message.encoded_len();
        assert!(
            len <= MAX_MESSAGE_LEN,
            "a message of {len} bytes is longer than the {MAX_MESSAGE_LEN} that are allowed"
        );
        self.put(|buffer| encode_framed(message, buffer).ok());
    }

    /// Puts what `write` writes behind what is waiting. It is called again, with an empty buffer that
    /// takes any message, if that did not fit.
    ///
    /// # Panics
    ///
    /// If that does not fit either.
    pub fn put(&mut self, write: impl Fn(&mut [u8]) -> Option<usize>) {
        let mut written = write(&mut self.buffer[self.len..]);
        if written.is_none() {
            self.flush();
            written = write(&mut self.buffer);
        }
        assert!(
            written.is_some(),
            "a report of more than {BUFFER_LEN} bytes"
        );
        self.len += written.unwrap_or(0);
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

    use guest_protocol::{GuestMessage, complete_message, error_message};

    use super::*;
    use crate::testing::console::FakeConsole;
    use crate::testing::memory::leak;
    use crate::testing::ports::FakePorts;
    use crate::testing::ports_with;

    fn start(console: &Rc<FakeConsole>) -> Console<Rc<FakeConsole>> {
        Console::init(Rc::clone(console), leak(0x1_0000)).unwrap()
    }

    type TestChannel<'a> = Channel<'a, FakePorts, Rc<FakeConsole>>;

    fn put(channel: &mut TestChannel<'_>, bytes: &[u8]) {
        channel.put(|buffer| {
            buffer.get_mut(..bytes.len())?.copy_from_slice(bytes);
            Some(bytes.len())
        });
    }

    fn send(channel: &mut TestChannel<'_>, bytes: &[u8]) {
        put(channel, bytes);
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
    fn by_com1_what_is_put_waits_for_a_batch_or_for_an_idle_moment() {
        let ports = FakePorts::sending(&[]);
        let mut channel = TestChannel::serial(&ports);
        put(&mut channel, &[1; SERIAL_BATCH - 1]);
        assert_eq!(ports.accesses(), 0);
        put(&mut channel, &[1]);
        assert_eq!(ports.com1(), [1; SERIAL_BATCH]);
        put(&mut channel, b"more");
        channel.idle();
        channel.idle();
        assert_eq!(ports.com1()[SERIAL_BATCH..], *b"more");
        assert_eq!(ports.accesses(), 2);
    }

    #[test]
    fn a_console_gets_full_buffers_and_messages_whole() {
        let console = FakeConsole::new(1);
        let ports = ports_with(&[], [Rc::clone(&console) as _], 1);
        let mut channel = Channel::serial(&ports);
        channel.use_console(start(&console));
        put(&mut channel, &[1; BUFFER_LEN - 1]);
        assert_eq!(console.counts().1, 0);
        // There is no room for both bytes.
        put(&mut channel, &[2; 2]);
        assert_eq!((console.counts().1, channel.len), (1, 2));
        put(&mut channel, &[2; BUFFER_LEN - 2]);
        assert_eq!(channel.len, 0);
        let message = complete_message("copy", 1, true);
        channel.message(&message);
        channel.finish();
        let mut frame = [0; HEADER_LEN + MAX_MESSAGE_LEN];
        let len = encode_framed(&message, &mut frame).unwrap();
        let expected = [&[1; BUFFER_LEN - 1][..], &[2; BUFFER_LEN], &frame[..len]];
        assert!(console.received() == expected.concat());
    }

    /// A message of `len` bytes, for numbers that take two bytes of length.
    fn message_of(len: usize) -> GuestMessage {
        let text = "x".repeat(len);
        let message = error_message("tally", "", 0, 0, &text);
        let more = message.encoded_len() - len;
        let message = error_message("tally", "", 0, 0, &text[more..]);
        assert_eq!(message.encoded_len(), len);
        message
    }

    #[test]
    fn the_longest_message_is_sent() {
        let ports = FakePorts::sending(&[]);
        let mut channel = TestChannel::serial(&ports);
        put(&mut channel, b"first");
        channel.message(&message_of(MAX_MESSAGE_LEN));
        assert_eq!(ports.com1().len(), 5 + HEADER_LEN + MAX_MESSAGE_LEN);
    }

    #[test]
    #[should_panic(expected = "a message of 4097 bytes is longer than the 4096 that are allowed")]
    fn a_message_that_is_too_long_is_a_mistake_of_the_program() {
        let ports = FakePorts::sending(&[]);
        TestChannel::serial(&ports).message(&message_of(MAX_MESSAGE_LEN + 1));
    }

    #[test]
    #[should_panic(expected = "a report of more than")]
    fn a_text_that_no_buffer_takes_is_a_mistake_of_the_program() {
        let ports = FakePorts::sending(&[]);
        put(&mut TestChannel::serial(&ports), &[1; BUFFER_LEN + 1]);
    }

    #[test]
    fn an_idle_moment_is_none_while_the_console_has_something_before_it() {
        let mut quiet_ones = 0;
        for seed in 0..20 {
            let console = FakeConsole::new(seed);
            let ports = ports_with(&[], [Rc::clone(&console) as _], seed);
            let mut channel = Channel::serial(&ports);
            channel.use_console(start(&console));
            send(&mut channel, b"first");
            let is_quiet = console.received() == b"first";
            put(&mut channel, b"second");
            channel.idle();
            assert_eq!(channel.len == 0, is_quiet);
            quiet_ones += usize::from(is_quiet);
        }
        assert!((1..20).contains(&quiet_ones));
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
