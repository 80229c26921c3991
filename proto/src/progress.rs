//! Progress reports, of which there may be hundreds of thousands in a run: encoded by hand, without
//! an allocation (Protocol Buffers, "Encoding"). A test holds the bytes against the generated code.

use crate::frame::{FrameError, HEADER_LEN, MAX_MESSAGE_LEN};

/// Field 1 of a GuestMessage, a varint: the level, which is LEVEL_PROGRESS.
const LEVEL: [u8; 2] = [1 << 3, 1];
/// Field 4 of a GuestMessage, of a length: the progress.
const PROGRESS: u8 = 4 << 3 | 2;
/// Fields of a ProgressMessage: a string, then three varints.
const OP: u8 = 1 << 3 | 2;
const CURRENT: u8 = 2 << 3;
const TOTAL: u8 = 3 << 3;
const PERCENT: u8 = 4 << 3;

/// Writes the frame of [`progress_message`](crate::progress_message) to the start of `buffer` and
/// returns its length.
///
/// # Errors
///
/// As for [`encode_framed`](crate::encode_framed).
pub fn encode_progress(
    op: &str,
    current: u64,
    total: u64,
    percent: u32,
    buffer: &mut [u8],
) -> Result<usize, FrameError> {
    let percent = u64::from(percent);
    let op_len = match op.len() {
        0 => 0,
        len => 1 + varint_len(len as u64) + len,
    };
    let progress = op_len + field_len(current) + field_len(total) + field_len(percent);
    let message = LEVEL.len() + 1 + varint_len(progress as u64) + progress;
    let too_long = FrameError::TooLong(message);
    if message > MAX_MESSAGE_LEN {
        return Err(too_long);
    }
    let header = u16::try_from(message).map_err(|_| too_long)?;
    let frame = buffer.get_mut(..HEADER_LEN + message).ok_or(too_long)?;
    let mut out = Out { rest: frame };
    out.bytes(&header.to_le_bytes());
    out.bytes(&LEVEL);
    out.bytes(&[PROGRESS]);
    out.varint(progress as u64);
    if !op.is_empty() {
        out.bytes(&[OP]);
        out.varint(op.len() as u64);
        out.bytes(op.as_bytes());
    }
    out.field(CURRENT, current);
    out.field(TOTAL, total);
    out.field(PERCENT, percent);
    Ok(HEADER_LEN + message)
}

/// The rest of a frame whose length was computed before.
struct Out<'a> {
    rest: &'a mut [u8],
}

impl Out<'_> {
    fn bytes(&mut self, bytes: &[u8]) {
        // Byte by byte: what is written is shorter than a call of memcpy is long.
        for &byte in bytes {
            self.byte(byte);
        }
    }

    fn byte(&mut self, byte: u8) {
        if let Some((first, rest)) = core::mem::take(&mut self.rest).split_first_mut() {
            *first = byte;
            self.rest = rest;
        }
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte(0x80 | low_byte(value));
            value >>= 7;
        }
        self.byte(low_byte(value));
    }

    /// A field that is 0 is left out.
    fn field(&mut self, key: u8, value: u64) {
        if value != 0 {
            self.byte(key);
            self.varint(value);
        }
    }
}

const fn field_len(value: u64) -> usize {
    match value {
        0 => 0,
        _ => 1 + varint_len(value),
    }
}

/// Seven bits a byte, and one byte at least.
const fn varint_len(value: u64) -> usize {
    let bits = u64::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

#[allow(clippy::cast_possible_truncation)] // Exactly what it is for.
const fn low_byte(value: u64) -> u8 {
    value as u8
}
