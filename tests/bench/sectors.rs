//! Time over sector size: the VMM's defaults, one sector a request, and the prototypes' way, beside
//! the figures that the prototypes published.

use crate::figures::{GIB, bytes, per_gib, seconds};
use crate::program::Program;
use crate::reference::{PUBLISHED, defaults, prototypes};
use crate::run::{Case, MeasureError, Runner};
use crate::settings::Settings;
use crate::table::markdown;

/// All sector sizes, in bytes.
const SECTORS: [u32; 8] = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536];
/// How many sectors a run in the prototypes' way copies at most, unless all are asked for: each
/// costs two round trips to the disks, and 1 GiB in sectors of 512 bytes would take minutes a run.
const PROTOTYPE_SECTORS: u64 = 32_768;

/// A line of the plot: its name, and sector size in bytes against seconds for a GiB.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Runs all sector sizes in all ways. Gives back the text and the lines of the plot, among them the
/// published one.
///
/// # Errors
///
/// Which command failed or copied wrongly, and why.
pub(crate) fn measure(
    runner: &Runner,
    settings: &Settings,
) -> Result<(String, Vec<Series>), MeasureError> {
    let mut cases = Vec::new();
    for sector in SECTORS {
        let few = PROTOTYPE_SECTORS.saturating_mul(sector.into());
        let few = if settings.full { u64::MAX } else { few };
        let single = format!("{} --request-size {sector}", defaults(sector, 100));
        let case = |name, options: &str, length| {
            let name = format!("{name}, sectors of {sector}");
            Case::new(name, Program::vmm(options), length)
        };
        cases.extend([
            case("default", &defaults(sector, 100), settings.bytes),
            case("one sector a request", &single, settings.bytes),
            case(
                "prototypes' way",
                &prototypes(sector, 10),
                settings.bytes.min(few),
            ),
        ]);
    }
    let measured = runner.in_turns(cases, settings.runs)?;
    let times: Vec<f64> = measured
        .iter()
        .map(|measured| per_gib(measured.wall(), measured.case.bytes))
        .collect();
    let (times, _) = times.as_chunks::<3>();
    Ok((text(times, settings), series(times)))
}

fn series(times: &[[f64; 3]]) -> Vec<Series> {
    let line = |name, way: usize| Series {
        name,
        points: SECTORS
            .iter()
            .zip(times)
            .filter_map(|(sector, times)| Some((f64::from(*sector), *times.get(way)?)))
            .collect(),
    };
    let published = PUBLISHED
        .iter()
        .filter(|published| published.progress == 10)
        .map(|published| (f64::from(published.sector), published.per_gib()))
        .collect();
    vec![
        Series {
            name: "virtio-block3 prototype, published",
            points: published,
        },
        line("vmm, one sector a request, one at a time", 2),
        line("vmm, one sector a request", 1),
        line("vmm, default", 0),
    ]
}

fn text(times: &[[f64; 3]], settings: &Settings) -> String {
    let rows: Vec<_> = SECTORS
        .iter()
        .zip(times)
        .map(|(sector, [default, single, prototypes])| {
            let published = PUBLISHED
                .iter()
                .find(|published| published.sector == *sector && published.progress == 10);
            [
                sector.to_string(),
                seconds(*default),
                seconds(*single),
                seconds(*prototypes),
                published.map_or_else(|| "–".to_owned(), |found| seconds(found.per_gib())),
            ]
        })
        .collect();
    let heads = [
        "sector size",
        "default",
        "one sector a request",
        "one sector a request, one at a time",
        "virtio-block3, published",
    ];
    let limit = if settings.full {
        String::new()
    } else {
        format!(" at most {PROTOTYPE_SECTORS} sectors of it are copied, and the time is scaled;")
    };
    format!(
        "## Time over sector size\n\nSeconds for {}, in turns; each a median, number of runs: {}. Default and one \
         sector a request: {} without progress reports. One at a time:{limit} with a report each \
         10 %, as the prototypes did. The published times are of another machine, scaled from \
         10,000,000 sectors of 512 bytes.\n\n![time over sector size](bench.svg)\n\n{}",
        bytes(GIB),
        settings.runs,
        bytes(settings.bytes),
        markdown(heads, &rows)
    )
}
