//! A stream of bytes from a guest, made of frames, bent and cut frames and anything else, and the
//! pieces that it may arrive in.

use arbitrary::{Result, Unstructured};
use guest_protocol::{GuestMessage, MAX_MESSAGE_LEN, encode_framed};

use super::encoder::Encoder;

const MAX_PIECES: usize = 64;
const MAX_REPEATS: usize = 1 << 11;
/// Enough for debug text to be a flood: a line that is empty is shown as nine bytes. The other
/// limits are reached with less.
const MAX_STREAM: usize = 8 << 10;
/// A stream is cut into so many pieces at most: a short one into single bytes.
const MAX_CUTS: usize = 512;

/// Sizes of the pieces in which a stream arrives.
pub fn cuts(u: &mut Unstructured<'_>) -> Result<Vec<usize>> {
    let mut cuts = Vec::new();
    for _ in 0..u.int_in_range(0..=8u8)? {
        cuts.push(u.int_in_range(0..=300usize)?);
    }
    Ok(cuts)
}

/// Frames of what `message` makes, and what is nearly that.
pub fn stream<'a>(
    u: &mut Unstructured<'a>,
    mut message: impl FnMut(&mut Unstructured<'a>) -> Result<GuestMessage>,
) -> Result<Vec<u8>> {
    let mut stream = Vec::new();
    let mut piece = Vec::new();
    for _ in 0..MAX_PIECES {
        if u.is_empty() || stream.len() > MAX_STREAM {
            break;
        }
        make_piece(u, &mut message, &mut piece)?;
        let repeats = match u.arbitrary::<u8>()? {
            255 => u.int_in_range(0..=MAX_REPEATS)?,
            _ => 1,
        };
        let room = MAX_STREAM.saturating_sub(stream.len());
        for _ in 0..repeats.min(room.div_ceil(piece.len().max(1))) {
            stream.extend_from_slice(&piece);
        }
    }
    stream.truncate(MAX_STREAM);
    Ok(stream)
}

fn make_piece<'a>(
    u: &mut Unstructured<'a>,
    message: &mut impl FnMut(&mut Unstructured<'a>) -> Result<GuestMessage>,
    piece: &mut Vec<u8>,
) -> Result<()> {
    piece.clear();
    let choice = u.int_in_range(0..=7u8)?;
    if choice == 0 {
        let len = u.int_in_range(0..=128)?.min(u.len());
        piece.extend_from_slice(u.bytes(len)?);
        return Ok(());
    }
    let message = message(u)?;
    piece.resize(2 + MAX_MESSAGE_LEN, 0);
    let len = encode_framed(&message, piece).unwrap_or(0);
    piece.truncate(len);
    if choice == 1 && !piece.is_empty() {
        let at = u.int_in_range(0..=len - 1)?;
        piece[at] = u.arbitrary()?;
    }
    if choice == 2 {
        piece.truncate(u.int_in_range(0..=len)?);
    }
    Ok(())
}

/// `stream` cut into pieces of the sizes `cuts`, over and over; into single bytes if none is > 0.
/// A long stream is cut into longer pieces.
pub fn pieces<'a>(mut stream: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let least = stream.len() / MAX_CUTS;
    let advances = least > 0 || cuts.iter().any(|&cut| cut > 0);
    let cuts = match cuts {
        [] => &[1],
        _ if !advances => &[1],
        cuts => cuts,
    };
    let mut pieces = Vec::new();
    for &cut in cuts.iter().cycle() {
        if stream.is_empty() {
            break;
        }
        let (piece, rest) = stream.split_at(cut.max(least).min(stream.len()));
        pieces.push(piece);
        stream = rest;
    }
    pieces
}

/// The frames of `messages`, one behind the other.
pub fn frames(messages: &[GuestMessage]) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut frame = [0; 2 + MAX_MESSAGE_LEN];
    for message in messages {
        let len = encode_framed(message, &mut frame).unwrap();
        stream.extend_from_slice(&frame[..len]);
    }
    stream
}

/// Writes what [`cuts`] reads.
pub fn encode_cuts(bytes: &mut Encoder, cuts: &[u64]) {
    bytes.int(cuts.len() as u64, 0..=8);
    for &cut in cuts {
        bytes.int(cut, 0..=300);
    }
}

/// Writes what [`stream`] reads as these bytes.
pub fn encode_stream(bytes: &mut Encoder, stream: &[u8]) {
    for piece in stream.chunks(128) {
        bytes.int(0, 0..=7);
        bytes.int(piece.len() as u64, 0..=128);
        bytes.raw(piece);
        bytes.byte(1);
    }
}
