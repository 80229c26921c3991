//! How the time, the exits and the memory of a copy grow with the input's length.

use crate::figures::{GIB, MIB, bytes, mebibytes, per_gib, seconds};
use crate::program::Program;
use crate::run::{Case, MeasureError, Measured, Runner};
use crate::settings::Settings;
use crate::table::{Target, markdown};
use crate::targets::LARGE_SECTORS;

const LONGEST: u64 = 8 * GIB;
/// How far the time for a GiB may differ between lengths that still grow linearly: noise, and
/// inputs that fit into the processor's cache.
const LINEAR: f64 = 1.25;

/// A length, copied by the VMM and by `cp`.
pub(crate) fn growth(
    runner: &Runner,
    settings: &Settings,
) -> Result<Vec<[Measured; 2]>, MeasureError> {
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

/// The longest against the next: shorter ones fit into a cache, and starting dominates them. Memory
/// against the second, which is the first that needs all of the guest's pool.
pub(crate) fn growth_targets(growth: &[[Measured; 2]]) -> Vec<Target> {
    let [_, [filling, _], .., [before, _], [last, _]] = growth else {
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
            &format!("that at {}", bytes(filling.case.bytes)),
            1.1,
            Some(last.peak() / filling.peak()),
        ),
    ]
}

pub(crate) fn growth_table(growth: &[[Measured; 2]]) -> String {
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
