//! How a session of any operation takes the frames of its guest.

use guest_protocol::{FrameDecoder, FrameError, GuestMessage};

/// Takes frames, however they are split, and hands each message to `take`, up to the first that it
/// refuses.
///
/// # Errors
///
/// The first breach of the protocol, which ends the conversation.
pub(super) fn receive<E: From<FrameError>>(
    decoder: &mut FrameDecoder,
    bytes: &[u8],
    mut take: impl FnMut(GuestMessage) -> Result<(), E>,
) -> Result<(), E> {
    let mut result = Ok(());
    let frames = decoder.push(bytes, |message| {
        if result.is_ok() {
            result = take(message);
        }
    });
    // A message is checked before the frame behind it is looked at: its fault is the first.
    result?;
    Ok(frames?)
}
