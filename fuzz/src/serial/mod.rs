//! What a guest can send and do on its serial ports: a stream for COM1 and COM2, split at will,
//! and accesses to a UART's registers. Whatever it does: how a stream is split changes nothing,
//! nothing grows without bound, and what an honest guest sends and receives arrives in order.

mod ports;
mod stream;

use arbitrary::{Result, Unstructured};

/// Carries `bytes` out as a guest's doings on its serial ports.
///
/// # Panics
///
/// When an invariant does not hold.
pub fn run(bytes: &[u8]) {
    // Running out of bytes is no more than the end of the input.
    let _ = drive(&mut Unstructured::new(bytes));
}

fn drive(u: &mut Unstructured<'_>) -> Result<()> {
    match u.arbitrary::<u8>()? & 3 {
        0 => ports::uart(u),
        1 => ports::byte_queue(u),
        _ => stream::run(u),
    }
}
