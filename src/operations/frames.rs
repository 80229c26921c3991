//! How a session of any operation takes the frames of its guest.

use guest_protocol::{FrameDecoder, GuestMessage};

use super::session::ProtocolError;

/// Takes frames of which `session` has the decoder, however they are split, and hands each message to
/// `take`, up to the first that it refuses.
///
/// # Errors
///
/// The first breach of the protocol, which ends the conversation.
pub(super) fn receive<S>(
    session: &mut S,
    decoder: impl Fn(&mut S) -> &mut FrameDecoder,
    bytes: &[u8],
    mut take: impl FnMut(&mut S, GuestMessage) -> Result<(), ProtocolError>,
) -> Result<(), ProtocolError> {
    let mut result = Ok(());
    // It is taken out meanwhile, since each message changes the session that it lies in.
    let mut taken = std::mem::take(decoder(session));
    let frames = taken.push(bytes, |message| {
        if result.is_ok() {
            result = take(session, message);
        }
    });
    *decoder(session) = taken;
    // A message is checked before the frame behind it is looked at: its fault is the first.
    result?;
    Ok(frames?)
}
