//! What a guest can send and do on its serial ports: a stream for COM1 and COM2, split at will,
//! and accesses to a UART's registers. Whatever it does: how a stream is split changes nothing,
//! nothing grows without bound, and what an honest guest sends and receives arrives in order.

mod ports;
pub mod seeds;
mod stream;

use arbitrary::{Result, Unstructured};

pub use stream::Heard;

/// Carries `bytes` out as a guest's doings on its serial ports.
///
/// # Panics
///
/// When an invariant does not hold.
pub fn run(bytes: &[u8]) {
    heard(bytes);
}

/// The same, and says what the host has heard.
///
/// # Panics
///
/// When an invariant does not hold.
pub fn heard(bytes: &[u8]) -> Heard {
    // Running out of bytes is no more than the end of the input.
    drive(&mut Unstructured::new(bytes)).unwrap_or_default()
}

fn drive(u: &mut Unstructured<'_>) -> Result<Heard> {
    match u.arbitrary::<u8>()? & 3 {
        0 => ports::uart(u)?,
        1 => ports::byte_queue(u)?,
        _ => return stream::run(u),
    }
    Ok(Heard::default())
}
