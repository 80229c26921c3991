//! Accesses to a UART's registers and to the queue behind it, beside models of what must come out:
//! bytes in their order, as long as the guest touches nothing but the data register.

use std::collections::VecDeque;
use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use guest_abi::ports::{UART_DATA, UART_DATA_READY, UART_LINE_STATUS};
use vm_device::DevicePio;
use vm_device::bus::PioAddress;
use vmm::devices::{ByteQueue, Overflow, Uart};

const MAX_STEPS: usize = 128;
const BASE: PioAddress = PioAddress(0x3f8);
const CAPACITY: usize = 256;

/// A UART and what its guest should see of it.
struct Rig {
    uart: Uart,
    transmitted: Arc<ByteQueue>,
    /// What the guest has still to receive.
    input: VecDeque<u8>,
    /// Whether the guest has used the data register alone, as the guest ABI wants it.
    honest: bool,
}

pub fn uart(u: &mut Unstructured<'_>) -> Result<()> {
    let transmitted = Arc::new(ByteQueue::new(CAPACITY, Overflow::Drop).unwrap());
    let mut rig = Rig {
        uart: Uart::new(transmitted.clone()).unwrap(),
        transmitted,
        input: VecDeque::new(),
        honest: true,
    };
    for _ in 0..MAX_STEPS {
        if u.is_empty() {
            break;
        }
        match u.int_in_range(0..=7u8)? {
            0 => {
                let input = bytes(u, 300)?;
                rig.input.extend(input);
                rig.uart.queue_input(input);
            }
            1 => rig.uart.refill(),
            2 | 3 => rig.receive(u.arbitrary()?),
            4 | 5 => rig.transmit(bytes(u, 400)?),
            6 => {
                let offset = offset(u)?;
                rig.honest &= offset == UART_LINE_STATUS;
                let mut data = vec![0; u.int_in_range(0..=300)?];
                rig.uart.pio_read(BASE, offset, &mut data);
            }
            _ => {
                rig.honest = false;
                rig.uart.pio_write(BASE, offset(u)?, bytes(u, 300)?);
            }
        }
    }
    rig.receive(u8::MAX);
    Ok(())
}

impl Rig {
    /// Receives at most `count` bytes while the UART says that there are any.
    fn receive(&mut self, count: u8) {
        for _ in 0..count {
            if self.read(UART_LINE_STATUS) & UART_DATA_READY == 0 {
                // The main loop does this when the FIFO's event fires.
                self.uart.refill();
            }
            if self.read(UART_LINE_STATUS) & UART_DATA_READY == 0 {
                assert!(!self.honest || self.input.is_empty(), "input is missing");
                return;
            }
            let byte = self.read(UART_DATA);
            let expected = self.input.pop_front();
            assert!(!self.honest || Some(byte) == expected, "wrong input");
        }
    }

    /// Sends `bytes` with one string instruction.
    fn transmit(&self, bytes: &[u8]) {
        let mut sent = vec![0; CAPACITY + 1];
        self.transmitted.take(&mut sent);
        self.uart.pio_write(BASE, UART_DATA, bytes);
        let len = self.transmitted.take(&mut sent);
        assert!(len <= CAPACITY, "the queue is over-full");
        let sent = &sent[..len];
        if self.honest {
            let kept = bytes.len().min(CAPACITY);
            assert_eq!(sent, &bytes[..kept]);
        }
    }

    fn read(&self, offset: u16) -> u8 {
        let mut data = [0];
        self.uart.pio_read(BASE, offset, &mut data);
        data[0]
    }
}

/// A queue against a model; whoever would have to wait for room sends only what fits.
pub fn byte_queue(u: &mut Unstructured<'_>) -> Result<()> {
    let capacity = u.int_in_range(0..=512)?;
    let waits = u.arbitrary()?;
    let overflow = if waits {
        Overflow::Wait
    } else {
        Overflow::Drop
    };
    let queue = ByteQueue::new(capacity, overflow).unwrap();
    let (mut held, mut closed) = (Vec::new(), false);
    for _ in 0..MAX_STEPS {
        match u.int_in_range(0..=15u8)? {
            0..=9 => {
                let mut bytes = bytes(u, 600)?;
                let room = capacity - held.len();
                if waits && !closed {
                    bytes = &bytes[..bytes.len().min(room)];
                }
                queue.push(bytes);
                if !closed {
                    let kept = bytes.len().min(room);
                    held.extend_from_slice(&bytes[..kept]);
                }
            }
            10..=14 => {
                let mut taken = vec![0xaa; u.int_in_range(1..=600)?];
                let len = queue.take(&mut taken);
                assert_eq!(len, taken.len().min(held.len()));
                assert_eq!(taken[..len], held[..len]);
                held.drain(..len);
            }
            _ if u.ratio(1, 4)? => {
                queue.close();
                closed = true;
            }
            _ => {}
        }
        // The event loop would sleep on bytes that it is not told of.
        assert!(
            held.is_empty()
                || queue
                    .event()
                    .read()
                    .is_ok_and(|_| queue.event().write(1).is_ok())
        );
        if u.is_empty() {
            break;
        }
    }
    Ok(())
}

fn offset(u: &mut Unstructured<'_>) -> Result<u16> {
    match u.int_in_range(0..=15u8)? {
        15 => u.arbitrary(),
        offset => Ok(u16::from(offset % 9)),
    }
}

fn bytes<'a>(u: &mut Unstructured<'a>, max: usize) -> Result<&'a [u8]> {
    let len = u.int_in_range(0..=max)?.min(u.len());
    u.bytes(len)
}
