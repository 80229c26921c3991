//! The prototypes' published figures, and the same experiment made again: 10,000,000 sectors of 512
//! bytes with one sector a request and one request at a time, then with the VMM's own defaults.

use crate::figures::{bytes, per_gib, seconds};
use crate::program::Program;
use crate::run::{Case, MeasureError, Runner};
use crate::settings::{REFERENCE_BYTES, Settings};
use crate::table::markdown;

/// A row of the prototypes' table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Published {
    /// `--progress-percent`
    pub(crate) progress: u32,
    /// Sector size of both disks in bytes.
    pub(crate) sector: u32,
    /// Seconds for [`REFERENCE_BYTES`].
    seconds: f64,
}

impl Published {
    /// Seconds for a GiB.
    pub(crate) fn per_gib(self) -> f64 {
        per_gib(self.seconds, REFERENCE_BYTES)
    }
}

const fn row(progress: u32, sector: u32, minutes: u32, seconds: u32) -> Published {
    Published {
        progress,
        sector,
        seconds: (minutes * 60 + seconds) as f64,
    }
}

/// The virtio-block3 prototype's table, on another machine than this one.
pub(crate) const PUBLISHED: [Published; 6] = [
    row(0, 512, 6, 58),
    row(10, 512, 5, 39),
    row(10, 1024, 2, 54),
    row(10, 4096, 0, 52),
    row(10, 8192, 0, 30),
    row(10, 65536, 0, 12),
];
/// More than a sector may have; the prototype crashed.
const REFUSED: &str = "--input-sector-size 131072 --output-sector-size 131072";

/// The options of a copy of `sector` bytes a sector, the VMM's defaults otherwise.
pub(crate) fn defaults(sector: u32, progress: u32) -> String {
    format!(
        "--input-sector-size {sector} --output-sector-size {sector} --progress-percent {progress}"
    )
}

/// The same in the prototypes' way.
pub(crate) fn prototypes(sector: u32, progress: u32) -> String {
    let options = defaults(sector, progress);
    format!("{options} --request-size {sector} --queue-depth 1")
}

/// Runs all rows and writes them beside the published ones.
///
/// # Errors
///
/// Which command failed or copied wrongly, and why.
pub(crate) fn measure(runner: &Runner, settings: &Settings) -> Result<String, MeasureError> {
    let length = settings.bytes;
    let ways = [
        ("prototypes' way", prototypes as fn(u32, u32) -> String),
        ("default", defaults),
    ];
    let mut cases = vec![Case::new("cp", Program::Cp, length)];
    for Published {
        progress, sector, ..
    } in PUBLISHED
    {
        cases.extend(ways.map(|(name, options)| {
            let name = format!("{name}, progress {progress}, sectors of {sector}");
            Case::new(name, Program::vmm(&options(sector, progress)), length)
        }));
    }
    let measured = runner.in_turns(cases, settings.runs)?;
    let (status, message) = runner.refusal(REFUSED)?;

    let times: Vec<f64> = measured.iter().map(|measured| measured.wall()).collect();
    let (cp, ours) = times
        .split_first()
        .map_or((f64::NAN, &[][..]), |(cp, rest)| (*cp, rest));
    let (pairs, _) = ours.as_chunks::<2>();
    let mut rows: Vec<_> = PUBLISHED
        .iter()
        .zip(pairs)
        .map(|(published, [prototypes, default])| {
            let scaled = published.per_gib() / per_gib(1.0, length);
            [
                published.progress.to_string(),
                published.sector.to_string(),
                seconds(scaled),
                seconds(*prototypes),
                seconds(*default),
                format!("{:.2}", default / cp),
            ]
        })
        .collect();
    let status = status.map_or_else(|| "a signal".to_owned(), |code| format!("status {code}"));
    let refused = format!("refused ({status})");
    let refused = [refused.clone(), refused, "–".to_owned()];
    let [first, second, third] = refused;
    rows.push([
        "10".into(),
        "131072".into(),
        "crashes".into(),
        first,
        second,
        third,
    ]);
    let heads = [
        "progress",
        "sector size",
        "virtio-block3, published",
        "vmm, one sector a request, one at a time",
        "vmm, default",
        "default, of `cp`",
    ];
    let shorter = if length < REFERENCE_BYTES {
        let sectors = length / 512;
        format!(" Only {sectors} sectors of 512 bytes were copied here, not 10,000,000.")
    } else {
        String::new()
    };
    Ok(format!(
        "{} of random bytes; runs of each: {}. `cp --reflink=never`: {}. The published times were \
         measured on another machine, with 10,000,000 sectors of 512 bytes; they are scaled where \
         this input has another length.{shorter}\n\n{}\nThe last row: `{message}`\n",
        bytes(length),
        settings.runs,
        seconds(cp),
        markdown(heads, &rows)
    ))
}
