//! A stream of bytes from the guest, made of frames, parts of frames and anything else, through
//! the frame decoder, the session over either protocol, and the debug lines.

use std::cell::Cell;

use arbitrary::{Result, Unstructured};
use guest_protocol::{
    FrameDecoder, FrameError, GuestMessage, MAX_MESSAGE_LEN, capacity_message, complete_message,
    error_message, init_message, progress_message,
};
use vmm::config::Protocol;
use vmm::operations::copy::Session;
use vmm::report::{DEBUG_PREFIX, DebugLines, MAX_DEBUG, message_line, message_object};
use vmm::runtime::ReportSource;

use super::super::framed;

/// Plain text is only counted, so that each byte can stand for more and a stream be a flood.
const TEXT_SCALE: usize = 16;
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
/// How many input sectors a copy may have.
pub const SECTORS: [u64; 5] = [0, 1, 50, 1000, u64::MAX];

/// What came of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Messages that were shown.
    pub messages: usize,
    /// Whether the conversation amounts to a success.
    pub success: bool,
}

pub fn run(u: &mut Unstructured<'_>) -> Result<Heard> {
    let cuts = framed::cuts(u)?;
    let sectors = *u.choose(&SECTORS)?;
    let stream = framed::stream(u, |u| message(u, sectors))?;
    let split = framed::pieces(&stream, &cuts);
    decoder(&stream, &split);
    text(sectors, &stream, &split);
    debug_lines(&stream, &split);
    Ok(session(sectors, &stream, &split))
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

thread_local! {
    /// Kept from input to input: empty messages alone can make it a megabyte long.
    static MESSAGES: Cell<Vec<GuestMessage>> = const { Cell::new(Vec::new()) };
}

fn decoder(stream: &[u8], split: &[&[u8]]) {
    let mut messages = MESSAGES.take();
    messages.clear();
    let whole = decode(&[stream], |message| messages.push(message));
    let mut expected = messages.iter();
    let end = decode(split, |message| {
        let expected = expected.next();
        assert_eq!(Some(&message), expected, "frames depend on how they arrive");
    });
    assert_eq!(expected.next(), None, "a frame is lost by how it arrives");
    assert_eq!(whole, end, "the end depends on how frames arrive");
    MESSAGES.set(messages);
}

/// Hands the messages in what arrives to `take`; the error, or whether a frame is incomplete at the
/// end.
fn decode(
    pieces: &[&[u8]],
    mut take: impl FnMut(GuestMessage),
) -> std::result::Result<bool, FrameError> {
    let mut decoder = FrameDecoder::new();
    let mut len = 0;
    for piece in pieces {
        decoder.push(piece, &mut take)?;
        len += piece.len();
    }
    if len > 2 + MAX_MESSAGE_LEN {
        // Each byte that is held takes five characters at most.
        let held = format!("{decoder:?}").len();
        assert!(
            held < 5 * (2 + MAX_MESSAGE_LEN) + 100,
            "more than a frame is held"
        );
    }
    Ok(decoder.is_mid_frame())
}

/// A session of messages.
fn session(sectors: u64, stream: &[u8], split: &[&[u8]]) -> Heard {
    let whole = converse(sectors, &[stream], show_and_check);
    let split = converse(sectors, split, show);
    assert_eq!(
        whole.1, split.1,
        "a session depends on how its bytes arrive"
    );
    assert!(
        whole.0 == split.0,
        "what is shown depends on how it arrives"
    );
    Heard {
        messages: whole.0.lines().count(),
        success: whole.1.is_ok(),
    }
}

/// What a session shows, and its first error or its verdict.
fn converse(
    sectors: u64,
    pieces: &[&[u8]],
    show: fn(&GuestMessage, &mut String),
) -> (String, std::result::Result<(), String>) {
    let mut session = Session::new(Protocol::Protobuf, sectors);
    let mut shown = String::new();
    let mut lines = 0;
    for piece in pieces {
        let result = session.receive(ReportSource::Serial, piece, |message| {
            lines += 1;
            show(message, &mut shown);
        });
        if let Err(error) = result {
            return (shown, Err(error.to_string()));
        }
    }
    assert!(lines <= MAX_LINES.saturating_add(sectors), "{lines} lines");
    let verdict = session.verdict();
    let complaint = session.complaint();
    assert!(verdict.is_ok() || complaint.is_some(), "nothing is said");
    (shown, verdict)
}

/// Adds the line for `message`.
fn show(message: &GuestMessage, shown: &mut String) {
    shown.push_str(&message_line(message).unwrap_or_default());
    shown.push('\n');
}

/// The same; there is an object as well.
fn show_and_check(message: &GuestMessage, shown: &mut String) {
    let before = shown.len();
    show(message, shown);
    let line = shown[before..].trim_end_matches('\n');
    assert!(line.len() <= MAX_LINE && !line.contains(char::is_control));
    let object = message_object(message).unwrap_or_default();
    assert!(object.len() <= MAX_OBJECT && object.ends_with("}\n"));
}

/// A session of plain text, which is shown until there is too much of it.
fn text(sectors: u64, stream: &[u8], split: &[&[u8]]) {
    let whole = show_text(sectors, &[stream]);
    assert_eq!(
        whole.is_ok(),
        show_text(sectors, split).is_ok(),
        "a flood depends on how it arrives"
    );
}

/// How much of a text is shown; an error if not all of it.
fn show_text(sectors: u64, pieces: &[&[u8]]) -> std::result::Result<(), u64> {
    let limit = MAX_TEXT.saturating_add(sectors.saturating_mul(64));
    let mut session = Session::new(Protocol::Text, sectors);
    let mut shown = 0;
    for piece in pieces {
        let len = piece.len() * TEXT_SCALE;
        if session.take_text(len).is_err() {
            return Err(shown);
        }
        shown += len as u64;
        assert!(shown <= limit, "a flood of text is shown");
    }
    assert!(session.verdict().is_ok() && session.complaint().is_none());
    Ok(())
}

fn debug_lines(stream: &[u8], split: &[&[u8]]) {
    let whole = collect_lines(&[stream]);
    assert!(
        whole == collect_lines(split),
        "lines depend on how they arrive"
    );
    let mut lines = 0;
    for line in whole.split_terminator('\n') {
        assert!(line.len() <= MAX_LINE && !line.contains(char::is_control));
        lines += 1;
    }
    assert!(lines <= MAX_DEBUG_LINES + KEPT_DEBUG_LINES);
}

/// The lines that are printed, and behind them the last ones.
fn collect_lines(pieces: &[&[u8]]) -> String {
    let mut debug = DebugLines::default();
    let mut printed = String::new();
    let mut add = |line: &str| {
        printed.push_str(line);
        printed.push('\n');
    };
    for piece in pieces {
        debug.push(piece, &mut add);
    }
    debug.finish(&mut add);
    assert!(debug.last().count() <= KEPT_DEBUG_LINES);
    debug.last().for_each(add);
    printed
}
