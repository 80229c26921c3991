//! A tiny assembler for guests of one property each: a [`Program`] is built from steps and becomes
//! a flat binary (Intel SDM volume 2 for the encodings). It runs in ring 3 from the start of the
//! image; a flat binary's pages can be written and executed.
//!
//! Steps may change `rax`, `rcx`, `rdx`, `rsi`, `rdi` and the flags; `r12` counts repetitions.

use guest_abi::ports::{COM1, EXIT, IDLE};
use guest_protocol::{GuestMessage, complete_message, encode_framed};

/// What a program that has seen what it should exits with.
pub(crate) const SEEN: u8 = 42;
/// What a program exits with whose expectation has failed.
pub(crate) const NOT_SEEN: u8 = 99;

/// A guest, step by step.
#[derive(Clone, Default)]
#[must_use]
pub(crate) struct Program(Vec<u8>);

impl Program {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The flat binary. A program that runs out of steps spins.
    pub(crate) fn build(self) -> Vec<u8> {
        self.spin_forever().0
    }

    /// These bytes of machine code.
    pub(crate) fn raw(mut self, code: &[u8]) -> Self {
        self.0.extend(code);
        self
    }

    /// The machine code of the steps so far.
    pub(crate) fn build_steps(self) -> Vec<u8> {
        self.0
    }

    /// The steps of another program.
    pub(crate) fn then(self, steps: &Self) -> Self {
        self.raw(&steps.0)
    }

    /// `mov rdi, address`, for machine code that uses it.
    pub(crate) fn at(self, address: u64) -> Self {
        self.address(address)
    }

    /// `mov rdi, address`
    fn address(self, address: u64) -> Self {
        self.raw(&[0x48, 0xbf]).raw(&address.to_le_bytes())
    }

    pub(crate) fn store8(self, address: u64, value: u8) -> Self {
        self.address(address).raw(&[0xc6, 0x07, value])
    }

    pub(crate) fn store16(self, address: u64, value: u16) -> Self {
        self.address(address)
            .raw(&[0x66, 0xc7, 0x07])
            .raw(&value.to_le_bytes())
    }

    pub(crate) fn store32(self, address: u64, value: u32) -> Self {
        self.address(address)
            .raw(&[0xc7, 0x07])
            .raw(&value.to_le_bytes())
    }

    pub(crate) fn store64(self, address: u64, value: u64) -> Self {
        self.address(address)
            .raw(&[0x48, 0xb8])
            .raw(&value.to_le_bytes())
            .raw(&[0x48, 0x89, 0x07])
    }

    /// Reads one byte and forgets it, as the other loads do.
    pub(crate) fn load8(self, address: u64) -> Self {
        self.address(address).raw(&[0x8a, 0x07])
    }

    pub(crate) fn load16(self, address: u64) -> Self {
        self.address(address).raw(&[0x66, 0x8b, 0x07])
    }

    pub(crate) fn load32(self, address: u64) -> Self {
        self.address(address).raw(&[0x8b, 0x07])
    }

    pub(crate) fn load64(self, address: u64) -> Self {
        self.address(address).raw(&[0x48, 0x8b, 0x07])
    }

    /// `mov dx, port`
    fn port(self, port: u16) -> Self {
        self.raw(&[0x66, 0xba]).raw(&port.to_le_bytes())
    }

    pub(crate) fn out8(self, port: u16, value: u8) -> Self {
        self.port(port).raw(&[0xb0, value, 0xee])
    }

    pub(crate) fn in8(self, port: u16) -> Self {
        self.port(port).raw(&[0xec])
    }

    /// Sends `bytes` to `port` in one string instruction. They lie in the code, jumped over.
    pub(crate) fn send(self, port: u16, bytes: &[u8]) -> Self {
        let len = i32::try_from(bytes.len()).unwrap();
        self.raw(&[0xe9])
            .raw(&len.to_le_bytes())
            .raw(bytes)
            // lea rsi, [rip - (len + 7)]
            .raw(&[0x48, 0x8d, 0x35])
            .raw(&(-len - 7).to_le_bytes())
            .rep_outsb(port, u32::try_from(len).unwrap())
    }

    /// Sends `count` bytes from `address` to `port` in one string instruction.
    pub(crate) fn send_memory(self, port: u16, address: u64, count: u32) -> Self {
        self.raw(&[0x48, 0xbe])
            .raw(&address.to_le_bytes())
            .rep_outsb(port, count)
    }

    fn rep_outsb(self, port: u16, count: u32) -> Self {
        self.raw(&[0xb9])
            .raw(&count.to_le_bytes())
            .port(port)
            .raw(&[0xf3, 0x6e])
    }

    /// Sends each byte that arrives at the serial port `from` to the port `to`, until one is `end`.
    pub(crate) fn echo_until(self, from: u16, to: u16, end: u8) -> Self {
        let wait = Self::new()
            .in8(from + 5)
            // test al, 1; jz back to the beginning
            .raw(&[0xa8, 0x01, 0x74, 0xf7])
            .in8(from)
            // cmp al, end; je behind all
            .raw(&[0x3c, end, 0x74, 0x07])
            .port(to)
            // out dx, al
            .raw(&[0xee]);
        let len = u8::try_from(wait.0.len() + 2).unwrap();
        // jmp back to the beginning
        self.then(&wait).raw(&[0xeb, len.wrapping_neg()])
    }

    pub(crate) fn send_com1(self, bytes: &[u8]) -> Self {
        self.send(COM1, bytes)
    }

    /// Sends a message in its frame.
    pub(crate) fn say(self, message: &GuestMessage) -> Self {
        let mut frame = vec![0; 4200];
        let len = encode_framed(message, &mut frame).unwrap();
        self.send_com1(&frame[..len])
    }

    pub(crate) fn claim_success(self, sectors: u64) -> Self {
        self.say(&complete_message("copy", sectors, true))
    }

    pub(crate) fn spin_forever(self) -> Self {
        self.raw(&[0xeb, 0xfe])
    }

    pub(crate) fn jump(self, address: u64) -> Self {
        self.raw(&[0x48, 0xb8])
            .raw(&address.to_le_bytes())
            .raw(&[0xff, 0xe0])
    }

    pub(crate) fn exit(self, status: u8) -> Self {
        self.out8(EXIT, status).spin_forever()
    }

    pub(crate) fn idle(self) -> Self {
        self.in8(IDLE)
    }

    /// Does `steps` `count` times. Not within another repetition.
    pub(crate) fn repeat(self, count: u32, steps: &Self) -> Self {
        // dec r12d; jnz back to the steps
        let back = -i32::try_from(steps.0.len() + 9).unwrap();
        self.raw(&[0x41, 0xbc])
            .raw(&count.to_le_bytes())
            .then(steps)
            .raw(&[0x41, 0xff, 0xcc, 0x0f, 0x85])
            .raw(&back.to_le_bytes())
    }

    /// Idles for as long as the byte at `address` is `value`.
    pub(crate) fn idle_while8(self, address: u64, value: u8) -> Self {
        self.address(address).idle_while_equal(&[0x80, 0x3f, value])
    }

    /// Idles for as long as the 32-bit word at `address` is `value`.
    pub(crate) fn idle_while32(self, address: u64, value: u32) -> Self {
        let [a, b, c, d] = value.to_le_bytes();
        self.address(address)
            .idle_while_equal(&[0x81, 0x3f, a, b, c, d])
    }

    /// Idles for as long as `compare` sets the zero flag.
    fn idle_while_equal(self, compare: &[u8]) -> Self {
        let idle = Self::new().idle().0;
        let len = |code: &[u8]| u8::try_from(code.len()).unwrap();
        // jne out; idle; jmp back
        self.raw(compare)
            .raw(&[0x75, len(&idle) + 2])
            .raw(&idle)
            .raw(&[0xeb, (len(compare) + len(&idle) + 4).wrapping_neg()])
    }

    /// Spins for as long as the byte at `address` is `value`, without ever leaving the guest.
    pub(crate) fn spin_while8(self, address: u64, value: u8) -> Self {
        // je back to the comparison
        self.address(address).raw(&[0x80, 0x3f, value, 0x74, 0xfb])
    }

    /// Exits with [`NOT_SEEN`] unless the byte at `address` is `value`.
    pub(crate) fn expect8(self, address: u64, value: u8) -> Self {
        self.address(address)
            .raw(&[0x80, 0x3f, value])
            .unless_equal_give_up()
    }

    /// Exits with [`NOT_SEEN`] unless the 32-bit word at `address` is `value`.
    pub(crate) fn expect32(self, address: u64, value: u32) -> Self {
        self.address(address)
            .raw(&[0x81, 0x3f])
            .raw(&value.to_le_bytes())
            .unless_equal_give_up()
    }

    fn unless_equal_give_up(self) -> Self {
        let give_up = Self::new().exit(NOT_SEEN).0;
        self.raw(&[0x74, u8::try_from(give_up.len()).unwrap()])
            .raw(&give_up)
    }

    /// Ends the run with the status that says that everything expected was seen.
    pub(crate) fn seen(self) -> Self {
        self.exit(SEEN)
    }
}
