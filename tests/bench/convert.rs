//! Measures how long a conversion to a raw disk takes: a fresh process each time, with its VM, beside
//! the ways to do the same with `qemu-img convert`.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::figures::{MIB, bytes, mebibytes, median, seconds};
use crate::program::installed;
use crate::run::{MeasureError, Runner, Sample, io_error, peak};
use crate::settings::Settings;
use crate::system;
use crate::table::{Target, markdown, targets};
use crate::workspace::{remove, same, settle};

/// How much of the system's files is in the images, unless less is asked for.
const BYTES: u64 = 512 * MIB;
/// The images that are made of it: what they are called, what `qemu-img convert` is told for it, and
/// what a conversion may take of the time of the fastest other one.
const KINDS: [(&str, &[&str], f64); 3] = [
    ("plain", &[], 1.0),
    ("zlib", &["-c"], 0.65),
    ("zstd", &["-c", "-o", "compression_type=zstd"], 0.9),
];
/// The ways of `qemu-img convert`: one request after the other, four, and sixteen out of order.
const WAYS: [&[&str]; 3] = [&[], &["-W", "-m", "4"], &["-W", "-m", "16"]];
/// What an empty disk of 8 TiB may take, in seconds.
const EMPTY: f64 = 0.2;

/// One image, and the programs that convert it.
struct Group {
    name: String,
    image: PathBuf,
    /// Bytes that the disk has, if there is anything in it.
    length: u64,
    cases: Vec<Case>,
}

struct Case {
    name: String,
    program: PathBuf,
    words: Vec<&'static str>,
    samples: Vec<Sample>,
}

/// Runs all of it.
///
/// # Errors
///
/// Which command failed or converted wrongly, and why.
pub(crate) fn measure(runner: &Runner, settings: &Settings) -> Result<String, MeasureError> {
    let length = settings.bytes.min(BYTES);
    let disk = runner.workspace.path("disk.raw");
    system::collect(&disk, length).map_err(io_error("collect the system's files"))?;
    let mut groups = vec![empty(runner)?];
    if installed("qemu-img") {
        for (name, options, _) in KINDS {
            let image = runner.workspace.path(&format!("{name}.qcow2"));
            qemu(
                &["convert", "-f", "raw", "-O", "qcow2"],
                options,
                &[&disk, &image],
            )?;
            let file = File::open(&image);
            let settled = file.and_then(|file| settle(&file));
            settled.map_err(io_error("get the image ready"))?;
            groups.push(Group::new(runner, name, image, length));
        }
    }
    for turn in 1..=settings.runs {
        for group in &mut groups {
            let expected = (group.name != "empty").then_some(disk.as_path());
            group.turn(runner, expected.filter(|_| turn == 1))?;
        }
    }
    Ok(format!(
        "## Converting images to raw disks\n\n{}\n{} of this system's files below /usr, one behind the \
         other, as `qemu-img convert` puts them into a qcow2 image with its own settings, and an empty \
         image of a disk of 8 TiB; in the page cache. {} runs of each, in turns.\n\n{}",
        targets(&all_targets(&groups)),
        bytes(length),
        settings.runs,
        table(&groups),
    ))
}

/// The empty image, which the tool for looking into images makes as well.
fn empty(runner: &Runner) -> Result<Group, MeasureError> {
    let image = runner.workspace.path("empty.qcow2");
    crate::images::make(&image).map_err(io_error("make an image"))?;
    Ok(Group::new(runner, "empty", image, 0))
}

fn qemu(words: &[&str], options: &[&str], paths: &[&Path]) -> Result<(), MeasureError> {
    let mut command = Command::new("qemu-img");
    let made = command.args(words).args(options).args(paths).output();
    let made = made.map_err(io_error("run qemu-img"))?;
    match made.status.success() {
        true => Ok(()),
        false => Err(MeasureError::Failed {
            name: "qemu-img".to_owned(),
            status: made.status,
            reason: String::from_utf8_lossy(&made.stderr).into_owned(),
        }),
    }
}

impl Group {
    fn new(runner: &Runner, name: &str, image: PathBuf, length: u64) -> Self {
        let mut cases = vec![Case {
            name: "vmm convert".to_owned(),
            program: runner.vmm.clone(),
            words: vec!["convert", "--input"],
            samples: Vec::new(),
        }];
        if installed("qemu-img") {
            cases.extend(WAYS.map(|way| {
                let words = [&["convert", "-f", "qcow2", "-O", "raw"][..], way].concat();
                Case {
                    name: format!("qemu-img convert {}", way.join(" "))
                        .trim()
                        .to_owned(),
                    program: "qemu-img".into(),
                    words,
                    samples: Vec::new(),
                }
            }));
        }
        Self {
            name: name.to_owned(),
            image,
            length,
            cases,
        }
    }

    /// Runs each program once, and compares what it made if there is something to compare it with.
    fn turn(&mut self, runner: &Runner, expected: Option<&Path>) -> Result<(), MeasureError> {
        let output = runner.workspace.path("output");
        for case in &mut self.cases {
            remove(&output).map_err(io_error("remove the output"))?;
            let prepared = runner.workspace.prepare(self.length);
            prepared.map_err(io_error("get memory ready"))?;
            let mut command = Command::new(&case.program);
            command.args(&case.words).arg(&self.image);
            if case.program == runner.vmm {
                command.arg("--output");
            }
            let name = format!("{}, {}", case.name, self.name);
            let sample = runner.time(&name, command.arg(&output))?;
            eprintln!("{:8.3} s  {name}", sample.wall);
            case.samples.push(sample);
            let right = match expected {
                Some(expected) => same(expected, &output),
                None if self.name == "empty" => is_empty(&output),
                None => Ok(true),
            };
            if !right.map_err(io_error("compare the output"))? {
                return Err(MeasureError::Differs(name));
            }
            remove(&output).map_err(io_error("remove the output"))?;
        }
        Ok(())
    }

    fn walls(&self) -> impl Iterator<Item = f64> {
        let wall = |case: &Case| median(case.samples.iter().map(|sample| sample.wall));
        self.cases
            .iter()
            .map(move |case| wall(case).unwrap_or(f64::NAN))
    }

    /// The time of the VMM, and what it is of the fastest other one's.
    fn figures(&self) -> (Option<f64>, Option<f64>) {
        let mut walls = self.walls();
        let own = walls.next();
        let best = walls.reduce(f64::min);
        (own, own.zip(best).map(|(own, best)| own / best))
    }
}

/// Whether a file is as long as the disk in the empty image, and has no data: at most a block of it.
fn is_empty(path: &Path) -> io::Result<bool> {
    let found = path.metadata()?;
    Ok(found.len() == crate::images::DISK && found.blocks() <= 8)
}

fn all_targets(groups: &[Group]) -> Vec<Target> {
    let found = |name: &str| groups.iter().find(|group| group.name == name);
    let mut list: Vec<_> = KINDS
        .iter()
        .map(|(name, _, limit)| {
            let figure = found(name).and_then(|group| group.figures().1);
            let case = format!("`vmm convert`, qcow2, {name}");
            Target::ratio(&case, "the fastest `qemu-img convert`", *limit, figure)
        })
        .collect();
    let empty = found("empty").and_then(|group| group.figures().0);
    let case = "`vmm convert` of an empty disk of 8 TiB";
    list.push(Target::absolute(case, EMPTY, empty, seconds));
    list
}

fn table(groups: &[Group]) -> String {
    let rows: Vec<_> = groups
        .iter()
        .flat_map(|group| group.cases.iter().map(move |case| (group, case)))
        .map(|(group, case)| {
            let middle = |figure: fn(&Sample) -> f64| {
                median(case.samples.iter().map(figure)).unwrap_or(f64::NAN)
            };
            [
                group.name.clone(),
                case.name.clone(),
                seconds(middle(|sample| sample.wall)),
                seconds(middle(|sample| sample.cpu)),
                mebibytes(peak(&case.samples)),
            ]
        })
        .collect();
    markdown(["image", "command", "median", "CPU", "peak memory"], &rows)
}
