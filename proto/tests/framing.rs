//! Framing: whatever is sent arrives, however the stream is split, and whatever arrives ends in
//! messages or in an error.
#![allow(clippy::unwrap_used)]

use guest_protocol::{
    FrameDecoder, FrameError, GuestMessage, HEADER_LEN, MAX_MESSAGE_LEN, capacity_message,
    complete_message, encode_framed, encode_progress, error_message, init_message,
    progress_message,
};
use proptest::prelude::*;

/// Up to `most` of the characters in `from`. Not a regular expression, which takes Miri minutes.
fn text(from: &'static [u8], most: usize) -> impl Strategy<Value = String> {
    let character = prop::sample::select(from).prop_map(char::from);
    prop::collection::vec(character, 0..=most).prop_map(String::from_iter)
}

fn messages() -> impl Strategy<Value = GuestMessage> {
    let text = || text(b"abcdefghijklmnopqrstuvwxyz0123456789 ", 40);
    prop_oneof![
        (text(), text(), any::<u64>())
            .prop_map(|(stage, device, n)| init_message(&stage, &device, n)),
        (text(), any::<u64>(), any::<u64>())
            .prop_map(|(device, a, b)| capacity_message(&device, a, b)),
        (text(), any::<u64>(), any::<u64>(), any::<u32>()).prop_map(
            |(op, current, total, percent)| progress_message(&op, current, total, percent)
        ),
        (text(), text(), any::<u64>(), any::<u32>(), text()).prop_map(
            |(op, device, n, status, detail)| { error_message(&op, &device, n, status, &detail) }
        ),
        (text(), any::<u64>(), any::<bool>())
            .prop_map(|(op, n, done)| complete_message(&op, n, done)),
        // A message without any content is a frame of length 0.
        Just(GuestMessage::default()),
    ]
}

/// Numbers of every length.
fn uint64() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64_u32).prop_map(|(number, shift)| number >> shift)
}

fn encode(messages: &[GuestMessage]) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut frame = vec![0; HEADER_LEN + MAX_MESSAGE_LEN];
    for message in messages {
        let len = encode_framed(message, &mut frame).unwrap();
        stream.extend_from_slice(&frame[..len]);
    }
    stream
}

/// What a stream amounts to if it arrives in pieces of these sizes, over and over.
fn decode(stream: &[u8], sizes: &[usize]) -> (Vec<GuestMessage>, Option<FrameError>, bool) {
    let (mut decoder, mut messages) = (FrameDecoder::new(), Vec::new());
    let mut rest = stream;
    for size in sizes.iter().cycle() {
        let (piece, behind) = rest.split_at(rest.len().min(*size));
        if let Err(error) = decoder.push(piece, |message| messages.push(message)) {
            return (messages, Some(error), false);
        }
        rest = behind;
        if rest.is_empty() {
            break;
        }
    }
    (messages, None, decoder.is_mid_frame())
}

proptest! {
    #[test]
    fn what_is_sent_arrives_however_it_is_split(
        sent in prop::collection::vec(messages(), 0..20),
        sizes in prop::collection::vec(1..50_usize, 1..10),
    ) {
        prop_assert_eq!(decode(&encode(&sent), &sizes), (sent, None, false));
    }

    #[test]
    fn a_progress_frame_made_by_hand_is_the_generated_codes_byte_for_byte(
        op in text(b"abcdefghijklmnopqrstuvwxyz", 300),
        current in uint64(),
        total in uint64(),
        percent in prop_oneof![0..=100_u32, any::<u32>()],
        room in 0..400_usize,
    ) {
        let message = progress_message(&op, current, total, percent);
        let (mut expected, mut found) = (vec![0xaa; room], vec![0xaa; room]);
        let generated = encode_framed(&message, &mut expected);
        prop_assert_eq!(encode_progress(&op, current, total, percent, &mut found), generated);
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn a_stream_that_is_cut_off_gives_the_messages_before_and_says_so(
        sent in prop::collection::vec(messages(), 1..10),
        rest in any::<prop::sample::Index>(),
    ) {
        let stream = encode(&sent);
        // Of the last frame at least a byte is there, and at least one is not.
        let whole = encode(&sent[..sent.len() - 1]).len();
        let rest = 1 + rest.index(stream.len() - whole - 1);
        let (received, error, mid_frame) = decode(&stream[..whole + rest], &[7]);
        prop_assert_eq!(&received[..], &sent[..sent.len() - 1]);
        prop_assert_eq!((error, mid_frame), (None, true));
    }

    #[test]
    fn any_bytes_give_the_same_however_they_are_split(
        stream in prop::collection::vec(prop_oneof![any::<u8>(), 0..3_u8], 0..300),
        sizes in prop::collection::vec(1..50_usize, 1..10),
    ) {
        prop_assert_eq!(decode(&stream, &sizes), decode(&stream, &[stream.len().max(1)]));
    }
}

#[test]
fn a_frame_that_is_too_long_is_refused_before_it_has_arrived() {
    let header = u16::try_from(MAX_MESSAGE_LEN + 1).unwrap().to_le_bytes();
    let (messages, error, _) = decode(&header, &[1]);
    assert_eq!(error, Some(FrameError::TooLong(MAX_MESSAGE_LEN + 1)));
    assert!(messages.is_empty());
}

#[test]
fn a_message_that_does_not_fit_is_not_half_written() {
    let message = init_message("probe", "input", 1);
    let mut small = [0xaa; 8];
    assert!(matches!(
        encode_framed(&message, &mut small),
        Err(FrameError::TooLong(_))
    ));
    assert_eq!(small, [0xaa; 8]);
}
