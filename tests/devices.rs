//! Copies from and to block devices: loop devices and their partitions, in use or not, with blocks of
//! 512 and of 4096 bytes, that can punch holes or cannot.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::files::assert_same_large;
use common::loop_device::{Loop, claim, make_ext4};
use common::memory_device::MemoryDevice;
use common::mount::Mounted;
use common::process::binary;
use common::{Files, Finished, Vmm, leave_out, needs_kvm, random, skip, test};
use rustix::fs::{CWD, FileType, Mode, mknodat};

fn main() -> std::process::ExitCode {
    common::harness::main()
}

const MIB: usize = 1 << 20;
/// What a device holds before the copy.
const OLD: u8 = 0xaa;

/// Files whose input has `length` bytes: random ones in its second MiB, and holes.
fn sparse(length: usize) -> Files {
    let files = Files::new(&[]);
    let input = File::options().write(true).open(files.input()).unwrap();
    input.set_len(length as u64).unwrap();
    input.write_all_at(&random(MIB, 7), MIB as u64).unwrap();
    files
}

/// A file of `length` bytes for a device to lie over.
fn backing(path: PathBuf, length: usize) -> PathBuf {
    std::fs::write(&path, vec![OLD; length]).unwrap();
    path
}

/// Fails unless `bytes` are those of the input, and old ones behind them.
#[track_caller]
fn assert_holds(bytes: &[u8], files: &Files) {
    let input = std::fs::read(files.input()).unwrap();
    let (copied, rest) = bytes.split_at(input.len());
    assert!(copied == input, "the copy differs");
    assert!(rest.iter().all(|byte| *byte == OLD), "the rest was touched");
}

#[test]
fn a_device_gets_the_holes_as_zeros_and_keeps_what_lies_behind_the_copy() {
    needs_kvm!();
    let files = sparse(8 * MIB - 700);
    for options in [
        &["--sparse", "auto"][..],
        &["--sparse", "always", "--direct"],
        &["--sparse", "never"],
    ] {
        let below = backing(files.path("backing"), 9 * MIB);
        let Some(device) = Loop::over(&below) else {
            return;
        };
        let vmm = Vmm::copying(&files.input(), device.path());
        vmm.args(options).arg("--verify").succeed();
        drop(device);
        assert_holds(&std::fs::read(&below).unwrap(), &files);
    }
    // And back again: a device is read from end to end.
    let Some(device) = Loop::over(&files.path("backing")) else {
        return;
    };
    Vmm::copying(device.path(), &files.output()).succeed();
    assert_same_large(&files.output(), &files.path("backing"));
}

#[test]
fn holes_are_punched_into_a_device_that_can_and_stay_where_all_is_to_be_written() {
    needs_kvm!();
    for (when, punched) in [("auto", true), ("never", false)] {
        let files = sparse(8 * MIB);
        let below = backing(files.path("backing"), 8 * MIB);
        let Some(device) = Loop::over(&below) else {
            return;
        };
        if device.limit("discard_max_bytes") == Some(0) {
            return skip("a loop device over this file system cannot punch holes");
        }
        let vmm = Vmm::copying(&files.input(), device.path());
        vmm.args(&["--sparse", when, "--fsync"]).succeed();
        drop(device);
        assert_holds(&std::fs::read(&below).unwrap(), &files);
        let blocks = below.metadata().unwrap().blocks();
        // All but the second of eight MiB are holes.
        assert_eq!(blocks < 3 * 2048, punched, "{blocks} blocks with {when}");
    }
}

#[test]
fn zeros_are_written_to_a_device_that_cannot_punch_holes() {
    needs_kvm!();
    let files = sparse(8 * MIB);
    // A file system without fallocate: a loop device over it has neither of the two calls.
    let folder = files.path("memory");
    let Some(_mounted) = Mounted::new("ramfs", Path::new("none"), &folder) else {
        return;
    };
    let below = backing(folder.join("backing"), 9 * MIB);
    let Some(device) = Loop::over(&below) else {
        return;
    };
    assert_eq!(device.limit("discard_max_bytes"), Some(0));
    let vmm = Vmm::copying(&files.input(), device.path());
    vmm.arg("--verify").succeed();
    assert_holds(&std::fs::read(device.path()).unwrap(), &files);
}

#[test]
fn a_device_that_is_too_small_is_refused_untouched() {
    needs_kvm!();
    let files = sparse(2 * MIB);
    let below = backing(files.path("backing"), MIB);
    let Some(device) = Loop::over(&below) else {
        return;
    };
    for options in [&[][..], &["--force"]] {
        let vmm = Vmm::copying(&files.input(), device.path());
        let finished = vmm.args(options).run();
        finished.assert_failed(3, "is too small: it has 1048576 bytes");
    }
    drop(device);
    assert!(
        std::fs::read(&below)
            .unwrap()
            .iter()
            .all(|byte| *byte == OLD)
    );
}

#[test]
fn a_device_that_is_in_use_is_refused_unless_that_is_forced() {
    needs_kvm!();
    let files = sparse(2 * MIB);
    let below = backing(files.path("backing"), 2 * MIB);
    let Some(device) = Loop::over(&below) else {
        return;
    };
    // A loop device does not claim what it lies on.
    let Some(upper) = Loop::over(device.path()) else {
        return;
    };
    let holder = claim(upper.path());
    let refused = || {
        let finished = Vmm::copying(&files.input(), device.path()).run();
        finished.assert_failed(3, "unmount it, or stop what uses it, or give --force");
    };
    refused();
    drop(holder);
    drop(upper);
    let holder = claim(device.path());
    refused();
    assert!(
        std::fs::read(&below)
            .unwrap()
            .iter()
            .all(|byte| *byte == OLD)
    );
    // To read from it is nobody's harm.
    Vmm::copying(device.path(), &files.output()).succeed();
    let vmm = Vmm::copying(&files.input(), device.path());
    vmm.arg("--force").succeed();
    drop(holder);
    drop(device);
    assert_holds(&std::fs::read(&below).unwrap(), &files);
}

#[test]
fn a_device_that_is_mounted_is_refused_unless_that_is_forced() {
    needs_kvm!();
    let files = sparse(2 * MIB);
    let below = backing(files.path("backing"), 16 * MIB);
    let Some(device) = Loop::over(&below) else {
        return;
    };
    let Some(()) = make_ext4(device.path(), None) else {
        return;
    };
    // To read only, so that the file system writes nothing either.
    let target = files.path("mounted");
    let Some(mounted) = Mounted::new("ext4", device.path(), &target) else {
        return;
    };
    let finished = Vmm::copying(&files.input(), device.path()).run();
    finished.assert_failed(3, "unmount it, or stop what uses it, or give --force");
    // The file system changes blocks of its own in memory, which are seen here: only of the input's
    // random bytes is it sure where they come from.
    let input = std::fs::read(files.input()).unwrap();
    let holds_input = || std::fs::read(device.path()).unwrap()[MIB..2 * MIB] == input[MIB..];
    assert!(!holds_input());
    let forced = Vmm::copying(&files.input(), device.path())
        .arg("--force")
        .run();
    if forced.code() != Some(0) {
        // A kernel may be built so that nobody writes to a device that is mounted.
        leave_out(&format!("--force on a mounted device: {}", forced.stderr));
        return;
    }
    drop(mounted);
    assert!(holds_input());
}

/// Swap space in use, until it is dropped.
struct Swap<'a>(&'a Path);

impl<'a> Swap<'a> {
    fn on(path: &'a Path) -> Option<Self> {
        let succeeds = |program: &str| {
            let output = Command::new(program).arg(path).output();
            output.is_ok_and(|output| output.status.success())
        };
        if !succeeds("mkswap") || !succeeds("swapon") {
            skip("nothing can be swapped to here");
            return None;
        }
        Some(Self(path))
    }
}

impl Drop for Swap<'_> {
    fn drop(&mut self) {
        let _ = Command::new("swapoff").arg(self.0).status();
    }
}

#[test]
fn a_device_over_one_that_is_in_use_is_refused_unless_that_is_forced() {
    needs_kvm!();
    let files = sparse(2 * MIB);
    // It lies on nothing in which it could be seen that both have bytes in common.
    let Some(memory) = MemoryDevice::new(16 * MIB) else {
        return;
    };
    let Some(middle) = Loop::over(memory.path()) else {
        return;
    };
    let Some(upper) = Loop::over(middle.path()) else {
        return;
    };
    let is_refused = || {
        let before = std::fs::read(memory.path()).unwrap();
        for device in [memory.path(), middle.path(), upper.path()] {
            let finished = Vmm::copying(&files.input(), device).run();
            finished.assert_failed(3, "unmount it, or stop what uses it, or give --force");
        }
        assert!(std::fs::read(memory.path()).unwrap() == before);
    };
    let Some(()) = make_ext4(memory.path(), None) else {
        return;
    };
    let target = files.path("mounted");
    let Some(mounted) = Mounted::new("ext4", memory.path(), &target) else {
        return;
    };
    is_refused();
    drop(mounted);
    let Some(swap) = Swap::on(memory.path()) else {
        return;
    };
    is_refused();
    drop(swap);
    let holder = claim(memory.path());
    is_refused();
    let vmm = Vmm::copying(&files.input(), upper.path());
    vmm.args(&["--force", "--fsync"]).succeed();
    drop(holder);
    let input = std::fs::read(files.input()).unwrap();
    assert!(std::fs::read(memory.path()).unwrap().starts_with(&input));
    Vmm::copying(&files.input(), upper.path()).succeed();
}

#[test]
fn a_device_over_a_swap_file_in_use_is_refused() {
    needs_kvm!();
    let files = sparse(2 * MIB);
    let below = backing(files.path("backing"), 4 * MIB);
    std::fs::set_permissions(&below, PermissionsExt::from_mode(0o600)).unwrap();
    let Some(device) = Loop::over(&below) else {
        return;
    };
    let Some(swap) = Swap::on(&below) else {
        return;
    };
    let finished = Vmm::copying(&files.input(), device.path()).run();
    finished.assert_failed(3, "unmount it, or stop what uses it, or give --force");
    drop(swap);
    Vmm::copying(&files.input(), device.path()).succeed();
}

#[test]
fn a_device_over_a_swap_file_is_refused_where_the_path_of_that_leads_elsewhere() {
    needs_kvm!();
    let files = sparse(2 * MIB);
    let folder = files.path("folder");
    std::fs::create_dir(&folder).unwrap();
    let below = backing(folder.join("swap space"), 4 * MIB);
    std::fs::set_permissions(&below, PermissionsExt::from_mode(0o600)).unwrap();
    let Some(device) = Loop::over(&below) else {
        return;
    };
    let Some(swap) = Swap::on(&below) else {
        return;
    };
    let Some(mounted) = Mounted::new("tmpfs", Path::new("none"), &folder) else {
        return;
    };
    for name in ["another file", "swap space"] {
        std::fs::write(folder.join(name), "another file").unwrap();
        let finished = Vmm::copying(&files.input(), device.path()).run();
        finished.assert_failed(3, "unmount it, or stop what uses it, or give --force");
    }
    drop(mounted);
    drop(swap);
    Vmm::copying(&files.input(), device.path()).succeed();
}

#[test]
fn a_device_over_swap_space_is_refused_whatever_has_the_name_of_that() {
    needs_kvm!();
    let files = sparse(2 * MIB);
    let [below, beside] = ["below", "beside"].map(|name| backing(files.path(name), 4 * MIB));
    let (Some(device), Some(another)) = (Loop::over(&below), Loop::over(&beside)) else {
        return;
    };
    let Some(output) = Loop::over(device.path()) else {
        return;
    };
    let hidden = "mount --make-rprivate / && mount --bind \"$1\" \"$2\" && shift 2 && exec \"$@\"";
    let assert_refused = |hiding: &Path| {
        let unshare = Vmm::of(Path::new("unshare")).args(&["--mount", "sh", "-c", hidden, "sh"]);
        let vmm = unshare.arg(hiding).arg(device.path()).arg(binary());
        let finished = vmm.arg(files.input()).arg(output.path()).run();
        finished.assert_failed(3, "unmount it, or stop what uses it, or give --force");
    };
    let Some(swap) = Swap::on(device.path()) else {
        return;
    };
    for hiding in [Path::new("/dev/null"), another.path()] {
        assert_refused(hiding);
    }
    drop(swap);
    // Turned on by a name that sysfs does not know.
    let node = files.path("node");
    let number = std::fs::metadata(device.path()).unwrap().rdev();
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(CWD, &node, FileType::BlockDevice, mode, number).unwrap();
    let Some(swap) = Swap::on(&node) else {
        return;
    };
    assert_refused(Path::new("/dev/null"));
    drop(swap);
    Vmm::copying(&files.input(), output.path()).succeed();
}

#[test]
fn a_device_that_has_bytes_in_common_with_one_in_use_is_refused_also_without_proc_and_sysfs() {
    needs_kvm!();
    let files = sparse(2 * MIB);
    let below = backing(files.path("backing"), 4 * MIB);
    let Some(device) = Loop::over(&below) else {
        return;
    };
    let others = (Loop::over(device.path()), Loop::over(&below));
    let (Some(upper), Some(beside)) = others else {
        return;
    };
    let hidden = "mount --make-rprivate / && mount -t tmpfs none /proc && mount -t tmpfs none /sys \
                  && exec \"$@\"";
    let copying_to = |output: &Loop| {
        let unshare = Vmm::of(Path::new("unshare")).args(&["--mount", "sh", "-c", hidden, "sh"]);
        unshare.arg(binary()).arg(files.input()).arg(output.path())
    };
    let holder = claim(device.path());
    for output in [&device, &upper, &beside] {
        let finished = copying_to(output).arg("--quiet").run();
        finished.assert_failed(3, "unmount it, or stop what uses it, or give --force");
    }
    let old = std::fs::read(&below).unwrap();
    assert!(old.iter().all(|byte| *byte == OLD));
    drop(holder);
    for output in [&upper, &beside] {
        copying_to(output).succeed();
    }
}

#[test]
fn a_device_over_a_file_is_no_part_of_the_file_system_that_the_file_is_on() {
    needs_kvm!();
    let files = sparse(2 * MIB);
    let below = backing(files.path("backing"), 64 * MIB);
    let Some(device) = Loop::over(&below) else {
        return;
    };
    let Some(()) = make_ext4(device.path(), None) else {
        return;
    };
    let folder = files.path("mounted");
    let Some(mounted) = Mounted::with("rw", "ext4", device.path(), &folder) else {
        return;
    };
    let upper = backing(folder.join("file"), 3 * MIB);
    let Some(output) = Loop::over(&upper) else {
        return;
    };
    Vmm::copying(&files.input(), output.path()).succeed();
    drop(output);
    assert_holds(&std::fs::read(&upper).unwrap(), &files);
    // The other way round: where the lines of the run go is not written over either.
    let log = File::create(folder.join("log")).unwrap();
    // Ext4 uses nothing of the first 1024 bytes, should they be written.
    File::options()
        .write(true)
        .open(files.input())
        .unwrap()
        .set_len(1024)
        .unwrap();
    let onto = Vmm::copying(&files.input(), device.path()).arg("--force");
    let finished = onto.stdout(log).run();
    finished.assert_failed(3, "shares its bytes with what the standard output goes to");
    drop(mounted);
}

#[test]
fn with_direct_transfers_the_sector_size_that_suits_a_device_is_said_and_any_works() {
    needs_kvm!();
    for (block, sector, suits) in [
        ("512", "512", true),
        ("512", "4096", true),
        ("4096", "512", false),
        ("4096", "4096", true),
        ("4096", "65536", true),
    ] {
        let files = sparse(2 * MIB);
        let below = backing(files.path("backing"), 3 * MIB);
        let Some(device) = Loop::with(&below, &["--sector-size", block]) else {
            return;
        };
        let told = |name: &str| {
            format!(
                "the {name} device has blocks of 4096 bytes: what is not whole blocks goes through \
                 the page cache; give --{name}-sector-size 4096"
            )
        };
        let vmm = Vmm::copying(&files.input(), device.path());
        let options = ["--direct", "--verify", "--output-sector-size", sector];
        let finished = vmm.args(&options).succeed();
        let said = finished.stderr.contains(&told("output"));
        assert_eq!(said, !suits, "{block} {sector}: {finished:?}");
        assert_holds(&std::fs::read(device.path()).unwrap(), &files);
        let vmm = Vmm::copying(device.path(), &files.output());
        let finished = vmm
            .args(&["--direct", "--input-sector-size", sector])
            .succeed();
        let said = finished.stderr.contains(&told("input"));
        assert_eq!(said, !suits, "{block} {sector}: {finished:?}");
        drop(device);
        assert_same_large(&files.output(), &below);
    }
}

#[test]
fn a_copy_of_any_length_comes_out_right_on_a_device_of_large_blocks() {
    needs_kvm!();
    for length in [1, 511, 4095, 4097, 100_000] {
        let files = Files::random(length);
        let below = backing(files.path("backing"), MIB);
        let Some(device) = Loop::with(&below, &["--sector-size", "4096"]) else {
            return;
        };
        let vmm = Vmm::copying(&files.input(), device.path());
        vmm.args(&["--direct", "--verify"]).succeed();
        assert_holds(&std::fs::read(device.path()).unwrap(), &files);
    }
}

#[test]
fn a_partition_is_written_within_its_bounds() {
    needs_kvm!();
    const START: u64 = 2048;
    const LENGTH: u64 = 8192;
    let files = sparse(4 * MIB);
    let below = backing(files.path("backing"), 8 * MIB);
    // A partition table with one entry: of a Linux file system, with its first block and its length.
    let table = File::options().write(true).open(&below).unwrap();
    let mut sector = [0; 512];
    sector[450] = 0x83;
    sector[454..458].copy_from_slice(&u32::try_from(START).unwrap().to_le_bytes());
    sector[458..462].copy_from_slice(&u32::try_from(LENGTH).unwrap().to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    table.write_all_at(&sector, 0).unwrap();
    let Some(device) = Loop::with(&below, &["--partscan"]) else {
        return;
    };
    let Some(partition) = device.partition(1, START, LENGTH) else {
        return;
    };
    for options in [&["--verify"][..], &["--direct", "--fsync"]] {
        Vmm::copying(&files.input(), &partition)
            .args(options)
            .succeed();
        Vmm::copying(&partition, &files.output())
            .args(options)
            .succeed();
        assert_same_large(&files.output(), &files.input());
    }
    let whole = std::fs::read(device.path()).unwrap();
    assert!(whole[..512] == sector);
    let (start, end) = (MIB, 5 * MIB);
    assert!(whole[512..start].iter().all(|byte| *byte == OLD));
    assert!(whole[end..].iter().all(|byte| *byte == OLD));
    // One byte more than there is room for.
    let input = File::options().write(true).open(files.input()).unwrap();
    input.set_len(4 * MIB as u64 + 1).unwrap();
    let finished = Vmm::copying(&files.input(), &partition).run();
    finished.assert_failed(3, "is too small: it has 4194304 bytes");
    // What has a partition that is in use is in use as a whole.
    let holder = claim(&partition);
    let finished = Vmm::copying(&files.input(), device.path()).run();
    finished.assert_failed(3, "or give --force");
    drop(holder);
}

#[test]
fn a_device_that_is_set_to_be_read_only_is_refused_before_anything_is_read() {
    needs_kvm!();
    let files = sparse(2 * MIB);
    let below = backing(files.path("backing"), 2 * MIB);
    let Some(device) = Loop::with(&below, &["--read-only"]) else {
        return;
    };
    let finished = Vmm::copying(&files.input(), device.path()).run();
    finished.assert_failed(3, "Read-only file system; choose another");
}

/// Copies `input` to `output` slowly, and gives the file below a device and the device itself another
/// length in the middle of that.
fn resized_during_a_copy(
    (input, output): (&Path, &Path),
    (below, device): (&Path, &Path),
    length: u64,
) -> Finished {
    let running = Vmm::copying(input, output)
        .args(&["--request-size", "512", "--queue-depth", "1"])
        .start();
    running.meanwhile(|| {
        let file = File::options().write(true).open(below).unwrap();
        file.set_len(length).unwrap();
        let mut losetup = Command::new("losetup");
        let told = losetup.arg("--set-capacity").arg(device).status();
        assert!(told.unwrap().success());
    });
    running.finish()
}

#[test]
fn an_input_device_that_grows_during_the_copy_is_a_warning_and_one_that_shrinks_an_error() {
    needs_kvm!();
    let length = 32 * MIB as u64;
    for (later, status, said) in [
        (length * 2, 0, "has grown from 33554432 to 67108864 bytes"),
        (length / 2, 3, "has shrunk since"),
    ] {
        let files = Files::new(&[]);
        let below = backing(files.path("backing"), 32 * MIB);
        let Some(device) = Loop::over(&below) else {
            return;
        };
        let output = files.output();
        let finished =
            resized_during_a_copy((device.path(), &output), (&below, device.path()), later);
        assert_eq!(finished.code(), Some(status), "{finished:?}");
        assert!(finished.stderr.contains(said), "{finished:?}");
    }
}

#[test]
fn an_output_device_that_shrinks_during_the_copy_is_an_error_even_if_only_zeros_are_missing() {
    needs_kvm!();
    let files = Files::random(32 * MIB);
    let input = File::options().write(true).open(files.input()).unwrap();
    input.set_len(64 * MIB as u64).unwrap();
    let below = backing(files.path("backing"), 64 * MIB);
    let Some(device) = Loop::over(&below) else {
        return;
    };
    let (input, shorter) = (files.input(), 48 * MIB as u64);
    let copied = (input.as_path(), device.path());
    let finished = resized_during_a_copy(copied, (&below, device.path()), shorter);
    finished.assert_failed(3, "is too small: it has 50331648 bytes");
}
