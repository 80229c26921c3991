//! Tests of the benchmark tool: how it reads settings, what it computes, and that a command which
//! does not copy is an error and not a fast copy.
#![allow(
    dead_code,
    reason = "the program that uses all of it is the bench target"
)]
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod convert;
mod disks;
mod figures;
mod growth;
mod images;
mod machine;
mod plot;
mod program;
mod reference;
mod run;
mod sectors;
mod settings;
mod system;
mod table;
mod targets;
mod workspace;

use std::path::{Path, PathBuf};

use figures::{GIB, KIB, MIB, median, parse_bytes, per_gib};
use program::Program;
use run::{Case, MeasureError, Runner};
use settings::{REFERENCE_BYTES, Settings, Suite};
use table::Target;
use workspace::Workspace;

fn runner(folder: &Path) -> Runner {
    Runner {
        workspace: Workspace::new(folder).unwrap(),
        vmm: "true".into(),
    }
}

fn settings(suite: Option<&str>, variables: &[(&str, &str)]) -> Result<Settings, String> {
    let variable = |name: &str| {
        let found = variables.iter().find(|(key, _)| *key == name)?;
        Some(found.1.to_owned())
    };
    Settings::new(suite, variable, "vmm".into()).map_err(|error| error.to_string())
}

#[test]
fn sizes_take_units_and_nothing_else() {
    for (text, bytes) in [
        ("1", 1),
        ("256M", 256 * MIB),
        ("1G", GIB),
        ("2KiB", 2 * KIB),
    ] {
        assert_eq!(parse_bytes(text), Some(bytes), "{text}");
    }
    for text in [
        "",
        "0",
        "0G",
        "M",
        "-1",
        "1T",
        "1 M",
        "1.5G",
        "99999999999G",
    ] {
        assert_eq!(parse_bytes(text), None, "{text}");
    }
}

#[test]
fn a_median_is_the_middle_in_any_order() {
    assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(median([4.0, 1.0, 3.0, 2.0]), Some(2.5));
    assert_eq!(median([7.0]), Some(7.0));
    assert_eq!(median([]), None);
}

#[test]
fn settings_have_the_documented_defaults() {
    let bench = settings(None, &[("BENCH_RUNS", ""), ("BENCH_VMM", "")]).unwrap();
    assert_eq!(bench.suite, Suite::Bench);
    assert_eq!((bench.bytes, bench.runs), (GIB, 5));
    assert_eq!(bench.vmm, PathBuf::from("vmm"));
    assert!(!bench.full && !bench.publish);

    let reference = settings(Some("reference"), &[]).unwrap();
    assert_eq!((reference.bytes, reference.runs), (5_120_000_000, 1));
}

#[test]
fn settings_come_from_the_environment_and_wrong_ones_are_named() {
    let given = [
        ("BENCH_BYTES", "256M"),
        ("BENCH_RUNS", "3"),
        ("BENCH_FULL", "1"),
    ];
    let bench = settings(Some("bench"), &given).unwrap();
    assert_eq!((bench.bytes, bench.runs, bench.full), (256 * MIB, 3, true));
    for wrong in [
        ("BENCH_BYTES", "big"),
        ("BENCH_RUNS", "0"),
        ("BENCH_FULL", "yes"),
    ] {
        let error = settings(None, &[wrong]).unwrap_err();
        assert!(
            error.contains(&format!("{}={}", wrong.0, wrong.1)),
            "{error}"
        );
    }
    assert!(settings(Some("fast"), &[]).unwrap_err().contains("'fast'"));
}

#[test]
fn published_times_are_scaled_by_length() {
    // 12 s for 5.12 GB.
    let last = reference::PUBLISHED.last().unwrap();
    assert!((last.per_gib() - 12.0 * 1.073_741_824 / 5.12).abs() < 1e-9);
    assert!((per_gib(12.0, REFERENCE_BYTES) - last.per_gib()).abs() < 1e-9);
}

#[test]
fn a_target_is_met_at_its_limit_and_missed_above_it() {
    let verdict = |figure| Target::ratio("a copy", "`cp`", 0.8, figure).verdict();
    assert_eq!(verdict(Some(0.8)), "met");
    assert_eq!(verdict(Some(1.0)), "**missed** by 25 %");
    assert_eq!(verdict(Some(0.8001)), "**missed** by less than 1 %");
    assert_eq!(verdict(None), "not measured");
    assert_eq!(verdict(Some(f64::NAN)), "not measured");
}

#[test]
fn a_table_has_a_line_a_row_and_keeps_its_cells() {
    let text = table::markdown(["a", "b"], &[["1|2".into(), "3".into()]]);
    assert_eq!(text, "| a | b |\n| --- | --- |\n| 1\\|2 | 3 |\n");
}

#[test]
fn the_file_system_is_that_of_the_innermost_mount() {
    let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/disk xfs rw 0 0\n";
    let kind = |folder| machine::file_system_of(mounts, Path::new(folder));
    assert_eq!(kind("/home").as_deref(), Some("ext4"));
    assert_eq!(kind("/tmp/disk/x").as_deref(), Some("xfs"));
    assert_eq!(kind("/tmp/disks").as_deref(), Some("tmpfs"));
}

#[test]
fn commands_run_in_turns_and_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let runner = runner(folder.path());
    let cases = vec![
        Case::new("cp", Program::Cp, 100 * KIB),
        Case::new("dd", Program::Dd(512), 3 * KIB),
    ];
    let measured = runner.in_turns(cases, 2).unwrap();
    for measured in &measured {
        assert_eq!(measured.samples.len(), 2);
        assert!(measured.wall() > 0.0 && measured.peak() > 0.0);
        assert_eq!((measured.exits(), measured.reports()), (None, 0));
    }
    assert!(!runner.workspace.path("output").exists());
    drop(runner);
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}

#[test]
fn a_command_that_fails_or_copies_wrongly_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let runner = runner(folder.path());
    let run = |program, bytes| {
        let case = Case::new("it", program, bytes);
        runner.in_turns(vec![case], 1).unwrap_err()
    };
    let failed = run(Program::Other("false"), 1);
    assert!(matches!(failed, MeasureError::Failed { .. }), "{failed}");
    // It succeeds, but there is no output.
    let nothing = run(Program::Other("true"), 1);
    assert!(matches!(nothing, MeasureError::Io { .. }), "{nothing}");
    let missing = run(Program::Other("/nowhere/to/be/found"), 1);
    assert!(matches!(missing, MeasureError::Io { .. }), "{missing}");
}

#[test]
fn files_of_other_bytes_or_another_length_are_not_copies() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    // More than is compared at a time.
    let mut bytes = vec![7; 150_000];
    let original = file("original", &bytes);
    assert!(workspace::same(&original, &file("same", &bytes)).unwrap());
    assert!(!workspace::same(&original, &file("shorter", &bytes[1..])).unwrap());
    *bytes.last_mut().unwrap() = 8;
    assert!(!workspace::same(&original, &file("other", &bytes)).unwrap());
}

#[test]
fn the_plot_names_every_line_and_every_tool() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plot.svg");
    let lines = [sectors::Series {
        name: "the VMM",
        points: vec![(512.0, 2.0), (65536.0, 0.3)],
    }];
    plot::draw(&path, "a caption", &lines, &[("cp".to_owned(), 0.4)]).unwrap();
    let svg = std::fs::read_to_string(&path).unwrap();
    for text in ["a caption", "the VMM", "cp", "65536", "seconds a GiB"] {
        assert!(svg.contains(text), "{text}");
    }
    assert!(plot::draw(&folder.path().join("no/plot.svg"), "", &lines, &[]).is_err());
}

#[test]
fn each_way_to_copy_is_the_command_line_that_is_published() {
    for (program, line) in [
        (Program::Cp, "cp --reflink=never IN OUT"),
        (Program::PlainCp, "cp IN OUT"),
        (
            Program::Dd(1 << 20),
            "dd if=IN of=OUT bs=1048576 status=none",
        ),
        (Program::QemuImg, "qemu-img convert -f raw -O raw IN OUT"),
        (
            Program::QemuImgParallel,
            "qemu-img convert -W -m 2 -f raw -O raw IN OUT",
        ),
    ] {
        assert_eq!(program.line(), line);
    }
}

#[test]
fn looking_into_images_is_measured_over_an_image_that_is_safe() {
    let folder = tempfile::tempdir().unwrap();
    let runner = runner(folder.path());
    let settings = settings(None, &[("BENCH_RUNS", "1")]).unwrap();
    let text = images::measure(&runner, &settings).unwrap();
    assert!(
        text.contains("| vmm info |") && text.contains("| vmm check |"),
        "{text}"
    );
    assert!(text.contains("at most 10.00 ms"), "{text}");
    let image = std::fs::read(runner.workspace.path("image.qcow2")).unwrap();
    let info = guest_formats::inspect(&mut &image[..], &guest_formats::Options::default()).unwrap();
    assert_eq!(info.virtual_size, Some(8 << 40));
    assert!(info.findings.is_empty(), "{:?}", info.findings);
}

#[test]
fn the_disk_of_the_systems_files_is_as_long_as_is_asked_and_not_empty() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    system::collect(&disk, 1_000_001).unwrap();
    let found = std::fs::read(&disk).unwrap();
    assert_eq!(found.len(), 1_000_001);
    let filled = found
        .chunks(4096)
        .filter(|block| block.iter().any(|byte| *byte != 0));
    assert!(filled.count() > 200);
    // The same files in the same order each time.
    system::collect(&disk, 1_000_001).unwrap();
    assert!(std::fs::read(&disk).unwrap() == found);
}

#[test]
fn files_are_the_same_whatever_of_them_is_a_hole_and_differ_by_one_byte() {
    let folder = tempfile::tempdir().unwrap();
    let shape = disks::Shape {
        name: "",
        length: MIB,
        pieces: 4,
        piece: 4 * KIB,
    };
    let (left, right) = (folder.path().join("left"), folder.path().join("right"));
    disks::make(&left, &shape).unwrap();
    std::fs::write(&right, std::fs::read(&left).unwrap()).unwrap();
    assert!(disks::same_data(&left, &right).unwrap());
    let file = std::fs::File::options().write(true).open(&right).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[1], 700_000).unwrap();
    assert!(!disks::same_data(&left, &right).unwrap());
}
