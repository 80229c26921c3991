//! Measures how long it takes to look into an image: a fresh process each time, with its VM, beside
//! `qemu-img info`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use crate::figures::{mebibytes, median, seconds};
use crate::program::installed;
use crate::run::{MeasureError, Runner, Sample, io_error, peak};
use crate::settings::Settings;
use crate::table::{Target, markdown, targets};
use crate::workspace::settle;

/// The length of the disk in the empty image, in bytes.
pub(crate) const DISK: u64 = 8 << 40;
/// What `vmm info` may take, in seconds.
const LONGEST: f64 = 0.010;
/// Runs take milliseconds: more of them cost nothing and make the median steadier.
const RUNS_FACTOR: u32 = 10;

/// Runs all of it.
///
/// # Errors
///
/// Which command failed, and why.
pub(crate) fn measure(runner: &Runner, settings: &Settings) -> Result<String, MeasureError> {
    let image = runner.workspace.path("image.qcow2");
    make(&image).map_err(io_error("make an image"))?;
    let vmm = |word: &'static str| (format!("vmm {word}"), runner.vmm.clone(), word);
    let mut cases = vec![vmm("info"), vmm("check")];
    if installed("qemu-img") {
        cases.push(("qemu-img info".to_owned(), "qemu-img".into(), "info"));
    }
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); cases.len()];
    for _ in 0..settings.runs.saturating_mul(RUNS_FACTOR) {
        for ((name, program, word), samples) in cases.iter().zip(&mut samples) {
            let mut command = Command::new(program);
            command.arg(word).arg(&image);
            samples.push(runner.time(name, &mut command)?);
        }
    }
    let wall = |samples: &[Sample]| median(samples.iter().map(|sample| sample.wall));
    let target = Target::absolute(
        "`vmm info` of a qcow2 image",
        LONGEST,
        samples.first().and_then(|samples| wall(samples)),
        seconds,
    );
    let rows: Vec<_> = cases
        .iter()
        .zip(&samples)
        .map(|((name, ..), samples)| {
            let middle =
                |figure: fn(&Sample) -> f64| median(samples.iter().map(figure)).unwrap_or(f64::NAN);
            [
                name.clone(),
                seconds(middle(|sample| sample.wall)),
                seconds(middle(|sample| sample.cpu)),
                mebibytes(peak(samples)),
            ]
        })
        .collect();
    Ok(format!(
        "## Looking into images\n\n{}\nAn empty qcow2 image of a disk of 8 TiB; {} runs of each, in \
         turns.\n\n{}",
        targets(&[target]),
        settings.runs.saturating_mul(RUNS_FACTOR),
        markdown(["command", "median", "CPU", "peak memory"], &rows),
    ))
}

/// An empty qcow2 image of version 3 with clusters of 64 KiB: header, refcount table, a block of
/// refcounts, and an L1 table of two clusters.
pub(crate) fn make(path: &Path) -> io::Result<()> {
    const CLUSTER: u64 = 65536;
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    file.set_len(5 * CLUSTER)?;
    let put32 = |at: u64, value: u32| file.write_all_at(&value.to_be_bytes(), at);
    let put64 = |at: u64, value: u64| file.write_all_at(&value.to_be_bytes(), at);
    file.write_all_at(b"QFI\xfb", 0)?;
    put32(4, 3)?;
    put32(20, 16)?;
    put64(24, DISK)?;
    put32(36, 16384)?;
    put64(40, 3 * CLUSTER)?;
    put64(48, CLUSTER)?;
    put32(56, 1)?;
    put32(96, 4)?;
    put32(100, 104)?;
    put64(CLUSTER, 2 * CLUSTER)?;
    for cluster in 0..5 {
        file.write_all_at(&1_u16.to_be_bytes(), 2 * CLUSTER + 2 * cluster)?;
    }
    settle(&file)
}
