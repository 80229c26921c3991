//! What the host makes of a guest that looks into an image, converts one, or copies with a digest:
//! frames of every kind, bent, cut, and split at will. However a stream is split, the same comes of
//! it; what is kept and shown is bounded; and nothing that a guest says becomes a line of its own.

mod message;
pub mod seeds;

use std::path::PathBuf;

use arbitrary::{Result, Unstructured};
use guest_protocol::{GuestMessage, Payload};
use vmm::config::{ImageConfig, ImageTask, OutputFormat, Protocol};
use vmm::operations::inspect::{Answer, FileSize, Verdict};
use vmm::operations::{convert, copy, inspect};
use vmm::quote::is_hidden;
use vmm::report::message_line;
use vmm::runtime::ReportSource;

use super::framed;

/// How many input sectors the copy has.
const SECTORS: u64 = 50;
/// The largest disk that is converted, in bytes.
const LARGEST_DISK: u64 = 16 << 40;
/// The most that may be said of an image: of references, snapshots, findings and problems.
const MOST: [usize; 4] = [16, 256, 64, 64];
/// Lines that an answer has beside those, one for each property of an image.
const MAX_PROPERTIES: usize = 40;
/// How long a line is at most. A frame has up to 4096 bytes, each of which may become an escape; a
/// feature of two bytes becomes a number and a comma.
const MAX_LINE: usize = 64 << 10;
/// How many messages other than progress a copy or a conversion shows at most.
const MAX_MESSAGES: u64 = 128;
const SHA256: usize = 32;

/// What came of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Whether what was said is a whole answer, or a success.
    pub whole: bool,
    /// How long the printed answer is, in lines, or how many messages were shown.
    pub shown: usize,
}

/// Carries `bytes` out as what a guest says.
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
    let setup: u8 = u.arbitrary()?;
    let cuts = framed::cuts(u)?;
    let stream = framed::stream(u, message::take)?;
    let split = framed::pieces(&stream, &cuts);
    let wants_digest = setup & 4 != 0;
    Ok(match setup & 3 {
        0 => look(ImageTask::Info, &stream, &split),
        1 => look(ImageTask::Check, &stream, &split),
        2 => convert(wants_digest, &stream, &split),
        _ => copy(wants_digest, &stream, &split),
    })
}

/// A look into an image.
fn look(task: ImageTask, stream: &[u8], split: &[&[u8]]) -> Heard {
    let listen = |pieces: &[&[u8]]| {
        let mut session = inspect::Session::new(task);
        let receive = |piece: &&[u8]| session.receive(piece).err();
        let end = pieces.iter().find_map(receive);
        // A breach of the protocol ends the run, and then the verdict is not asked for.
        let end = end.map_or_else(|| session.verdict(), |error| Err(error.to_string()));
        (session.answer().cloned(), end)
    };
    let whole = listen(&[stream]);
    assert!(whole == listen(split), "a look depends on how it arrives");
    let (answer, end) = whole;
    assert!(end.is_err() || answer.is_some(), "no answer is whole");
    if let Err(line) = &end {
        assert_line(line);
    }
    Heard {
        whole: end.is_ok(),
        shown: answer.map_or(0, |answer| show(&answer, task)),
    }
}

/// Prints an answer in both ways; how many lines a person sees.
fn show(answer: &Answer, task: ImageTask) -> usize {
    let kept = [
        answer.references.len(),
        answer.snapshots.len(),
        answer.findings.len(),
        answer.problems.len(),
    ];
    assert!(kept.iter().zip(MOST).all(|(kept, most)| *kept <= most));
    let statuses = [answer.verdict(), answer.soundness()].map(Verdict::status);
    assert!(statuses.iter().all(|status| matches!(status, 0 | 5..=7)));
    let mut config = ImageConfig {
        task,
        image: PathBuf::from("image"),
        claimed: None,
        allowed: Vec::new(),
        largest_disk: None,
        format: OutputFormat::Text,
        debug: false,
        timeout: None,
        sandbox: true,
    };
    let file = FileSize {
        length: 1 << 20,
        allocated: 4096,
    };
    let text = answer.shown(&config, file);
    let lines: Vec<_> = text.split_terminator('\n').collect();
    lines.iter().for_each(|line| assert_line(line));
    assert!(lines.len() <= MAX_PROPERTIES + kept.iter().sum::<usize>());
    // A guest says what it likes of an image, but in one place each: of these there is one line.
    for key in ["image: ", "format: ", "file size: ", "verdict: "] {
        let found = lines.iter().filter(|line| line.starts_with(key)).count();
        assert_eq!(found, 1, "{key} in {text}");
    }
    config.format = OutputFormat::Json;
    let object = answer.shown(&config, file);
    let one = object.strip_suffix('\n').unwrap_or_default();
    assert!(one.starts_with('{') && one.ends_with('}'));
    assert!(!one.chars().any(is_hidden), "{one:?}");
    lines.len()
}

/// A conversion.
fn convert(wants_digest: bool, stream: &[u8], split: &[&[u8]]) -> Heard {
    let listen = |pieces: &[&[u8]]| {
        let mut session = convert::Session::new(wants_digest, LARGEST_DISK);
        let mut shown = Shown::default();
        let receive = |piece: &&[u8]| session.receive(piece, |message| shown.add(message)).err();
        let end = pieces.iter().find_map(receive);
        let end = match end {
            Some(error) => Err(error.to_string()),
            None => session.verdict().map_err(|complaint| complaint.text),
        };
        (session.disk(), session.digest(), end, shown)
    };
    let whole = listen(&[stream]);
    assert!(
        whole == listen(split),
        "a conversion depends on how it arrives"
    );
    let (disk, digest, end, shown) = whole;
    shown.check(disk.unwrap_or(0).div_ceil(512));
    if end.is_ok() {
        assert!(disk.is_some(), "a success of a disk without a size");
    }
    shown.heard(end.map(drop), wants_digest, digest.as_deref())
}

/// A copy that may have a digest.
fn copy(wants_digest: bool, stream: &[u8], split: &[&[u8]]) -> Heard {
    let listen = |pieces: &[&[u8]]| {
        let session = copy::Session::new(Protocol::Protobuf, SECTORS);
        let mut session = session.wanting_digest(wants_digest);
        let mut shown = Shown::default();
        let end = pieces.iter().find_map(|piece| {
            let source = ReportSource::Console;
            let result = session.receive(source, piece, |message| shown.add(message));
            result.err()
        });
        let end = end.map_or_else(|| session.verdict(), |error| Err(error.to_string()));
        assert_eq!(session.digest().is_some(), session.digest_ticks().is_some());
        (session.digest(), end, shown)
    };
    let whole = listen(&[stream]);
    assert!(whole == listen(split), "a copy depends on how it arrives");
    let (digest, end, shown) = whole;
    shown.check(SECTORS);
    shown.heard(end, wants_digest, digest.as_deref())
}

/// What a session hands on to be shown.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shown {
    lines: Vec<String>,
    /// Those of them that report no progress.
    others: u64,
}

impl Shown {
    fn add(&mut self, message: &GuestMessage) {
        self.lines.push(message_line(message).unwrap_or_default());
        let is_progress = matches!(message.payload, Some(Payload::Progress(_)));
        self.others += u64::from(!is_progress);
    }

    /// Progress rises, so that there is at most one message for each sector.
    fn check(&self, sectors: u64) {
        self.lines.iter().for_each(|line| assert_line(line));
        assert!(self.others <= MAX_MESSAGES);
        assert!(self.lines.len() as u64 - self.others <= sectors);
    }

    /// A success has a digest if one was wanted, and only then.
    fn heard(
        &self,
        end: std::result::Result<(), String>,
        wants_digest: bool,
        digest: Option<&str>,
    ) -> Heard {
        match &end {
            Ok(()) => assert_eq!(digest.map(str::len), wants_digest.then_some(2 * SHA256)),
            Err(line) => assert_line(line),
        }
        Heard {
            whole: end.is_ok(),
            shown: self.lines.len(),
        }
    }
}

/// A line shows all that is in it, and is no more than one.
fn assert_line(line: &str) {
    assert!(
        line.len() <= MAX_LINE && !line.chars().any(is_hidden),
        "{line:?}"
    );
}
