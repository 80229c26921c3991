//! What is refused before a VM exists: one clear line, the documented exit status, nothing
//! created, and an existing output as it was.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use common::elf::{Elf, R, RW, RWX, RX};
use common::process::{binary, copy_program};
use common::program::Program;
use common::{Files, GUEST, Vmm, is_root, needs_kvm, skip, test};
use guest_abi::layout::{IMAGE, IMAGE_SIZE, PAGE_SIZE};

fn main() -> std::process::ExitCode {
    common::harness::main()
}

const WRONG_USAGE: i32 = 2;
const HOST_FAILED: i32 = 3;
const OLD: &[u8] = b"what was there before";

fn files() -> Files {
    Files::random(5000).with_old_output(OLD)
}

/// Fails unless `vmm` ends with `code` and nothing but one line, which holds all of `parts`.
#[track_caller]
fn refused(vmm: Vmm, code: i32, parts: &[&str]) {
    let finished = vmm.run();
    finished.assert_failed(code, "");
    assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
    assert_eq!(finished.stdout, "");
    for part in parts {
        assert!(
            finished.stderr.contains(part),
            "expected {part:?} in {:?}",
            finished.stderr
        );
    }
}

#[track_caller]
fn wrong_option(options: &[&str], parts: &[&str]) {
    let files = files();
    refused(files.vmm().args(options), WRONG_USAGE, parts);
    files.assert_untouched();
}

#[test]
fn wrong_sector_sizes_are_refused_with_what_is_valid() {
    for option in ["--input-sector-size", "--output-sector-size"] {
        for size in [
            "131072",
            "1000",
            "0",
            "-1",
            "3k",
            "256",
            "",
            "512.0",
            "4294967808",
        ] {
            wrong_option(&[option, size], &[option, "power of two from 512 to 65536"]);
        }
    }
}

#[test]
fn other_wrong_values_are_refused_with_what_is_valid() {
    let cases: [(&[&str], &str); 14] = [
        (&["--progress-percent", "101"], "0 to 100"),
        (&["--progress-percent", "-1"], "0 to 100"),
        (&["--protocol", "morse"], "protobuf or text"),
        (&["--request-size", "0"], "up to 1048576"),
        (&["--request-size", "1000"], "a multiple of 512"),
        (&["--request-size", "2097152"], "up to 1048576"),
        (&["--queue-depth", "0"], "from 1 to 682"),
        (&["--queue-depth", "683"], "1 to 682"),
        (&["--timeout", "0"], "above 0"),
        (&["--timeout", "soon"], "above 0"),
        (&["--timeout", "inf"], "above 0"),
        (&["--format", "xml"], "text or json"),
        (&["--nonsense"], "--nonsense"),
        (&["--quiet", "--verbose"], "give one of them"),
    ];
    for (options, part) in cases {
        wrong_option(options, &[part]);
    }
    wrong_option(
        &["--input-sector-size", "4096", "--request-size", "512"],
        &["a multiple of 4096"],
    );
}

#[test]
fn missing_files_on_the_command_line_are_refused() {
    refused(Vmm::bare(), WRONG_USAGE, &["--input SRC", "--help"]);
    refused(
        Vmm::bare().args(&["--input", "a"]),
        WRONG_USAGE,
        &["--output DST"],
    );
    refused(
        Vmm::bare().args(&["--output", "b"]),
        WRONG_USAGE,
        &["--input SRC"],
    );
    wrong_option(&["guest", "another"], &["another"]);
}

/// Fails unless copying `input` to the output is refused with `parts`.
#[track_caller]
fn wrong_input(files: &Files, input: &Path, parts: &[&str]) {
    refused(Vmm::copying(input, &files.output()), HOST_FAILED, parts);
    files.assert_untouched();
}

#[track_caller]
fn wrong_output(files: &Files, output: &Path, parts: &[&str]) {
    refused(Vmm::copying(&files.input(), output), HOST_FAILED, parts);
    files.assert_untouched();
}

#[test]
fn an_input_that_is_missing_or_no_file_is_refused() {
    let mut files = files();
    wrong_input(
        &files,
        &files.path("nowhere.img"),
        &["nowhere.img", "No such file"],
    );
    wrong_input(&files, files.folder(), &["as the input", "a directory"]);
    wrong_input(&files, "/dev/zero".as_ref(), &["a character device"]);
    wrong_input(&files, "/proc/self/status".as_ref(), &["its length as 0"]);
    let socket = files.expect("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    wrong_input(&files, &socket, &["a socket"]);
    let fifo = make_fifo(&mut files);
    wrong_input(&files, &fifo, &["a FIFO"]);
}

fn make_fifo(files: &mut Files) -> PathBuf {
    let fifo = files.expect("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    fifo
}

#[test]
fn an_input_whose_length_the_system_makes_up_is_refused_with_that_reason() {
    let Some(made_up) = ["/sys/kernel/uevent_seqnum", "/sys/power/state"]
        .iter()
        .find(|path| fs::read(path).is_ok())
    else {
        return skip("there is no sysfs here");
    };
    wrong_input(&files(), made_up.as_ref(), &["the system makes up"]);
}

#[test]
fn nothing_waits_for_a_guest_or_statistics_file_that_is_a_fifo() {
    let mut files = files();
    let fifo = make_fifo(&mut files);
    refused(
        files.vmm().arg(&fifo),
        HOST_FAILED,
        &["as the guest: it is a FIFO"],
    );
    refused(
        files.vmm().arg("--stats-file").arg(&fifo),
        HOST_FAILED,
        &["as the statistics file: it is a FIFO"],
    );
    files.assert_untouched();
}

#[test]
fn nothing_that_is_written_is_read_or_written_as_something_else() {
    let mut files = files();
    let guest = files.add("guest", GUEST);
    let (soft, hard) = (files.expect("soft"), files.expect("hard"));
    symlink("input.img", &soft).unwrap();
    fs::hard_link(&guest, &hard).unwrap();
    for stats in [&files.input(), &soft, &guest, &hard, &files.output()] {
        refused(
            files.vmm().arg("--stats-file").arg(stats).arg(&guest),
            HOST_FAILED,
            &["the statistics file", "is the same file as the"],
        );
    }
    refused(
        Vmm::copying(&files.input(), &hard).arg(&guest),
        HOST_FAILED,
        &["the output", "is the same file as the guest"],
    );
    let new = files.path("new");
    refused(
        Vmm::copying(&files.input(), &new)
            .arg("--stats-file")
            .arg(&new),
        HOST_FAILED,
        &["is the same file as the output"],
    );
    let log = files.add("log", OLD);
    let stdout = fs::OpenOptions::new().append(true).open(&log).unwrap();
    let finished = files
        .vmm()
        .args(&["--stats-file", "/dev/stdout"])
        .stdout(stdout)
        .run();
    assert_eq!(finished.code(), Some(HOST_FAILED));
    assert!(finished.stderr.contains("the standard output goes to"));
    files.assert_untouched();
}

#[test]
fn nothing_is_read_that_the_standard_streams_go_to() {
    let mut files = files();
    let (input, output) = (files.input(), files.output());
    let image = files.add("image.raw", &[0; 4096]);
    let open = || fs::OpenOptions::new().append(true).open(&input).unwrap();
    let before = fs::read(&input).unwrap();
    let raw = |command| Vmm::bare().args(&[command, "--image-format", "raw"]);
    for vmm in [
        Vmm::copying(&input, &output),
        raw("info").arg(&input),
        raw("check").arg(&input),
        raw("convert").arg(&input).arg(&output),
        raw("convert")
            .arg(&image)
            .arg(&output)
            .arg("--backing")
            .arg(&input),
    ] {
        let finished = vmm.stdout(open()).run();
        finished.assert_failed(HOST_FAILED, "is the file that the standard output goes to");
        assert!(fs::read(&input).unwrap() == before);
    }
}

#[test]
fn the_reason_for_a_refusal_is_not_written_to_a_file_of_the_run() {
    let mut files = files();
    let (input, output) = (files.input(), files.output());
    let image = files.add("image.raw", &[0; 4096]);
    let append = |path: &Path| fs::OpenOptions::new().append(true).open(path).unwrap();
    let before = fs::read(&input).unwrap();
    let raw = |command| Vmm::bare().args(&[command, "--image-format", "raw"]);
    let copying = || Vmm::copying(&input, &output);
    let reason = "is the file that the standard error goes to; send standard error elsewhere\n";
    for vmm in [
        copying(),
        raw("info").arg(&input),
        raw("check").arg(&input),
        raw("convert").arg(&input).arg(&output),
        // Of two reasons it is the one that can be told.
        copying().arg(files.path("no-guest")),
    ] {
        let finished = vmm.stderr(append(&input)).run();
        assert_eq!(finished.code(), Some(HOST_FAILED), "{finished:?}");
        assert!(finished.stdout.ends_with(reason), "{finished:?}");
        assert_eq!(finished.stdout.lines().count(), 1, "{finished:?}");
        assert!(fs::read(&input).unwrap() == before);
    }
    let convert = raw("convert").arg(&image).arg(&output);
    let convert = convert.arg("--backing").arg(&input);
    let finished = convert.stderr(append(&input)).run();
    assert!(finished.stdout.contains("the backing file"), "{finished:?}");
    assert!(fs::read(&input).unwrap() == before);

    // An old output, and both streams on files of the run.
    for out in [&input, &output] {
        let vmm = copying().stdout(append(out)).stderr(append(&output));
        assert_eq!(vmm.run().code(), Some(HOST_FAILED));
    }
    let json = || copying().args(&["--format", "json"]);
    let finished = json().stderr(append(&output)).run();
    assert!(
        finished.stdout.starts_with("{\"type\":\"result\""),
        "{finished:?}"
    );
    assert_eq!(finished.stdout.lines().count(), 1, "{finished:?}");
    let finished = json().stdout(append(&input)).run();
    finished.assert_failed(HOST_FAILED, "is the file that the standard output goes to");
    assert!(fs::read(&input).unwrap() == before);
    files.assert_untouched();
}

#[test]
fn an_output_that_cannot_be_is_refused() {
    let files = files();
    let nowhere = files.path("nowhere/copy.img");
    wrong_output(&files, &nowhere, &["nowhere", "create the folder first"]);
    wrong_output(&files, files.folder(), &["as the output", "a directory"]);
    wrong_output(
        &files,
        &files.input().join("copy.img"),
        &["Not a directory"],
    );
    wrong_output(&files, &files.path("copy.img/"), &["slash"]);
    wrong_output(&files, &files.path("copy.img/."), &["dot"]);
}

#[test]
fn a_path_that_would_break_the_line_is_shown_on_one() {
    let files = files();
    let missing = files.path("a\nvmm: \u{1b}[2J\u{202e}");
    let shown = r"a\nvmm: \x1b[2J\u202e'";
    wrong_input(&files, &missing, &[shown]);
    wrong_output(
        &files,
        &missing.join("copy.img"),
        &[r"\x1b[2J\u202e/copy.img'"],
    );
    refused(files.vmm().arg(&missing), HOST_FAILED, &[shown]);
}

#[test]
fn the_input_as_output_is_refused_also_through_links() {
    let mut files = files();
    wrong_output(&files, &files.input(), &["the same file"]);
    let (soft, hard) = (files.expect("soft.img"), files.expect("hard.img"));
    symlink(files.input(), &soft).unwrap();
    fs::hard_link(files.input(), &hard).unwrap();
    for link in [soft, hard] {
        wrong_output(&files, &link, &["the same file"]);
    }
}

/// The binary where anyone can run it, in a folder that anyone can read.
fn for_anyone(files: &mut Files) -> PathBuf {
    fs::set_permissions(files.folder(), Permissions::from_mode(0o755)).unwrap();
    let copy = files.expect("vmm");
    copy_program(&binary(), &copy);
    copy
}

#[test]
fn what_the_user_may_not_read_or_write_is_refused() {
    if !is_root() {
        return skip("it takes root to become another user");
    }
    let mut files = files();
    let vmm = for_anyone(&mut files);
    let copying = |input: &Path, output: &Path| {
        let vmm = Vmm::of(&vmm).unprivileged().arg("--input").arg(input);
        vmm.arg("--output").arg(output)
    };
    let folder = files.path("copy.img");
    let parts = [
        "copy.img",
        "Permission denied",
        "a folder that you can write to",
    ];
    refused(copying(&files.input(), &folder), HOST_FAILED, &parts);
    let parts = ["output.img", "Permission denied"];
    refused(
        copying(&files.input(), &files.output()),
        HOST_FAILED,
        &parts,
    );
    fs::set_permissions(files.input(), Permissions::from_mode(0o600)).unwrap();
    let parts = ["input.img", "Permission denied", "permission to read"];
    refused(
        copying(&files.input(), "/dev/null".as_ref()),
        HOST_FAILED,
        &parts,
    );
    files.assert_untouched();
}

#[test]
fn without_permission_for_kvm_the_reason_says_how_to_get_it() {
    needs_kvm!();
    if !is_root() {
        return skip("it takes root to become another user");
    }
    let mode = fs::metadata("/dev/kvm").unwrap().permissions().mode();
    if mode & 0o006 != 0 {
        return skip("everyone may use /dev/kvm here");
    }
    let mut files = files();
    let vmm = Vmm::of(&for_anyone(&mut files)).unprivileged();
    let vmm = vmm
        .arg("--input")
        .arg(files.input())
        .args(&["--output", "/dev/null"]);
    refused(
        vmm,
        HOST_FAILED,
        &["/dev/kvm", "permission denied", "group kvm"],
    );
    files.assert_untouched();
}

/// Fails unless `image` as the guest is refused with `parts`.
#[track_caller]
fn wrong_guest(image: &[u8], parts: &[&str]) {
    if !common::kvm_is_usable() {
        return;
    }
    let mut files = files();
    let guest = files.add("guest", image);
    refused(files.vmm().arg(guest), HOST_FAILED, parts);
    files.assert_untouched();
}

fn good_guest() -> Elf {
    Elf::of(&Program::new().exit(0).build())
}

#[test]
fn a_guest_that_is_no_file_is_refused() {
    let files = files();
    let missing = files.path("nowhere.elf");
    refused(
        files.vmm().arg(missing),
        HOST_FAILED,
        &["nowhere.elf", "No such file"],
    );
    refused(
        files.vmm().arg(files.folder()),
        HOST_FAILED,
        &["as the guest", "a directory"],
    );
    files.assert_untouched();
}

#[test]
fn a_guest_that_is_empty_or_does_not_fit_is_refused() {
    wrong_guest(&[], &["/guest as the guest: it is empty"]);
    let room = usize::try_from(IMAGE_SIZE).unwrap();
    wrong_guest(&vec![0x90; room + 1], &["too big", "983041", "983040"]);
    wrong_guest(
        &vec![0x90; (16 << 20) + 2],
        &["too big: it has more than 16777216 bytes"],
    );
}

#[test]
fn an_elf_file_that_is_not_for_this_machine_is_refused() {
    let elf = good_guest();
    let arm = Elf {
        machine: 183,
        ..elf.clone()
    };
    wrong_guest(&arm.build(), &["not for x86-64"]);
    let pie = Elf {
        kind: 3,
        ..elf.clone()
    };
    wrong_guest(&pie.build(), &["-no-pie"]);
    let mut narrow = elf.build();
    narrow[4] = 1;
    wrong_guest(&narrow, &["not for x86-64"]);
}

#[test]
fn an_elf_file_that_is_cut_off_is_refused() {
    let whole = good_guest().build();
    for len in [4, 63, 64, 100, whole.len() - 1] {
        wrong_guest(&whole[..len], &["cut off"]);
    }
}

#[test]
fn segments_outside_the_image_are_refused() {
    for address in [
        0,
        IMAGE - PAGE_SIZE,
        IMAGE + IMAGE_SIZE - 8,
        IMAGE + IMAGE_SIZE,
        u64::MAX - 8,
    ] {
        let elf = good_guest().with(address, RW, &[1; 16]);
        wrong_guest(
            &elf.build(),
            &["/guest as the guest", "a segment at", "is not within"],
        );
    }
}

#[test]
fn pages_that_are_both_writable_and_executable_are_refused() {
    let one = good_guest().with(IMAGE + PAGE_SIZE, RWX, &[0x90; 16]);
    let two = good_guest().with(IMAGE + PAGE_SIZE, RX, &[0x90; 16]).with(
        IMAGE + PAGE_SIZE + 16,
        RW,
        &[0; 16],
    );
    for elf in [one, two] {
        wrong_guest(&elf.build(), &["both writable and executable"]);
    }
}

#[test]
fn an_entry_point_outside_of_executable_code_is_refused() {
    let data = IMAGE + PAGE_SIZE;
    for entry in [0, IMAGE - 1, data, IMAGE + 2 * PAGE_SIZE, u64::MAX] {
        let elf = Elf {
            entry,
            ..good_guest().with(data, R, &[0; 16])
        };
        wrong_guest(&elf.build(), &["its entry point"]);
    }
}
