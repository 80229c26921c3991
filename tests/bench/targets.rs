//! Measures what the project promises about its speed: the same copies by the VMM and by the tools
//! in one run, a tiny file, growth with the input's length, and a copy beside a busy loop.

use crate::figures::{GIB, KIB, MIB, bytes, mebibytes, per_gib, seconds};
use crate::program::{Program, installed};
use crate::run::{Case, MeasureError, Measured, Runner};
use crate::settings::Settings;
use crate::table::{Target, markdown, measurements, targets};

const LARGE_SECTORS: &str =
    "--input-sector-size 65536 --output-sector-size 65536 --progress-percent 100";
const SMALL_SECTORS: &str = "--progress-percent 100";
/// The tiny copies take milliseconds: more runs cost nothing and make the median steadier.
const TINY: u64 = 4 * KIB;
const TINY_RUNS_FACTOR: u32 = 10;
const LONGEST: u64 = 8 * GIB;
/// How far the time for a GiB may differ between lengths that still grow linearly: noise, and
/// inputs that fit into the processor's cache.
const LINEAR: f64 = 1.25;
/// "About twice as long".
const BESIDE_BUSY: f64 = 2.2;

/// The copies of one input, by role.
struct Copies {
    large: Measured,
    small: Measured,
    reporting: Measured,
    single: Measured,
    cp: Measured,
    dd_large: Measured,
    dd_small: Measured,
    large_busy: Measured,
    cp_busy: Measured,
    qemu_img: Option<Measured>,
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
    let growth = growth(runner, settings)?;

    let mut list = copies.targets();
    list.extend(tiny_targets(&tiny));
    list.extend(growth_targets(&growth));
    let peers = copies.peers();
    let all: Vec<_> = copies.into_all().into_iter().chain(tiny).collect();
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
            case("dd bs=64K", Program::Dd(65536)),
            case("dd bs=512", Program::Dd(512)),
            busy(large),
            busy(cp),
        ];
        if installed("qemu-img") {
            cases.push(case("qemu-img convert", Program::QemuImg));
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
            dd_large: next(),
            dd_small: next(),
            large_busy: next(),
            cp_busy: next(),
            qemu_img: measured.next(),
        })
    }

    fn targets(&self) -> Vec<Target> {
        let ratio = |left: &Measured, right: &Measured| Some(left.wall() / right.wall());
        let large = "64 KiB sectors, no progress";
        let run = "the 64 KiB run";
        let qemu_img = self
            .qemu_img
            .as_ref()
            .and_then(|other| ratio(&self.large, other));
        let exits = |exits| per_gib(exits, self.large.case.bytes);
        vec![
            Target::ratio(large, "`cp`", 0.80, ratio(&self.large, &self.cp)),
            Target::ratio(
                large,
                "`dd bs=64K`",
                0.80,
                ratio(&self.large, &self.dd_large),
            ),
            Target::ratio(large, "`qemu-img convert`", 1.0, qemu_img),
            Target::ratio(
                "512-byte sectors, no progress",
                run,
                1.15,
                ratio(&self.small, &self.large),
            ),
            Target::ratio(
                "no options at all: 512-byte sectors, a report each 10",
                run,
                1.15,
                ratio(&self.reporting, &self.large),
            ),
            Target::ratio(
                "512-byte sectors, one sector a request",
                "`dd bs=512`",
                0.5,
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
            Target::ratio(
                "CPU time, 64 KiB sectors",
                "`cp`'s",
                1.5,
                Some(self.large.cpu() / self.cp.cpu()),
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
        let peers = [
            ("cp", Some(&self.cp)),
            ("dd bs=64K", Some(&self.dd_large)),
            ("dd bs=512", Some(&self.dd_small)),
            ("qemu-img convert", self.qemu_img.as_ref()),
        ];
        let time = |measured: &Measured| per_gib(measured.wall(), measured.case.bytes);
        Peers(
            peers
                .into_iter()
                .filter_map(|(name, measured)| Some((name.to_owned(), time(measured?))))
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
            self.dd_large,
            self.dd_small,
        ];
        all.extend(self.qemu_img);
        all.extend([self.large_busy, self.cp_busy]);
        all
    }
}

fn tiny_targets(tiny: &[Measured]) -> Vec<Target> {
    let [vmm, cp] = tiny else {
        return Vec::new();
    };
    let case = "a 4 KiB file, whole process";
    vec![
        Target::ratio(case, "`cp`", 4.0, Some(vmm.wall() / cp.wall())),
        Target::absolute(case, 5e-3, Some(vmm.wall()), seconds),
    ]
}

/// A length, copied by the VMM and by `cp`.
fn growth(runner: &Runner, settings: &Settings) -> Result<Vec<[Measured; 2]>, MeasureError> {
    let mut lengths: Vec<_> = [MIB, 16 * MIB, 256 * MIB, GIB]
        .into_iter()
        .filter(|length| *length <= settings.bytes)
        .collect();
    if settings.full {
        lengths.push(LONGEST);
    }
    let cases = |length: &u64| {
        let name = bytes(*length);
        [
            Case::new(format!("vmm, {name}"), Program::vmm(LARGE_SECTORS), *length),
            Case::new(format!("cp, {name}"), Program::Cp, *length),
        ]
    };
    let cases = lengths.iter().flat_map(cases).collect();
    let measured = runner.in_turns(cases, settings.runs)?;
    let (pairs, _) = measured.as_chunks::<2>();
    Ok(pairs.to_vec())
}

/// The longest against the next: shorter ones fit into a cache, and starting dominates them.
fn growth_targets(growth: &[[Measured; 2]]) -> Vec<Target> {
    let [first, .., [before, _], [last, _]] = growth else {
        return Vec::new();
    };
    let time = |measured: &Measured| per_gib(measured.wall(), measured.case.bytes);
    let exits = |measured: &Measured| Some(per_gib(measured.exits()?, measured.case.bytes));
    let of = format!("that of {}", bytes(before.case.bytes));
    let case = |what: &str| format!("{what} for a GiB of {}", bytes(last.case.bytes));
    vec![
        Target::ratio(&case("time"), &of, LINEAR, Some(time(last) / time(before))),
        Target::ratio(
            &case("exits"),
            &of,
            LINEAR,
            exits(last).zip(exits(before)).map(|(a, b)| a / b),
        ),
        Target::ratio(
            &format!("peak memory at {}", bytes(last.case.bytes)),
            &format!("that at {}", bytes(first[0].case.bytes)),
            1.1,
            Some(last.peak() / first[0].peak()),
        ),
    ]
}

fn growth_table(growth: &[[Measured; 2]]) -> String {
    let rows: Vec<_> = growth
        .iter()
        .map(|[vmm, cp]| {
            let length = vmm.case.bytes;
            let exits = vmm.exits();
            let text = |exits: f64| format!("{exits:.0}");
            [
                bytes(length),
                seconds(vmm.wall()),
                seconds(per_gib(vmm.wall(), length)),
                seconds(per_gib(cp.wall(), length)),
                exits.map_or_else(|| "–".to_owned(), text),
                mebibytes(vmm.peak()),
            ]
        })
        .collect();
    let heads = [
        "input",
        "time",
        "time a GiB",
        "`cp`, time a GiB",
        "exits",
        "peak memory",
    ];
    markdown(heads, &rows)
}
