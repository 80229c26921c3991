//! Framing: two bytes of length, little-endian, then the Protocol Buffers message.

use alloc::vec::Vec;
use core::fmt;

use prost::Message;

/// Bytes of length in front of each message.
pub const HEADER_LEN: usize = 2;
/// The longest message that is sent and that a decoder accepts, in bytes: a peer cannot make the
/// decoder hold more. The guest's messages are far shorter; a configuration is filled up to it, if there
/// is so much to say.
pub const MAX_MESSAGE_LEN: usize = 4096;

/// Why a frame could not be made or taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The message is longer than the buffer or than [`MAX_MESSAGE_LEN`]; its length in bytes.
    TooLong(usize),
    /// The bytes of a whole frame are not a message of the schema.
    Malformed,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(len) => write!(
                f,
                "a frame of {len} bytes is longer than the {MAX_MESSAGE_LEN} that are allowed"
            ),
            Self::Malformed => write!(f, "a frame does not hold a valid Protocol Buffers message"),
        }
    }
}

impl core::error::Error for FrameError {}

/// Writes `message` as a frame to the start of `buffer` and returns the frame's length.
///
/// # Errors
///
/// [`FrameError::TooLong`] if `buffer` is too short or the message exceeds [`MAX_MESSAGE_LEN`].
pub fn encode_framed<M: Message>(message: &M, buffer: &mut [u8]) -> Result<usize, FrameError> {
    let len = message.encoded_len();
    let too_long = FrameError::TooLong(len);
    if len > MAX_MESSAGE_LEN || HEADER_LEN + len > buffer.len() {
        return Err(too_long);
    }
    let header = u16::try_from(len).map_err(|_| too_long)?;
    let (length, mut body) = buffer.split_at_mut(HEADER_LEN);
    length.copy_from_slice(&header.to_le_bytes());
    message.encode(&mut body).map_err(|_| too_long)?;
    Ok(HEADER_LEN + len)
}

/// Takes a stream of bytes apart into the messages that it carries, however it is split. They are of
/// any one type, a [`GuestMessage`](crate::GuestMessage) for one.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    buffer: Vec<u8>,
}

impl FrameDecoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub const fn new() -> Self {
        Self { buffer: Vec::new() }
    }

    /// Takes `bytes` and hands each message that they complete to `sink`, in order. Holds one
    /// incomplete frame at the most.
    ///
    /// # Errors
    ///
    /// The first fault ends the stream: where the next frame would start is not known. Messages
    /// before it have been handed on.
    pub fn push<M: Message + Default>(
        &mut self,
        mut bytes: &[u8],
        mut sink: impl FnMut(M),
    ) -> Result<(), FrameError> {
        loop {
            if self.buffer.is_empty()
                && let Some((frame, rest)) = whole_frame(bytes)
            {
                bytes = rest;
                sink(decode(frame)?);
                continue;
            }
            let wanted = self.frame_len()?;
            let (taken, rest) = bytes.split_at(bytes.len().min(wanted - self.buffer.len()));
            self.buffer.extend_from_slice(taken);
            bytes = rest;
            if self.buffer.len() < wanted {
                return Ok(());
            }
            // A frame of no bytes at all is a complete message whose fields are all absent.
            if wanted > HEADER_LEN || self.frame_len()? == HEADER_LEN {
                let message = decode(&self.buffer[HEADER_LEN..])?;
                self.buffer.clear();
                sink(message);
            }
        }
    }

    /// Whether a frame has begun and not ended.
    #[must_use]
    pub fn is_mid_frame(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// How long the buffer must become before something can be done with it.
    fn frame_len(&self) -> Result<usize, FrameError> {
        let [low, high, ..] = self.buffer[..] else {
            return Ok(HEADER_LEN);
        };
        let len = usize::from(u16::from_le_bytes([low, high]));
        if len > MAX_MESSAGE_LEN {
            return Err(FrameError::TooLong(len));
        }
        Ok(HEADER_LEN + len)
    }
}

/// The message of the frame that `bytes` begin with, if all of it is there, and what follows: it
/// need not be copied to be decoded.
fn whole_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>()?;
    let len = usize::from(u16::from_le_bytes(*header));
    if len > MAX_MESSAGE_LEN {
        return None;
    }
    rest.split_at_checked(len)
}

fn decode<M: Message + Default>(message: &[u8]) -> Result<M, FrameError> {
    M::decode(message).map_err(|_| FrameError::Malformed)
}
