//! A stream of bytes from the guest, made of frames, parts of frames and anything else, through
//! the frame decoder, the session over either protocol, and the debug lines.

use arbitrary::{Result, Unstructured};
use guest_protocol::{
    FrameDecoder, FrameError, GuestMessage, MAX_MESSAGE_LEN, capacity_message, complete_message,
    encode_framed, error_message, init_message, progress_message,
};
use vmm::config::Protocol;
use vmm::operations::copy::Session;
use vmm::report::{DEBUG_PREFIX, DebugLines, MAX_DEBUG, message_line, message_object};
use vmm::runtime::Source;

const MAX_PIECES: usize = 64;
/// Enough for a text session with few sectors to be a flood.
const MAX_REPEATS: usize = 1 << 11;
const MAX_STREAM: usize = 80 << 10;
/// No line is longer: a message has three strings of 128 characters, each escaped to ten at most.
const MAX_LINE: usize = 8 << 10;
/// How many lines other than progress a session shows at most.
const MAX_LINES: u64 = 64;
/// What a text session may send beside 64 bytes a sector.
const MAX_TEXT: u64 = 64 << 10;
/// And how long an object for programs is, which cuts no string.
const MAX_OBJECT: usize = 8 << 10;
/// The shortest line of debug text has its prefix and its end; one more says that there were more.
const MAX_DEBUG_LINES: usize = MAX_DEBUG / (DEBUG_PREFIX.len() + 1) + 1;
const KEPT_DEBUG_LINES: usize = 8;

pub fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let sectors = *u.choose(&[0, 1, 50, 1000, u64::MAX])?;
    let stream = stream(u, sectors)?;
    let mut cuts = Vec::new();
    for _ in 0..u.int_in_range(0..=32u8)? {
        cuts.push(u.int_in_range(0..=300usize)?);
    }
    let split = pieces(&stream, &cuts);
    decoder(&stream, &split);
    session(Protocol::Protobuf, sectors, &stream, &split);
    session(Protocol::Text, sectors, &stream, &split);
    debug_lines(&stream, &split);
    Ok(())
}

fn stream(u: &mut Unstructured<'_>, sectors: u64) -> Result<Vec<u8>> {
    let mut stream = Vec::new();
    for _ in 0..MAX_PIECES {
        if u.is_empty() || stream.len() > MAX_STREAM {
            break;
        }
        let piece = piece(u, sectors)?;
        let repeats = match u.arbitrary::<u8>()? {
            255 => u.int_in_range(0..=MAX_REPEATS)?,
            _ => 1,
        };
        for _ in 0..repeats {
            stream.extend_from_slice(&piece);
        }
    }
    stream.truncate(MAX_STREAM);
    Ok(stream)
}

fn piece(u: &mut Unstructured<'_>, sectors: u64) -> Result<Vec<u8>> {
    let choice = u.int_in_range(0..=7u8)?;
    if choice == 0 {
        let len = u.int_in_range(0..=128)?.min(u.len());
        return Ok(u.bytes(len)?.to_vec());
    }
    let message = message(u, sectors)?;
    let mut frame = vec![0; 2 + MAX_MESSAGE_LEN];
    let len = encode_framed(&message, &mut frame).unwrap_or(0);
    frame.truncate(len);
    if choice == 1 && !frame.is_empty() {
        let at = u.int_in_range(0..=frame.len() - 1)?;
        frame[at] = u.arbitrary()?;
    }
    if choice == 2 {
        frame.truncate(u.int_in_range(0..=len)?);
    }
    Ok(frame)
}

fn message(u: &mut Unstructured<'_>, sectors: u64) -> Result<GuestMessage> {
    let op: &str = u.arbitrary()?;
    let number = match u.arbitrary::<u8>()? {
        255 => u.arbitrary()?,
        small => u64::from(small),
    };
    let total = if u.ratio(7, 8)? {
        sectors
    } else {
        u.arbitrary()?
    };
    let mut message = match u.int_in_range(0..=7u8)? {
        0 => init_message(op, "input", number),
        1 => capacity_message(op, number, total),
        2..=4 => progress_message(op, number, total, u.arbitrary()?),
        5 => error_message(op, "output", number, u.arbitrary()?, op),
        6 => complete_message(op, number, u.arbitrary()?),
        _ => GuestMessage::default(),
    };
    if u.ratio(1, 16)? {
        message.level = u.arbitrary()?;
    }
    Ok(message)
}

/// `stream` cut into pieces of the sizes `cuts`, over and over; into single bytes if none is > 0.
fn pieces<'a>(mut stream: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let advances = cuts.iter().any(|&cut| cut > 0);
    let cuts = if advances { cuts } else { &[1] };
    let mut pieces = Vec::new();
    for &cut in cuts.iter().cycle() {
        if stream.is_empty() {
            break;
        }
        let (piece, rest) = stream.split_at(cut.min(stream.len()));
        pieces.push(piece);
        stream = rest;
    }
    pieces
}

fn decoder(stream: &[u8], split: &[&[u8]]) {
    let whole = decode(&[stream]);
    assert_eq!(whole, decode(split), "frames depend on how they arrive");
}

/// The messages in what arrives, and the error or whether a frame is incomplete at the end.
fn decode(pieces: &[&[u8]]) -> (Vec<GuestMessage>, Result<bool, FrameError>) {
    let mut decoder = FrameDecoder::new();
    let mut messages = Vec::new();
    for piece in pieces {
        if let Err(error) = decoder.push(piece, |message| messages.push(message)) {
            return (messages, Err(error));
        }
    }
    // Each byte that is held takes five characters at most.
    let held = format!("{decoder:?}").len();
    assert!(
        held < 5 * (2 + MAX_MESSAGE_LEN) + 100,
        "more than a frame is held"
    );
    (messages, Ok(decoder.is_mid_frame()))
}

fn session(protocol: Protocol, sectors: u64, stream: &[u8], split: &[&[u8]]) {
    let whole = converse(protocol, sectors, &[stream]);
    let split = converse(protocol, sectors, split);
    assert_eq!(
        whole.1, split.1,
        "a session depends on how its bytes arrive"
    );
    // Of text, what precedes a flood has been shown if it came first.
    if protocol == Protocol::Protobuf || whole.1.is_ok() {
        assert!(
            whole.0 == split.0,
            "what is shown depends on how it arrives"
        );
    }
}

/// What a session shows, and its first error or its verdict.
fn converse(
    protocol: Protocol,
    sectors: u64,
    pieces: &[&[u8]],
) -> (Vec<u8>, std::result::Result<(), String>) {
    let mut session = Session::new(protocol, sectors);
    let mut shown = Vec::new();
    let mut lines = 0;
    for piece in pieces {
        let result = if protocol == Protocol::Text {
            lines += 1;
            session
                .take_text(piece.len())
                .inspect(|()| shown.extend_from_slice(piece))
        } else {
            session.receive(Source::Serial, piece, |message| {
                lines += 1;
                shown.extend(show(message).into_bytes());
            })
        };
        if let Err(error) = result {
            return (shown, Err(error.to_string()));
        }
    }
    if protocol == Protocol::Protobuf {
        assert!(lines <= MAX_LINES.saturating_add(sectors), "{lines} lines");
    } else {
        let limit = MAX_TEXT.saturating_add(sectors.saturating_mul(64));
        assert!(shown.len() as u64 <= limit, "a flood of text is shown");
    }
    (shown, session.verdict())
}

/// The line for `message`, which has an object as well.
fn show(message: &GuestMessage) -> String {
    let line = message_line(message).unwrap_or_default();
    assert!(line.len() <= MAX_LINE && !line.contains(char::is_control));
    let object = message_object(message).unwrap_or_default();
    assert!(object.len() <= MAX_OBJECT && object.ends_with("}\n"));
    line + "\n"
}

fn debug_lines(stream: &[u8], split: &[&[u8]]) {
    let whole = collect_lines(&[stream]);
    assert!(
        whole == collect_lines(split),
        "lines depend on how they arrive"
    );
    assert!(whole.len() <= MAX_DEBUG_LINES + KEPT_DEBUG_LINES);
    for line in &whole {
        assert!(line.len() <= MAX_LINE && !line.contains(char::is_control));
    }
}

/// The lines that are printed, and behind them the last ones.
fn collect_lines(pieces: &[&[u8]]) -> Vec<String> {
    let mut debug = DebugLines::default();
    let mut printed = Vec::new();
    for piece in pieces {
        debug.push(piece, |line| printed.push(line.to_owned()));
    }
    debug.finish(|line| printed.push(line.to_owned()));
    assert!(debug.last().count() <= KEPT_DEBUG_LINES);
    printed.extend(debug.last().map(str::to_owned));
    printed
}
