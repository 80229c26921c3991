//! Measures what is done for disk images: holes that are kept, beside `cp --sparse=always` and
//! `qemu-img convert`, and a digest that is computed while the copy is made, beside
//! `openssl dgst -sha256` alone.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::figures::{GIB, KIB, median, seconds};
use crate::program::{answers, installed};
use crate::run::{MeasureError, Runner, Sample};
use crate::settings::Settings;
use crate::table::{Target, markdown, targets};
use crate::workspace::remove;

/// Copy and digest together, of the digest's time alone.
const WITH_DIGEST: f64 = 1.15;
/// Runs are short: more of them cost nothing and make the median steadier. Those of a file without data
/// take milliseconds.
const RUNS_FACTOR: u32 = 3;
const EMPTY_RUNS_FACTOR: u32 = 10;
/// The unit of a file's blocks (stat(2)).
const BLOCK: u64 = 512;

/// An input with holes.
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) length: u64,
    /// How many pieces of data there are, all alike and evenly spread.
    pub(crate) pieces: u64,
    /// Bytes of each.
    pub(crate) piece: u64,
}

impl Shape {
    /// How often each command is run on it.
    fn runs(&self, settings: &Settings) -> u32 {
        settings.runs.saturating_mul(match self.pieces {
            0 => EMPTY_RUNS_FACTOR,
            _ => RUNS_FACTOR,
        })
    }
}

const SHAPES: [Shape; 3] = [
    Shape {
        name: "10 GiB with 1 % of data, in pieces of 64 KiB",
        length: 10 * GIB,
        pieces: 1600,
        piece: 64 * KIB,
    },
    Shape {
        name: "10 GiB with 1 % of data, in pieces of 4 KiB",
        length: 10 * GIB,
        pieces: 25_600,
        piece: 4 * KIB,
    },
    Shape {
        name: "8 TiB with nothing",
        length: 8 << 40,
        pieces: 0,
        piece: 0,
    },
];

/// A command line, and what came of it.
struct Contender {
    name: String,
    words: Vec<OsString>,
    samples: Vec<Sample>,
    /// Blocks of 512 bytes that its output takes.
    blocks: Option<u64>,
}

impl Contender {
    fn new(name: &str, program: &Path, words: &str) -> Self {
        let words = words.split_whitespace().map(OsString::from);
        Self {
            name: name.to_owned(),
            words: [program.into()].into_iter().chain(words).collect(),
            samples: Vec::new(),
            blocks: None,
        }
    }

    fn middle(&self, figure: fn(&Sample) -> f64) -> Option<f64> {
        median(self.samples.iter().map(figure))
    }

    fn row(&self) -> [String; 5] {
        let time = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), seconds);
        let blocks = self.blocks.map(|blocks| blocks.to_string());
        let words = self.words.iter().skip(1).map(|word| word.to_string_lossy());
        [
            self.name.clone(),
            words.collect::<Vec<_>>().join(" "),
            time(self.middle(|sample| sample.wall)),
            time(self.middle(|sample| sample.cpu)),
            blocks.unwrap_or_else(|| "–".to_owned()),
        ]
    }
}

/// Runs all of it.
///
/// # Errors
///
/// Which command failed or copied wrongly, and why.
pub(crate) fn measure(runner: &Runner, settings: &Settings) -> Result<String, MeasureError> {
    let (mut verdicts, mut rows) = (Vec::new(), Vec::new());
    for shape in &SHAPES {
        let input = runner.workspace.path("sparse");
        // A file system may not have such files at all.
        if let Err(error) = make(&input, shape) {
            eprintln!("not measured, {}: {error}", shape.name);
            continue;
        }
        let mut contenders = copies(runner);
        in_turns(runner, shape.runs(settings), &mut contenders, &input, true)?;
        verdicts.extend(sparse_targets(shape, &contenders));
        rows.extend(
            contenders
                .iter()
                .map(|contender| with_case(shape.name, contender)),
        );
        remove(&input).map_err(failed("remove the input"))?;
    }
    let input = runner.workspace.input(settings.bytes);
    let input = input.map_err(failed("make the input"))?;
    let mut contenders = digests(runner);
    in_turns(runner, settings.runs, &mut contenders, &input, false)?;
    verdicts.extend(digest_target(&contenders));
    rows.extend(
        contenders
            .iter()
            .map(|contender| with_case("a digest", contender)),
    );
    Ok(format!(
        "## Disk images\n\n{}\nThe inputs with holes are sparse files, each command {} times in \
         turns, and {} times where there is no data; the digest is of {} of random bytes, each {} \
         times. Blocks have 512 bytes.\n\n{}",
        targets(&verdicts),
        settings.runs.saturating_mul(RUNS_FACTOR),
        settings.runs.saturating_mul(EMPTY_RUNS_FACTOR),
        crate::figures::bytes(settings.bytes),
        settings.runs,
        markdown(
            ["case", "command", "options", "median", "CPU", "blocks"],
            &rows
        ),
    ))
}

fn with_case(case: &str, contender: &Contender) -> [String; 6] {
    let [name, words, wall, cpu, blocks] = contender.row();
    [case.to_owned(), name, words, wall, cpu, blocks]
}

/// The VMM first, then the others.
fn copies(runner: &Runner) -> Vec<Contender> {
    let mut contenders = vec![
        Contender::new("vmm", &runner.vmm, "--progress-percent 100"),
        Contender::new("cp", "cp".as_ref(), "--sparse=always"),
    ];
    if installed("qemu-img") {
        let words = "convert -f raw -O raw";
        contenders.push(Contender::new("qemu-img", "qemu-img".as_ref(), words));
    }
    contenders
}

fn digests(runner: &Runner) -> Vec<Contender> {
    let words = "--digest sha256 --progress-percent 100 --input-sector-size 65536 \
                 --output-sector-size 65536";
    let mut contenders = vec![Contender::new("vmm", &runner.vmm, words)];
    // It has a command for that and no option.
    if answers("openssl", "version") {
        let words = "dgst -sha256";
        contenders.push(Contender::new("openssl", "openssl".as_ref(), words));
    }
    contenders
}

/// Runs each as often, all once and then all once more. Those that `copy` get a second path, and
/// what the first run of each makes there is looked at.
fn in_turns(
    runner: &Runner,
    runs: u32,
    contenders: &mut [Contender],
    input: &Path,
    copy: bool,
) -> Result<(), MeasureError> {
    let output = runner.workspace.path("output");
    let data = fs::metadata(input).map_err(failed("look at the input"))?;
    let data = data.blocks() * BLOCK;
    for _ in 0..runs {
        for contender in &mut *contenders {
            remove(&output).map_err(failed("remove the output"))?;
            let mut words = contender.words.iter();
            let mut command = Command::new(words.next().map_or(PathBuf::new(), PathBuf::from));
            command.args(words).arg(input);
            if copy || contender.name == "vmm" {
                command.arg(&output);
            }
            let prepared = runner.workspace.prepare(data);
            prepared.map_err(failed("get memory ready"))?;
            let sample = runner.time(&contender.name, &mut command)?;
            if copy && contender.samples.is_empty() {
                if !same_data(input, &output).map_err(failed("compare the output"))? {
                    return Err(MeasureError::Differs(contender.name.clone()));
                }
                // What the file system puts off is in its count of blocks only afterwards.
                rustix::fs::sync();
                let found = fs::metadata(&output).map_err(failed("look at the output"))?;
                contender.blocks = Some(found.blocks());
            }
            contender.samples.push(sample);
        }
    }
    remove(&output).map_err(failed("remove the output"))
}

fn sparse_targets(shape: &Shape, contenders: &[Contender]) -> Vec<Target> {
    let Some((vmm, others)) = contenders.split_first() else {
        return Vec::new();
    };
    let wall = |contender: &Contender| contender.middle(|sample| sample.wall);
    let mut list: Vec<_> = others
        .iter()
        .map(|other| {
            let ratio = wall(vmm).zip(wall(other)).map(|(left, right)| left / right);
            let words = other.words.iter().map(|word| word.to_string_lossy());
            let line = format!("`{}`", words.collect::<Vec<_>>().join(" "));
            Target::ratio(shape.name, &line, 1.0, ratio)
        })
        .collect();
    let fewest = others.iter().filter_map(|other| other.blocks).min();
    list.push(Target::absolute(
        &format!("{}: room that the copy takes", shape.name),
        fewest.map_or(f64::NAN, |blocks| (blocks * BLOCK) as f64),
        vmm.blocks.map(|blocks| (blocks * BLOCK) as f64),
        |value| format!("{value:.0} B"),
    ));
    list
}

fn digest_target(contenders: &[Contender]) -> Option<Target> {
    let (vmm, others) = contenders.split_first()?;
    let wall = |contender: &Contender| contender.middle(|sample| sample.wall);
    let alone = others.first().and_then(wall);
    Some(Target::ratio(
        "a copy with `--digest sha256`",
        "`openssl dgst -sha256` alone",
        WITH_DIGEST,
        wall(vmm).zip(alone).map(|(left, right)| left / right),
    ))
}

/// Makes the input anew, in the page cache and written back.
pub(crate) fn make(path: &Path, shape: &Shape) -> io::Result<()> {
    remove(path)?;
    let file = File::create_new(path)?;
    file.set_len(shape.length)?;
    let mut random = File::open("/dev/urandom")?;
    for piece in 0..shape.pieces {
        let at = piece * (shape.length / shape.pieces);
        let at = at - at % (4 * KIB);
        let mut bytes = vec![0; usize::try_from(shape.piece).map_err(io::Error::other)?];
        io::Read::read_exact(&mut random, &mut bytes)?;
        file.write_all_at(&bytes, at)?;
    }
    file.sync_all()
}

/// Whether two files have the same bytes: where either has data they are compared, and elsewhere
/// both are holes.
pub(crate) fn same_data(left: &Path, right: &Path) -> io::Result<bool> {
    let (left, right) = (File::open(left)?, File::open(right)?);
    let length = left.metadata()?.len();
    Ok(length == right.metadata()?.len()
        && same_where(&left, &right, length)?
        && same_where(&right, &left, length)?)
}

/// Whether `other` has the bytes of `file` where that has data.
fn same_where(file: &File, other: &File, length: u64) -> io::Result<bool> {
    let (mut first, mut second) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut at = 0;
    loop {
        at = match seek(file, SeekFrom::Data(at)) {
            Ok(start) if start < length => start,
            Ok(_) | Err(Errno::NXIO) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        };
        let end = seek(file, SeekFrom::Hole(at))?.min(length);
        while at < end {
            let size = usize::try_from(end - at).map_or(first.len(), |left| left.min(first.len()));
            file.read_exact_at(&mut first[..size], at)?;
            other.read_exact_at(&mut second[..size], at)?;
            if first[..size] != second[..size] {
                return Ok(false);
            }
            at += size as u64;
        }
    }
}

fn failed(what: &str) -> impl FnOnce(io::Error) -> MeasureError {
    let what = what.to_owned();
    move |error| MeasureError::Io { what, error }
}
