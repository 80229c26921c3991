//! The copy is exact: for every length, every pair of sector sizes, every shape of requests, flat
//! and ELF guests, and whatever the paths are called.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use common::elf::flatten;
use common::files::{assert_same, assert_same_large, random};
use common::mount::{Mounted, can_unshare};
use common::process::binary;
use common::strace::{injected, with_fault};
use common::{Files, Finished, GUEST, Vmm, is_root, needs_kvm, needs_strace, skip, test};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

fn main() -> std::process::ExitCode {
    common::harness::main()
}

/// The valid sector sizes in bytes.
const SECTOR_SIZES: [u32; 8] = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536];

/// Copies `len` random bytes with these options and fails unless the copy is exact.
#[track_caller]
fn copies(len: usize, options: &[&str]) {
    let files = Files::random(len);
    let finished = files.vmm().args(options).succeed();
    assert_eq!(finished.stderr, "", "{options:?}");
    files.assert_copied();
}

fn sector_sizes(input: u32, output: u32) -> [String; 4] {
    [
        "--input-sector-size".to_owned(),
        input.to_string(),
        "--output-sector-size".to_owned(),
        output.to_string(),
    ]
}

#[test]
fn every_length_is_copied_exactly() {
    needs_kvm!();
    for len in [
        0,
        1,
        511,
        512,
        513,
        4095,
        65535,
        65536,
        65537,
        (5 << 20) + 3,
    ] {
        copies(len, &["--progress-percent", "100"]);
    }
}

#[test]
fn every_pair_of_sector_sizes_copies_an_odd_length_exactly() {
    needs_kvm!();
    for input in SECTOR_SIZES {
        for output in SECTOR_SIZES {
            let sizes = sector_sizes(input, output);
            copies(200_003, &sizes.each_ref().map(String::as_str));
        }
    }
}

#[test]
fn any_shape_of_requests_copies_exactly() {
    needs_kvm!();
    let config = Config {
        cases: 24,
        failure_persistence: None,
        ..Config::default()
    };
    let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let shape = (
        0_usize..400_000,
        0_usize..8,
        0_usize..8,
        1_u32..64,
        1_u32..=682,
        0_u8..=100,
    );
    TestRunner::new_with_rng(config, random)
        .run(&shape, |(len, input, output, sectors, depth, progress)| {
            let (input, output) = (SECTOR_SIZES[input], SECTOR_SIZES[output]);
            let unit = input.max(output);
            let request = (unit * sectors).min(1 << 20);
            let mut options = sector_sizes(input, output).to_vec();
            for (name, value) in [
                ("--request-size", request),
                ("--queue-depth", depth),
                ("--progress-percent", progress.into()),
            ] {
                options.extend([name.to_owned(), value.to_string()]);
            }
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            copies(len, &options);
            Ok(())
        })
        .unwrap();
}

#[test]
fn one_sector_a_request_and_one_request_at_a_time_copies_exactly() {
    needs_kvm!();
    copies(100_001, &["--request-size", "512", "--queue-depth", "1"]);
}

#[test]
fn direct_durable_and_text_copies_are_exact() {
    needs_kvm!();
    for option in [["--fsync"].as_slice(), &["--protocol", "text"]] {
        copies(100_001, option);
    }
    // Where a file system has no direct transfers there is a warning.
    let files = Files::random(100_001);
    files.vmm().arg("--direct").succeed();
    files.assert_copied();
}

#[test]
fn the_guest_works_as_an_elf_file_and_as_a_flat_binary() {
    needs_kvm!();
    for (name, image) in [("guest.elf", GUEST.to_vec()), ("guest.bin", flatten(GUEST))] {
        let mut files = Files::random(70_001);
        let guest = files.add(name, &image);
        files.vmm().arg(guest).succeed();
        files.assert_copied();
    }
}

#[test]
fn paths_may_hold_spaces_and_any_letters() {
    needs_kvm!();
    let files = Files::random(0);
    let folder = files.folder().join("ein Ordner – 目录");
    fs::create_dir(&folder).unwrap();
    let (input, output) = (
        folder.join("in put's \"ß\".img"),
        folder.join("out\tput é.img"),
    );
    let content = random(5000, 1);
    fs::write(&input, &content).unwrap();
    Vmm::copying(&input, &output).succeed();
    assert_same(&output, &content);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
}

#[test]
fn relative_paths_without_a_folder_work() {
    needs_kvm!();
    let files = Files::random(5000);
    Vmm::copying("input.img".as_ref(), "output.img".as_ref())
        .current_dir(files.folder())
        .succeed();
    files.assert_copied();
}

#[test]
fn an_input_of_gigabytes_with_holes_is_copied_exactly() {
    needs_kvm!();
    const LEN: u64 = (2 << 30) + 12_345;
    let mut files = Files::random(0);
    let (input, output) = (files.expect("large.img"), files.expect("copy.img"));
    let file = File::create(&input).unwrap();
    file.set_len(LEN).unwrap();
    // At both ends, and around what 32 bits can count.
    for offset in [0, (1 << 31) - 5000, LEN - 5000] {
        file.write_all_at(&random(5000, offset), offset).unwrap();
    }
    Vmm::copying(&input, &output)
        .args(&["--progress-percent", "100"])
        .succeed();
    assert_same_large(&input, &output);
}

#[test]
fn an_existing_output_is_replaced_and_keeps_its_permissions() {
    needs_kvm!();
    for mode in [0o600, 0o644, 0o640] {
        let files = Files::random(3000).with_old_output(&random(90_000, 2));
        fs::set_permissions(files.output(), fs::Permissions::from_mode(mode)).unwrap();
        files.vmm().succeed();
        files.assert_copied();
        assert_eq!(fs::metadata(files.output()).unwrap().mode() & 0o777, mode);
    }
}

#[test]
fn a_link_as_output_is_followed_and_kept() {
    needs_kvm!();
    let mut files = Files::random(3000);
    let target = files.expect("target.img");
    symlink("target.img", files.output()).unwrap();
    files.vmm().succeed();
    files.assert_copied();
    assert!(fs::symlink_metadata(files.output()).unwrap().is_symlink());
    assert!(fs::symlink_metadata(&target).unwrap().is_file());
}

#[test]
fn a_device_as_output_is_written_in_place() {
    needs_kvm!();
    let files = Files::random(100_000);
    Vmm::copying(&files.input(), "/dev/null".as_ref()).succeed();
    files.assert_untouched();
}

/// The end of a copy without the sandbox, one of whose calls met this fault (strace(1), `inject`).
#[track_caller]
fn copy_with_fault(files: &Files, fault: &str, options: &[&str]) -> Finished {
    let vmm = files.vmm().args(&["--no-sandbox", "--quiet"]);
    with_fault(vmm.args(options), fault)
}

#[test]
fn where_unnamed_files_cannot_be_named_there_is_a_second_way() {
    needs_kvm!();
    needs_strace!();
    for errno in ["EPERM", "EXDEV", "ENOENT", "EOPNOTSUPP"] {
        let files = Files::random(5000).with_old_output(b"old");
        let finished = copy_with_fault(&files, &format!("linkat:error={errno}"), &[]);
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        let why = "; if this run is killed it leaves";
        assert!(finished.stderr.contains(why), "{finished:?}");
        files.assert_copied();
    }
}

#[test]
fn a_mode_that_cannot_be_given_to_the_new_file_is_said() {
    needs_kvm!();
    needs_strace!();
    let files = Files::random(5000).with_old_output(b"old");
    fs::set_permissions(files.output(), fs::Permissions::from_mode(0o664)).unwrap();
    let finished = copy_with_fault(&files, "fchmod:error=EPERM", &[]);
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    let said = "its mode 664 cannot be kept; it will be 600";
    assert!(finished.stderr.contains(said), "{finished:?}");
    files.assert_copied();
}

#[test]
fn a_folder_that_cannot_be_synced_is_a_warning_behind_a_complete_copy() {
    needs_kvm!();
    needs_strace!();
    for (errno, warning) in [
        ("EINVAL", "its file system cannot make its name durable"),
        (
            "EIO",
            "its name could not be made durable: Input/output error",
        ),
    ] {
        let files = Files::random(5000);
        // The first is of the file itself.
        let fault = format!("fsync:error={errno}:when=2");
        let finished = copy_with_fault(&files, &fault, &["--fsync"]);
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        assert!(finished.stderr.contains(warning), "{finished:?}");
        files.assert_copied();
    }
    let files = Files::random(5000).with_old_output(b"old");
    let finished = copy_with_fault(&files, "fsync:error=EIO:when=1", &["--fsync"]);
    assert_eq!(finished.code(), Some(3), "{finished:?}");
    files.assert_untouched();
    let (finished, times) = injected(files.vmm().arg("--no-sandbox"), "fsync:error=EIO");
    assert_eq!((finished.code(), times), (Some(0), 0), "{finished:?}");
    files.assert_copied();
}

#[test]
fn statistics_replace_an_old_file_when_they_are_complete_and_keep_its_permissions() {
    needs_kvm!();
    let mut files = Files::random(5000);
    let folder = files.expect("elsewhere");
    fs::create_dir(&folder).unwrap();
    let stats = folder.join("stats.json");
    fs::write(&stats, "a longer text than any statistics".repeat(100)).unwrap();
    fs::set_permissions(&stats, fs::Permissions::from_mode(0o640)).unwrap();
    files.vmm().arg("--stats-file").arg(&stats).succeed();
    files.assert_copied();
    let json: serde_json::Value = serde_json::from_slice(&fs::read(&stats).unwrap()).unwrap();
    assert_eq!(json["success"], true);
    assert_eq!(fs::metadata(&stats).unwrap().mode() & 0o777, 0o640);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
}

#[test]
fn a_file_that_comes_to_the_name_meanwhile_is_replaced_and_nobody_gets_more() {
    needs_kvm!();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    for old in [false, true] {
        let mut files = Files::random(3_000_000);
        if old {
            files = files.with_old_output(b"old");
        }
        let slow = ["-p100", "--queue-depth=1", "--request-size=512"];
        let running = files.vmm().args(&slow).start();
        running.meanwhile(|| {
            let other = files.path("other");
            fs::write(&other, "private").unwrap();
            fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).unwrap();
            fs::rename(&other, files.output()).unwrap();
        });
        let finished = running.finish();
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        assert!(
            finished
                .stderr
                .contains("only the user who ran vmm may use the new one"),
            "{finished:?}"
        );
        assert_eq!(mode(&files.output()), 0o600);
        files.assert_copied();
    }
}

/// Without /proc a file has a hidden name from the start. The kernel answers as NFS does, which does not
/// look at a name before something is renamed to it.
#[test]
fn a_file_that_comes_to_the_name_is_found_where_no_renaming_says_that_it_is_there() {
    needs_kvm!();
    needs_strace!();
    if !can_unshare(&["--mount"]) {
        return;
    }
    let hidden = "mount --make-rprivate / && mount -t tmpfs none /proc && exec \"$@\"";
    let files = Files::random(3_000_000);
    let stats = files.path("stats");
    let vmm = Vmm::of("unshare".as_ref())
        .args(&["--mount", "sh", "-c", hidden, "sh"])
        .arg(binary())
        .args(&[
            "--no-sandbox",
            "-p100",
            "--queue-depth=1",
            "--request-size=512",
        ])
        .arg("--stats-file")
        .arg(&stats)
        .arg(files.input())
        .arg(files.output());
    let fault = ["-D", "-e", "inject=renameat2:error=EINVAL"];
    let running = vmm.traced("/dev/null".as_ref(), &fault).start();
    running.meanwhile(|| {
        for path in [&stats, &files.output()] {
            fs::write(path, "private").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        }
    });
    let finished = running.finish();
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    for told in [
        "a file that had come to its name during the run was replaced",
        "something has come to its name, and is left there",
    ] {
        assert!(finished.stderr.contains(told), "{finished:?}");
    }
    assert_same_large(&files.input(), &files.output());
    assert_eq!(fs::metadata(files.output()).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::read(&stats).unwrap(), b"private");
    // Neither has another name left.
    assert_eq!(fs::read_dir(files.folder()).unwrap().count(), 3);
}

/// The sandbox lets it be found out that no list of access came to the old file.
#[test]
fn an_old_file_that_is_written_to_meanwhile_is_replaced_by_one_with_its_permissions() {
    needs_kvm!();
    let files = Files::random(3_000_000).with_old_output(b"old");
    fs::set_permissions(files.output(), fs::Permissions::from_mode(0o640)).unwrap();
    let slow = ["-p100", "--queue-depth=1", "--request-size=512"];
    let running = files.vmm().args(&slow).start();
    running.meanwhile(|| fs::write(files.output(), "as a log is").unwrap());
    let finished = running.finish();
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    assert_eq!(finished.stderr, "", "{finished:?}");
    assert_eq!(fs::metadata(files.output()).unwrap().mode() & 0o777, 0o640);
    files.assert_copied();
}

#[test]
fn without_proc_a_copy_gets_its_name_all_the_same() {
    needs_kvm!();
    let files = Files::random(100_000);
    let hidden = "mount --make-rprivate / && umount -l /proc && exec \"$@\"";
    let within = || {
        let unshare = Vmm::of(Path::new("unshare"));
        unshare.args(&["--mount", "sh", "-c", hidden, "sh"])
    };
    if within().arg("true").run().code() != Some(0) {
        return skip("/proc cannot be unmounted here");
    }
    for _ in ["new", "replaced"] {
        let vmm = within()
            .arg(binary())
            .arg(files.input())
            .arg(files.output());
        let finished = vmm.arg("--stats-file").arg(files.path("stats")).run();
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        assert!(!finished.stderr.contains("cannot"), "{finished:?}");
        let why = "without /proc no unnamed file can be named; if this run is killed it leaves";
        assert!(finished.stderr.contains(why), "{finished:?}");
        assert!(fs::metadata(files.path("stats")).unwrap().len() > 0);
        assert!(fs::read(files.output()).unwrap() == fs::read(files.input()).unwrap());
    }
}

#[test]
fn a_folder_with_room_for_one_file_gets_the_copy_and_the_reason_for_its_name() {
    needs_kvm!();
    let files = Files::random(1000);
    let folder = files.path("small");
    // The folder itself, the old file, and one more.
    let options = "rw,nr_inodes=3";
    let Some(_mounted) = Mounted::with(options, "tmpfs", Path::new("none"), &folder) else {
        return;
    };
    let output = folder.join("output");
    fs::write(&output, "old").unwrap();
    let finished = Vmm::copying(&files.input(), &output).succeed();
    let reason =
        "there is no room to try out whether unnamed files can be named; if this run is killed";
    assert!(finished.stderr.contains(reason), "{finished:?}");
    assert_same_large(&files.input(), &output);
}

/// Runs a program as root in a user namespace in which root and nobody alone are known. It waits there
/// until the namespace has been told of them.
const AS_ROOT_IN_A_NAMESPACE: &str = r#"
    unshare --user sh -c '
        until [ "$(id -u)" = 0 ]; do sleep 0.02; done
        exec "$0" -q "$@"
    ' "$0" "$@" &
    for map in gid_map uid_map; do
        until printf '0 0 1\n65534 165534 1\n' 2>/dev/null >/proc/$!/$map; do
            kill -0 $! || exit 99
            sleep 0.02
        done
    done
    wait $!"#;
/// What it ends with where that cannot be had.
const NO_NAMESPACE: i32 = 99;

/// In a user namespace all owners and groups that are not known there have one number, which belongs to
/// somebody else who is known.
#[test]
fn a_group_that_is_not_known_here_is_not_taken_for_the_one_that_has_its_number() {
    needs_kvm!();
    if !is_root() {
        return skip("only root can make a namespace in which root and nobody are known");
    }
    // Mounted anew, since a container's /proc may not be written.
    let unshare = ["--pid", "--fork", "--kill-child", "--mount-proc"];
    if !can_unshare(&unshare) {
        return;
    }
    const STRANGER: u32 = 5000;
    for (owner, group, mode, expected) in [
        (0, STRANGER, 0o640, 0o600),
        (STRANGER, 0, 0o624, 0o624),
        (0, 0, 0o640, 0o640),
    ] {
        let files = Files::random(5000).with_old_output(b"old");
        let output = files.output();
        chown(&output, Some(owner), Some(group)).unwrap();
        fs::set_permissions(&output, fs::Permissions::from_mode(mode)).unwrap();
        let unshare = Vmm::of(Path::new("unshare")).args(&unshare);
        let vmm = unshare
            .args(&["sh", "-c", AS_ROOT_IN_A_NAMESPACE])
            .arg(binary());
        let finished = vmm.arg(files.input()).arg(&output).run();
        if finished.code() == Some(NO_NAMESPACE) {
            return skip("no user namespace can be made here");
        }
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        let is_known = owner != STRANGER && group != STRANGER;
        assert_eq!(finished.stderr.is_empty(), is_known, "{finished:?}");
        let now = fs::metadata(&output).unwrap();
        assert_eq!((now.uid(), now.gid()), (0, 0), "{finished:?}");
        assert_eq!(now.mode() & 0o777, expected, "{finished:?}");
        files.assert_copied();
    }
}
