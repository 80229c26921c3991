//! Copies with holes: what is not there is neither read nor written, and comes out the same all the
//! same; with the digest of the input, and what was written read back.
#![allow(clippy::unwrap_used, clippy::panic)]
#![allow(clippy::single_range_in_vec_init, reason = "lists of ranges are meant")]

mod common;

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal};

use common::files::assert_same_large;
use common::loop_device::{make_with_late_data, mount_without_extents};
use common::mount::Mounted;
use common::process::Finished;
use common::terminal::Terminal;
use common::{Files, Vmm, needs_kvm, random, skip, test};

fn main() -> std::process::ExitCode {
    common::harness::main()
}

const MIB: u64 = 1 << 20;

/// Files whose input has `length` bytes, of which these are data.
fn sparse(length: u64, data: &[Range<u64>]) -> Files {
    let files = Files::new(&[]);
    let input = File::options().write(true).open(files.input()).unwrap();
    input.set_len(length).unwrap();
    for range in data {
        let bytes = random((range.end - range.start).try_into().unwrap(), range.start);
        input.write_all_at(&bytes, range.start).unwrap();
    }
    files
}

/// Whether the file system of the tests has holes at all.
fn has_holes(files: &Files) -> bool {
    if blocks(&files.input()) == 0 {
        return true;
    }
    skip("the file system makes no holes");
    false
}

fn blocks(path: &Path) -> u64 {
    path.metadata().unwrap().blocks()
}

/// Bytes that the disk `name` says of itself in the statistics.
fn counted(finished: &Finished, name: &str, what: &str) -> u64 {
    let line = finished.stderr.lines().find(|line| line.starts_with(name));
    let line = line.unwrap_or_else(|| panic!("{finished:?}"));
    let end = line.find(what).unwrap_or_else(|| panic!("{line}"));
    let number = line[..end].split_whitespace().last().unwrap();
    number.parse().unwrap()
}

fn sha256sum(path: &Path) -> Option<String> {
    let output = Command::new("sha256sum").arg(path).output().ok()?;
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().next().map(str::to_owned)
}

#[test]
fn holes_are_neither_read_nor_written_unless_all_is_to_be() {
    needs_kvm!();
    let data = [3 * MIB..5 * MIB, 20 * MIB..20 * MIB + 5000];
    let files = sparse(64 * MIB, &data);
    if !has_holes(&sparse(MIB, &[])) {
        return;
    }
    for (when, reads_all) in [("auto", false), ("always", false), ("never", true)] {
        let options = ["--stats", "-p", "100", "--sparse", when];
        let finished = files.vmm().args(&options).succeed();
        assert_same_large(&files.output(), &files.input());
        let read = counted(&finished, "input", " bytes read");
        let written = counted(&finished, "output", " bytes written");
        let zeroed = counted(&finished, "output", " bytes zeroed");
        if reads_all {
            assert_eq!((read, written, zeroed), (64 * MIB, 64 * MIB, 0));
        } else {
            assert!(read < 3 * MIB && written < 3 * MIB, "{finished:?}");
            assert!(read + zeroed >= 64 * MIB, "{finished:?}");
            assert!(blocks(&files.output()) <= blocks(&files.input()));
        }
    }
}

#[test]
fn eight_tib_of_nothing_take_no_time_and_no_room() {
    needs_kvm!();
    let files = sparse(0, &[]);
    let input = File::options().write(true).open(files.input()).unwrap();
    if let Err(error) = input.set_len(8 << 40) {
        return skip(&format!("no file of 8 TiB can be made here: {error}"));
    }
    // With the reports that are made unless something else is said: a hole is one.
    let finished = files.vmm().succeed();
    assert!(finished.stdout.lines().count() < 20, "{finished:?}");
    let output = files.output().metadata().unwrap();
    assert_eq!((output.len(), output.blocks()), (8 << 40, 0));
}

#[test]
fn a_file_system_that_takes_room_ahead_takes_none_for_holes() {
    needs_kvm!();
    // The pieces have to be large enough for XFS to expect more of them.
    let pieces = (0..16).map(|piece| piece * 4 * MIB..piece * 4 * MIB + 200 * 1024);
    let mut files = sparse(64 * MIB, &pieces.collect::<Vec<_>>());
    if !has_holes(&sparse(MIB, &[])) {
        return;
    }
    let image = files.add("image", b"");
    File::options()
        .write(true)
        .open(&image)
        .unwrap()
        .set_len(320 * MIB)
        .unwrap();
    let made = Command::new("mkfs.xfs").arg("-q").arg(&image).output();
    if !made.is_ok_and(|made| made.status.success()) {
        return skip("there is no mkfs.xfs");
    }
    let target = files.path("mounted");
    let Some(mounted) = Mounted::with("loop,rw", "xfs", &image, &target) else {
        return;
    };
    let output = target.join("output");
    let cp = target.join("cp");
    let mut command = Command::new("cp");
    let copied = command
        .arg("--sparse=always")
        .arg(files.input())
        .arg(&cp)
        .status();
    assert!(copied.unwrap().success());
    // A hole of one block is as small as one may be.
    let most = blocks(&cp) + 8;
    Vmm::copying(&files.input(), &output).succeed();
    rustix::fs::syncfs(File::open(&target).unwrap()).unwrap();
    assert!(
        blocks(&output) <= most,
        "{} instead of {most}",
        blocks(&output)
    );
    assert_same_large(&files.input(), &output);
    drop(mounted);
}

#[test]
fn zeros_that_take_room_become_holes_only_if_that_is_wanted() {
    needs_kvm!();
    let mut content = vec![0; 4 << 20];
    content[1_000_000..1_100_000].copy_from_slice(&random(100_000, 1));
    for (when, most) in [("auto", u64::MAX), ("always", 400), ("never", u64::MAX)] {
        let files = Files::new(&content);
        files.vmm().args(&["--sparse", when]).succeed();
        files.assert_copied();
        assert!(blocks(&files.output()) <= most, "{when}");
        if when != "always" {
            assert!(blocks(&files.output()) >= 8192, "{when}");
        }
    }
}

#[test]
fn zeros_become_holes_whatever_the_size_of_the_requests() {
    needs_kvm!();
    let mut content = random(100 * 12_288, 1);
    for piece in content.chunks_mut(12_288) {
        piece[4096..].fill(0);
    }
    for size in ["512", "1536", "5120", "64000", "128K"] {
        let files = Files::new(&content);
        let options = ["--sparse", "always", "--request-size", size];
        files.vmm().args(&options).succeed();
        files.assert_copied();
        let most = 100 * 4096 / 512 + 8;
        assert!(
            blocks(&files.output()) <= most,
            "{size}: {}",
            blocks(&files.output())
        );
    }
}

#[test]
fn what_fills_up_the_last_sector_is_no_less_of_a_hole() {
    needs_kvm!();
    let files = sparse(64 * 1024 + 1, &[64 * 1024..64 * 1024 + 1]);
    if !has_holes(&sparse(MIB, &[])) {
        return;
    }
    for size in ["512", "64K"] {
        let options = ["--input-sector-size", size, "--output-sector-size", size];
        let finished = files.vmm().args(&options).arg("--stats").succeed();
        assert!(
            finished
                .stderr
                .contains(", 65536 of them in holes, not read"),
            "{finished:?}"
        );
    }
}

#[test]
fn very_many_small_pieces_of_data_come_out_the_same_and_as_small() {
    needs_kvm!();
    let data: Vec<_> = (0..3000)
        .map(|n| n * 24 * 1024..n * 24 * 1024 + 100)
        .collect();
    let files = sparse(80 * MIB, &data);
    files.vmm().args(&["-p", "100"]).succeed();
    assert_same_large(&files.output(), &files.input());
    assert!(blocks(&files.output()) <= blocks(&files.input()) + 8);
}

#[test]
fn holes_and_sector_sizes_of_all_kinds_go_together() {
    needs_kvm!();
    let data = [0..1, 70_000..70_001, 900_000..1_000_003];
    for length in [1_000_003, 2_000_001] {
        let files = sparse(length, &data);
        for input in ["512", "4096", "65536"] {
            for output in ["512", "65536"] {
                for when in ["auto", "always"] {
                    let options = [
                        ["--input-sector-size", input],
                        ["--output-sector-size", output],
                        ["--sparse", when],
                    ];
                    files
                        .vmm()
                        .args(&options.concat())
                        .arg("--verify")
                        .succeed();
                    assert_same_large(&files.output(), &files.input());
                }
            }
        }
    }
}

#[test]
fn the_digest_is_that_of_sha256sum() {
    needs_kvm!();
    let data = [100_000..3_000_000];
    for length in [0, 1, 3_000_000, 5_000_001] {
        let data = &data[..usize::from(length >= 3_000_000)];
        let files = sparse(length, data);
        let Some(expected) = sha256sum(&files.input()) else {
            return skip("there is no sha256sum");
        };
        for options in [
            &["--digest", "sha256"][..],
            &["--digest", "sha256", "--sparse", "never"],
            &["--digest", "sha256", "--sparse", "always", "--verify"],
            &["--digest", "sha256", "--protocol", "text"],
            &["--digest", "sha256", "--input-sector-size", "65536"],
            &["--digest", "sha256", "--request-size", "512", "-p", "100"],
            &["--digest", "sha256", "--quiet"],
        ] {
            let finished = files.vmm().args(options).succeed();
            let last = finished.stdout.lines().last();
            assert_eq!(last, Some(&*format!("sha256 {expected}")), "{options:?}");
            assert_eq!(finished.lines().len() == 1, options.contains(&"--quiet"));
            assert_same_large(&files.output(), &files.input());
        }
        let json = ["--digest", "sha256", "--format", "json"];
        let finished = files.vmm().args(&json).succeed();
        let digest = format!("\"digest\":\"sha256:{expected}\"");
        assert!(finished.stdout.contains(&digest), "{finished:?}");
    }
}

#[test]
fn an_output_that_came_out_otherwise_is_found_and_not_put_in_place() {
    needs_kvm!();
    let files = Files::random(16 << 20);
    let first = &std::fs::read(files.input()).unwrap()[..512];
    // Slowly, so that it can be met between what it writes and what it reads back.
    let slowly = ["--queue-depth", "1", "--request-size", "512"];
    let running = files.vmm().arg("--verify").args(&slowly).start();
    running.wait_for_guest();
    let output = loop {
        assert!(!running.has_ended(), "the copy was too fast to be met");
        running.signal(Signal::STOP);
        if let Some(output) = being_written(running.pid(), &files) {
            let mut written = [0; 512];
            output.read_exact_at(&mut written, 0).unwrap_or_default();
            if written == first {
                break output;
            }
        }
        running.signal(Signal::CONT);
    };
    output.write_all_at(&[!first[0]], 0).unwrap();
    running.signal(Signal::CONT);
    let finished = running.finish();
    finished.assert_failed(4, "what was read back has sha256 ");
    assert!(
        finished.stdout.contains("op=verify device=output"),
        "{finished:?}"
    );
    files.assert_untouched();
}

/// The file that a process writes, in the folder of its input, whether it has a name there or not.
fn being_written(process: Pid, files: &Files) -> Option<File> {
    let folder = format!("/proc/{}/fd", process.as_raw_nonzero());
    std::fs::read_dir(folder).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        let target = std::fs::read_link(&path).ok()?;
        let is_it = target.starts_with(files.folder()) && target != files.input();
        let open = || File::options().read(true).write(true).open(&path).ok();
        is_it
            .then(open)?
            .filter(|file| file.metadata().is_ok_and(|found| found.is_file()))
    })
}

#[test]
fn an_output_beyond_the_limit_is_refused_before_anything_is_made() {
    needs_kvm!();
    let files = Files::random(5000);
    let finished = files.vmm().args(&["--max-output-size", "4K"]).run();
    finished.assert_failed(3, "more than the 4096 that --max-output-size allows");
    files.assert_untouched();
    files.vmm().args(&["--max-output-size", "5000"]).succeed();
    files.assert_copied();
}

#[test]
fn statistics_count_what_was_skipped_and_made_zero_and_how_long_the_digest_took() {
    needs_kvm!();
    let files = sparse(64 * MIB, &[3 * MIB..5 * MIB]);
    if !has_holes(&sparse(MIB, &[])) {
        return;
    }
    let options = ["--stats", "--format", "json", "--digest", "sha256"];
    let finished = files.vmm().args(&options).succeed();
    let lines = finished.stdout.lines();
    let objects = lines.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let mut stats = objects.filter(|object| object["type"] == "stats");
    let stats = stats.next().unwrap();
    assert_eq!(stats["bytes"], 64 * MIB);
    assert_eq!(stats["bytes_skipped"], 62 * MIB);
    assert_eq!(stats["disks"][0]["bytes_read"], 2 * MIB);
    assert_eq!(stats["disks"][1]["bytes_written"], 2 * MIB);
    assert_eq!(stats["disks"][1]["bytes_zeroed"], 62 * MIB);
    assert!(stats["digest_seconds"].as_f64().unwrap() > 0.0, "{stats}");
}

#[test]
fn scattered_data_is_read_and_nothing_between_it() {
    needs_kvm!();
    if !has_holes(&sparse(MIB, &[])) {
        return;
    }
    // More ranges than a configuration has room for, with holes that are as small as they can be.
    let data: Vec<_> = (0..2000).map(|n| n * 8192..n * 8192 + 4096).collect();
    let files = sparse(2000 * 8192, &data);
    let finished = files.vmm().args(&["--stats", "-p", "100"]).succeed();
    assert_eq!(counted(&finished, "input", " bytes read"), 2000 * 4096);
    assert_eq!(counted(&finished, "output", " bytes written"), 2000 * 4096);
    assert_same_large(&files.output(), &files.input());
    assert!(blocks(&files.output()) <= blocks(&files.input()));
}

#[test]
fn the_bar_counts_what_was_skipped() {
    needs_kvm!();
    let files = sparse(64 * MIB, &[3 * MIB..5 * MIB]);
    let terminal = Terminal::open();
    let running = terminal.attach_stderr(files.vmm()).start();
    let shown = terminal.read_to_end();
    assert_eq!(running.finish().code(), Some(0));
    assert!(shown.contains("100%  copied 64.00 MiB in "), "{shown:?}");
}

#[test]
fn room_that_was_allocated_and_never_written_is_copied_whoever_reads_it_meanwhile() {
    needs_kvm!();
    let files = sparse(64 * MIB, &[0..100_000, 5 * MIB..5 * MIB + 1]);
    let input = File::options()
        .read(true)
        .write(true)
        .open(files.input())
        .unwrap();
    let whole = rustix::fs::FallocateFlags::empty();
    if rustix::fs::fallocate(&input, whole, 0, 64 * MIB).is_err() {
        return skip("the file system allocates nothing");
    }
    input.sync_all().unwrap();
    for options in [
        &[][..],
        &["--verify"],
        &["--sparse", "always"],
        &["--direct"],
    ] {
        rustix::fs::fadvise(&input, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let running = files.vmm().args(options).start();
        // Anybody may read the input, which brings it into the page cache.
        std::io::copy(&mut &input, &mut std::io::sink()).unwrap();
        let finished = running.finish();
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        assert_same_large(&files.input(), &files.output());
    }
}

#[test]
fn data_that_has_no_place_yet_is_no_hole_on_a_file_system_without_extents() {
    needs_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let Some((_mounted, without)) = mount_without_extents(folder.path()) else {
        return;
    };
    let (input, output) = (without.join("input"), without.join("output"));
    for options in [
        &["--verify"][..],
        &["--sparse", "always"],
        &["--sparse", "never"],
        &["--request-size", "1K"],
    ] {
        make_with_late_data(&input);
        Vmm::copying(&input, &output).args(options).succeed();
        assert_same_large(&input, &output);
    }
}

#[test]
fn data_that_comes_into_a_hole_meanwhile_is_found_on_a_file_system_without_extents() {
    needs_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let Some((_mounted, without)) = mount_without_extents(folder.path()) else {
        return;
    };
    let (input, output) = (without.join("input"), without.join("output"));
    let file = File::create(&input).unwrap();
    file.write_all_at(&random(4 << 20, 1), 0).unwrap();
    file.set_len(8 * MIB).unwrap();
    let slowly = ["--queue-depth", "1", "--request-size", "512", "-p", "100"];
    let running = Vmm::copying(&input, &output).args(&slowly).start();
    running.meanwhile(|| file.write_all_at(&random(64 << 10, 2), 6 * MIB).unwrap());
    let finished = running.finish();
    finished.assert_failed(3, "where it had a hole when the run began");
    assert!(!output.exists());
}
