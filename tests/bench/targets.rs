//! Measures what the project promises about its speed: the same copies by the VMM and by the tools
//! in one run, a tiny file, and a copy beside a busy loop.

use crate::figures::{KIB, MIB, bytes, mebibytes, per_gib, seconds};
use crate::growth::{growth, growth_table, growth_targets};
use crate::program::{Program, installed};
use crate::run::{Case, MeasureError, Measured, Runner, io_error};
use crate::settings::Settings;
use crate::table::{Target, measurements, targets};

pub(crate) const LARGE_SECTORS: &str =
    "--input-sector-size 65536 --output-sector-size 65536 --progress-percent 100";
const SMALL_SECTORS: &str = "--progress-percent 100";
/// The tiny copies take milliseconds: more runs cost nothing and make the median steadier.
const TINY: u64 = 4 * KIB;
const TINY_RUNS_FACTOR: u32 = 10;
/// What is copied one sector at a time, which would take minutes a GiB.
const ONE_BY_ONE: u64 = 16 * MIB;
const SECTOR: u64 = 512;
/// "About twice as long".
const BESIDE_BUSY: f64 = 2.2;

/// The copies of one input, by role.
struct Copies {
    large: Measured,
    small: Measured,
    reporting: Measured,
    single: Measured,
    /// `cp --reflink=never`, the yardstick.
    cp: Measured,
    dd_small: Measured,
    large_busy: Measured,
    cp_busy: Measured,
    /// All other ways to copy as much; the first is the way of most scripts.
    others: Vec<Measured>,
}

/// The times of the tools over the same bytes, which the plot shows as well.
pub(crate) struct Peers(pub(crate) Vec<(String, f64)>);

/// Runs all of it.
///
/// # Errors
///
/// Which command failed or copied wrongly, and why.
pub(crate) fn measure(
    runner: &Runner,
    settings: &Settings,
) -> Result<(String, Peers), MeasureError> {
    let copies = Copies::measure(runner, settings)?;
    let tiny = runner.in_turns(
        vec![
            Case::new("vmm, 4 KiB file", Program::vmm(""), TINY),
            Case::new("cp, 4 KiB file", Program::Cp, TINY),
        ],
        settings.runs.saturating_mul(TINY_RUNS_FACTOR),
    )?;
    let one_by_one = one_by_one(runner, settings)?;
    let growth = growth(runner, settings)?;

    let mut list = copies.targets();
    list.extend(tiny_targets(&tiny));
    list.push(one_by_one_target(&one_by_one, &tiny));
    list.extend(growth_targets(&growth));
    let peers = copies.peers();
    let all: Vec<_> = copies
        .into_all()
        .into_iter()
        .chain(tiny)
        .chain([one_by_one])
        .collect();
    let text = format!(
        "## Targets\n\n{}\n## Measurements\n\n{} of random bytes in the page cache; runs of each, \
         in turns: {} ({} for the 4 KiB file). Times are of the whole process.\n\n{}\n## Growth \
         with the input's length\n\n64 KiB sectors, no progress reports.\n\n{}",
        targets(&list),
        bytes(settings.bytes),
        settings.runs,
        settings.runs.saturating_mul(TINY_RUNS_FACTOR),
        measurements(&all),
        growth_table(&growth),
    );
    Ok((text, peers))
}

impl Copies {
    fn measure(runner: &Runner, settings: &Settings) -> Result<Self, MeasureError> {
        // Said at once, and not when the busy loop's turn comes.
        if !installed("taskset") {
            let error = std::io::ErrorKind::NotFound.into();
            return Err(io_error("run taskset, of util-linux")(error));
        }
        let case = |name: &str, program| Case::new(name, program, settings.bytes);
        let busy = |case: Case| Case {
            name: format!("{}, beside a busy loop", case.name),
            busy: true,
            ..case
        };
        let large = case("vmm, 64 KiB sectors", Program::vmm(LARGE_SECTORS));
        let cp = case("cp", Program::Cp);
        let mut cases = vec![
            large.clone(),
            case("vmm, 512-byte sectors", Program::vmm(SMALL_SECTORS)),
            case(
                "vmm, no options: 512-byte sectors, a report each 10",
                Program::vmm(""),
            ),
            case(
                "vmm, 512-byte sectors, one a request",
                Program::vmm("--progress-percent 100 --request-size 512"),
            ),
            cp.clone(),
            case("dd bs=512", Program::Dd(512)),
            busy(large),
            busy(cp),
            case("cp, plain", Program::PlainCp),
            case("dd bs=64K", Program::Dd(65536)),
            case("dd bs=1M", Program::Dd(1 << 20)),
        ];
        if installed("qemu-img") {
            cases.push(case("qemu-img convert", Program::QemuImg));
            cases.push(case("qemu-img convert -W -m 2", Program::QemuImgParallel));
        }
        let mut measured = runner.in_turns(cases, settings.runs)?.into_iter();
        let nothing = || Measured {
            case: Case::new("nothing", Program::Cp, settings.bytes),
            samples: Vec::new(),
        };
        let mut next = || measured.next().unwrap_or_else(nothing);
        Ok(Self {
            large: next(),
            small: next(),
            reporting: next(),
            single: next(),
            cp: next(),
            dd_small: next(),
            large_busy: next(),
            cp_busy: next(),
            others: measured.collect(),
        })
    }

    /// The fastest way to copy without a VM.
    fn fastest(&self) -> &Measured {
        let wall = |a: &&Measured, b: &&Measured| a.wall().total_cmp(&b.wall());
        self.others.iter().min_by(wall).map_or(&self.cp, |other| {
            if other.wall() < self.cp.wall() {
                other
            } else {
                &self.cp
            }
        })
    }

    fn targets(&self) -> Vec<Target> {
        let ratio = |left: &Measured, right: &Measured| Some(left.wall() / right.wall());
        let large = "64 KiB sectors, no progress";
        let fastest = self.fastest();
        let exits = |exits| per_gib(exits, self.large.case.bytes);
        vec![
            Target::ratio(
                large,
                "`cp --reflink=never`",
                0.80,
                ratio(&self.large, &self.cp),
            ),
            Target::ratio(
                large,
                &format!("the fastest peer, `{}`", fastest.case.name),
                0.85,
                ratio(&self.large, fastest),
            ),
            Target::ratio(
                "CPU time, 64 KiB sectors",
                "`cp --reflink=never`'s",
                1.25,
                Some(self.large.cpu() / self.cp.cpu()),
            ),
            Target::ratio(
                "512-byte sectors, no progress",
                "the 64 KiB run",
                1.15,
                ratio(&self.small, &self.large),
            ),
            Target::ratio(
                "no options at all: 512-byte sectors, a report each 10",
                "the run without reports",
                1.5,
                ratio(&self.reporting, &self.small),
            ),
            Target::ratio(
                "512-byte sectors, one sector a request",
                "`dd bs=512`",
                0.40,
                ratio(&self.single, &self.dd_small),
            ),
            Target::absolute(
                "a report at `--progress-percent 0`, 512-byte sectors",
                25e-6,
                self.report(),
                seconds,
            ),
            Target::absolute(
                "peak memory, guest memory included",
                8.0 * MIB as f64,
                Some(self.large.peak()),
                mebibytes,
            ),
            Target::absolute(
                "exits to user space a GiB",
                5000.0,
                self.large.exits().map(exits),
                |value| format!("{value:.0}"),
            ),
            Target::ratio(
                "beside a busy loop on one core",
                "alone",
                BESIDE_BUSY,
                ratio(&self.large_busy, &self.large),
            ),
        ]
    }

    /// What a progress report costs, in seconds.
    fn report(&self) -> Option<f64> {
        let reports = self.reporting.reports();
        let more = self.reporting.wall() - self.small.wall();
        (reports > 0).then(|| more / reports as f64)
    }

    fn peers(&self) -> Peers {
        let time = |measured: &Measured| per_gib(measured.wall(), measured.case.bytes);
        let peers = [&self.cp, &self.dd_small].into_iter().chain(&self.others);
        Peers(
            peers
                .map(|measured| (measured.case.name.clone(), time(measured)))
                .collect(),
        )
    }

    fn into_all(self) -> Vec<Measured> {
        let mut all = vec![
            self.large,
            self.small,
            self.reporting,
            self.single,
            self.cp,
            self.dd_small,
        ];
        all.extend(self.others);
        all.extend([self.large_busy, self.cp_busy]);
        all
    }
}

fn tiny_targets(tiny: &[Measured]) -> Vec<Target> {
    let [vmm, cp] = tiny else {
        return Vec::new();
    };
    let case = "a 4 KiB file, whole process";
    vec![Target::ratio(
        case,
        "`cp --reflink=never`",
        3.0,
        Some(vmm.wall() / cp.wall()),
    )]
}

/// One sector a request and one request at a time, as the prototypes did it: each sector is read
/// and written before the next one.
fn one_by_one(runner: &Runner, settings: &Settings) -> Result<Measured, MeasureError> {
    let options = "--progress-percent 100 --request-size 512 --queue-depth 1";
    let length = settings.bytes.min(ONE_BY_ONE);
    let case = Case::new("vmm, one at a time", Program::vmm(options), length);
    let measured = runner.in_turns(vec![case], settings.runs)?;
    let nothing = || MeasureError::Io {
        what: "measure one request at a time".to_owned(),
        error: std::io::ErrorKind::NotFound.into(),
    };
    measured.into_iter().next().ok_or_else(nothing)
}

fn one_by_one_target(one_by_one: &Measured, tiny: &[Measured]) -> Target {
    let start = tiny.first().map_or(0.0, Measured::wall);
    let sectors = one_by_one.case.bytes.div_ceil(SECTOR) as f64;
    Target::absolute(
        "one 512-byte request at a time, a sector read and written",
        42e-6,
        Some((one_by_one.wall() - start) / sectors),
        seconds,
    )
}
