//! The figures that the README quotes are those of resources/bench.md, which `make bench` writes.
#![allow(clippy::unwrap_used, clippy::panic)]

const README: &str = include_str!("../README.md");
const BENCH: &str = include_str!("../resources/bench.md");

/// The rows of the README's table, in its order, and the names that bench.md has for them.
const ROWS: [(&str, &str); 10] = [
    ("`dd bs=1M`", "dd bs=1M"),
    ("`qemu-img convert -W -m 2`", "qemu-img convert -W -m 2"),
    (
        "`vmm`, 64 KiB sectors, no progress reports",
        "vmm, 64 KiB sectors",
    ),
    (
        "`vmm`, 512-byte sectors, no progress reports",
        "vmm, 512-byte sectors",
    ),
    ("`cp --reflink=never`", "cp"),
    ("`dd bs=64K`", "dd bs=64K"),
    (
        "`vmm` without any option: 512-byte sectors, 209,716 reports",
        "vmm, no options: 512-byte sectors, a report each 10",
    ),
    ("plain `cp`", "cp, plain"),
    (
        "`vmm`, one 512-byte sector a request",
        "vmm, 512-byte sectors, one a request",
    ),
    ("`dd bs=512`", "dd bs=512"),
];

/// The section of a page below this heading.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let (_, behind) = page
        .split_once(&format!("\n## {heading}\n"))
        .unwrap_or_else(|| panic!("there is no section {heading:?}"));
    behind.split("\n## ").next().unwrap()
}

/// The cells of each row of the first table in `text`, without its heads.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let lines = text.lines().skip_while(|line| !line.starts_with('|'));
    let rows = lines.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

/// What bench.md says of a case in the table of a section: the cells behind its name.
fn measured(heading: &str, case: &str) -> Vec<&'static str> {
    let rows = rows(section(BENCH, heading));
    let row = rows.into_iter().find(|row| row[0] == case);
    row.unwrap_or_else(|| panic!("bench.md has no {case:?}"))[1..].to_vec()
}

/// The number of a figure; of a time, its milliseconds.
fn number(figure: &str) -> f64 {
    let (number, unit) = figure.split_once(' ').unwrap_or((figure, ""));
    let number: f64 = number.parse().unwrap();
    if unit == "s" { number * 1e3 } else { number }
}

/// The median time of a case, as it is written.
fn median(case: &str) -> &'static str {
    measured("Measurements", case)[0]
}

/// How many times the median of one case is that of another, written with so many decimals.
fn ratio(case: &str, of: &str, decimals: usize) -> String {
    let ratio = number(median(case)) / number(median(of));
    format!("{ratio:.decimals$}")
}

#[test]
fn the_table_of_speed_is_that_of_the_published_results() {
    let rows = rows(section(README, "How fast"));
    assert_eq!(rows.len(), ROWS.len());
    for (name, case) in ROWS {
        let row = rows.iter().find(|row| row[0] == name);
        let row = row.unwrap_or_else(|| panic!("the README has no {name}"));
        assert_eq!(row[1], median(case), "{name}: bench.md has another time");
        let decimals = row[2].split_once('.').map_or(0, |(_, part)| part.len());
        assert_eq!(row[2], ratio(case, "cp", decimals), "{name}: of `cp`");
    }
    let times: Vec<_> = rows.iter().map(|row| number(row[1])).collect();
    assert!(times.is_sorted(), "the fastest comes first: {times:?}");
}

#[test]
fn what_the_readme_says_beside_its_table_is_what_was_measured() {
    let said = section(README, "How fast").split_whitespace();
    let said = said.collect::<Vec<_>>().join(" ");
    let ours = ROWS.iter().map(|row| row.1);
    let peaks = ours.filter(|case| case.starts_with("vmm"));
    let peaks = peaks.map(|case| number(measured("Measurements", case)[3]));
    let peak = peaks.fold(0.0, f64::max);
    let exits = measured("Measurements", "vmm, 64 KiB sectors")[4];
    let one = "one 512-byte request at a time, a sector read and written";
    let one = measured("Targets", one)[1];
    let small = number(median("vmm, 4 KiB file"));
    let times = ratio("vmm, 4 KiB file", "cp, 4 KiB file", 1);
    for figure in [
        format!("at most {peak:.1} MiB of memory"),
        format!("for user space {exits} times a GiB"),
        format!("takes {one} a sector"),
        format!("A 4 KiB file takes {small:.0} ms, {times} times `cp`'s."),
    ] {
        assert!(said.contains(&figure), "the README does not say {figure:?}");
    }
    let processor = section(BENCH, "Machine");
    for part in ["AMD EPYC", "2 cores", "`kvm_pvm`", "ext4"] {
        assert!(processor.contains(part), "another machine: no {part}");
    }
    assert!(BENCH.contains("1 GiB of random bytes in the page cache; runs of each, in turns: 5 "));
}
