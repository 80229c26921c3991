//! The documents are true: their commands are run, what they show is what comes, the targets that
//! they name exist, and their links lead somewhere.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::process::binary;
use common::{GUEST, needs_kvm, random, test};

fn main() -> std::process::ExitCode {
    common::harness::main()
}

/// What becomes of a command.
#[derive(Clone, Copy)]
enum Rule {
    /// It is run, and ends with this status.
    Run(i32),
    /// It is not run by this test, for this reason.
    Not(&'static str),
}
use Rule::{Not, Run};

/// By the beginning of the command; the first that fits counts.
const RULES: &[(&str, Rule)] = &[
    ("vmm [OPTIONS]", Not("a synopsis")),
    ("vmm --check [FOLDER]", Not("a synopsis")),
    ("vmm info [OPTIONS]", Not("a synopsis")),
    ("vmm check [OPTIONS]", Not("a synopsis")),
    ("vmm convert [OPTIONS]", Not("a synopsis")),
    ("vmm info IMAGE", Not("a synopsis")),
    ("vmm check IMAGE", Not("a synopsis")),
    ("vmm convert IMAGE", Not("a synopsis")),
    ("vmm info disk.qcow2", Run(5)),
    ("vmm --input a --output b seven.bin", Run(4)),
    (
        "vmm --debug --input a --output b target/",
        Not("tests/own_guests.rs runs such a guest"),
    ),
    (
        "vmm --input a --output b target/",
        Not("its reader has a guest that faults"),
    ),
    ("vmm ", Run(0)),
    ("target/release/vmm ", Run(0)),
    ("env -u LD_PRELOAD vmm ", Run(0)),
    ("printf ", Run(0)),
    ("make run", Run(0)),
    ("make demo", Not("the_demonstration_runs does")),
    ("make test", Not("it runs all tests, this one among them")),
    (
        "make lint",
        Not("it builds everything once more; the workflow runs it"),
    ),
    ("make fuzz", Not("it takes a nightly toolchain")),
    ("make miri", Not("it takes a nightly toolchain")),
    ("make mutants", Not("it takes an hour")),
    ("make coverage", Not("it builds everything once more")),
    (
        "make test-oracles",
        Not("it takes packages from the network"),
    ),
    ("make deny", Not("it takes a tool that is not everywhere")),
    (
        "make generated",
        Not("it changes the tree; a test compares the result"),
    ),
    ("make picture", Not("it changes the tree")),
    ("BENCH_PUBLISH=1 make bench", Not("it takes long")),
    ("cargo install", Not("it changes the user's tools")),
    ("cargo ", Not("tests/own_guests.rs builds the example")),
    ("cc ", Not("tests/own_guests.rs runs it")),
    ("addr2line ", Not("it is about a guest of the reader's")),
    ("docker ", Not("it takes a container")),
    ("sudo ", Not("it changes the host")),
    (
        "cat /sys/module/kvm_intel",
        Not("it takes a processor of Intel's"),
    ),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The pages, with their texts.
fn documents() -> Vec<(PathBuf, String)> {
    let folders = [
        root().to_owned(),
        root().join("docs"),
        root().join(".github"),
    ];
    let entries = folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap());
    let paths = entries.map(|entry| entry.unwrap().path());
    let pages = paths.filter(|path| path.extension().is_some_and(|end| end == "md"));
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path, text)
    };
    pages.map(read).collect()
}

/// A command of a page, and the lines that it is shown to print.
#[derive(Debug)]
struct Shown {
    command: String,
    output: Vec<String>,
}

/// The commands of the indented blocks of a page: lines that begin with a prompt, and those that
/// begin with a program for which there is a rule. Only behind a prompt there is output.
fn commands(text: &str) -> Vec<Shown> {
    let programs: BTreeSet<&str> = RULES
        .iter()
        .map(|(command, _)| command.split(' ').next().unwrap())
        .collect();
    let mut shown: Vec<Shown> = Vec::new();
    let mut has_prompt = false;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(line) = line.strip_prefix("    ") else {
            has_prompt = false;
            continue;
        };
        let prompt = line.strip_prefix("$ ");
        let command = prompt.unwrap_or(line);
        let is_known = programs.contains(command.split(' ').next().unwrap());
        if prompt.is_none() && has_prompt {
            shown.last_mut().unwrap().output.push(line.to_owned());
        } else if prompt.is_some() || is_known {
            has_prompt = prompt.is_some();
            let mut command = command.to_owned();
            while command.ends_with('\\') {
                command.pop();
                command += lines.next().unwrap().trim();
            }
            let output = Vec::new();
            shown.push(Shown { command, output });
        }
    }
    shown
}

fn rule(command: &str) -> Option<Rule> {
    let rule = RULES.iter().find(|(start, _)| command.starts_with(start));
    rule.map(|(_, rule)| *rule)
}

#[test]
fn every_command_of_a_document_is_run_or_says_why_not() {
    let mut count = 0;
    for (path, text) in documents() {
        for Shown { command, .. } in commands(&text) {
            let found = rule(&command);
            let path = path.display();
            assert!(found.is_some(), "{path}: there is no rule for {command:?}");
            if let Some(Not(reason)) = found {
                assert!(!reason.is_empty());
            }
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
}

/// A folder as the pages suppose it: with a disk, guests, the program, and the tree's Makefile.
fn reader() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for disk in ["disk.img", "a"] {
        fs::write(path(disk), random(50 * 512, 1)).unwrap();
    }
    fs::write(path("GUEST"), GUEST).unwrap();
    for made in ["FOLDER", "bin", "target/release"] {
        fs::create_dir_all(path(made)).unwrap();
    }
    for link in ["bin/vmm", "target/release/vmm"] {
        symlink(binary(), path(link)).unwrap();
    }
    fs::write(path("base.qcow2"), qcow2(None)).unwrap();
    fs::write(path("disk.qcow2"), qcow2(Some("base.qcow2"))).unwrap();
    symlink(root().join("Makefile"), path("Makefile")).unwrap();
    symlink(root().join("examples"), path("examples")).unwrap();
    folder
}

/// An empty qcow2 image of a disk of 20 GiB, as qemu-img makes one, perhaps with a backing file: a
/// cluster of 64 KiB each for the header, the refcount table and its only block, and an L1 table of 40
/// entries.
fn qcow2(backing: Option<&str>) -> Vec<u8> {
    const CLUSTER: usize = 0x10000;
    const EXTENSIONS: usize = 104;
    let mut image = vec![0; 3 * CLUSTER + 40 * 8];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb\0\0\0\x03");
    put(20, &16_u32.to_be_bytes()); // cluster_bits
    put(24, &(20_u64 << 30).to_be_bytes()); // size
    put(36, &40_u32.to_be_bytes()); // l1_size
    put(40, &(3 * CLUSTER as u64).to_be_bytes()); // l1_table_offset
    put(48, &(CLUSTER as u64).to_be_bytes()); // refcount_table_offset
    put(56, &1_u32.to_be_bytes()); // refcount_table_clusters
    put(96, &4_u32.to_be_bytes()); // refcount_order
    put(100, &(EXTENSIONS as u32).to_be_bytes()); // header_length
    if let Some(name) = backing {
        // The extension with the backing file's format, and the one that ends the list.
        put(EXTENSIONS, &0xe279_2aca_u32.to_be_bytes());
        put(EXTENSIONS + 4, &5_u32.to_be_bytes());
        put(EXTENSIONS + 8, b"qcow2");
        let at = EXTENSIONS + 24;
        put(8, &(at as u64).to_be_bytes()); // backing_file_offset
        put(16, &(name.len() as u32).to_be_bytes()); // backing_file_size
        put(at, name.as_bytes());
    }
    put(CLUSTER, &(2 * CLUSTER as u64).to_be_bytes());
    for cluster in 0..4 {
        put(2 * CLUSTER + 2 * cluster, &1_u16.to_be_bytes());
    }
    image
}

/// Without what a file system says of a file, which is another number on another one.
fn comparable<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let lines = lines.into_iter();
    lines
        .map(|line| match line.split_once("disk size: ") {
            Some(("", _)) => "disk size: ",
            _ => line,
        })
        .collect()
}

/// A shell's command in that folder. It builds nothing: cargo is `true`.
fn shell(folder: &Path, command: &str) -> Command {
    let path = std::env::var("PATH").unwrap();
    let mut shell = Command::new("sh");
    shell
        .args(["-c", command])
        .current_dir(folder)
        .env("PATH", format!("{}/bin:{path}", folder.display()))
        .env("CARGO", "true")
        // What a surrounding make was told is not meant for this one.
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL")
        // The program is the one in this folder.
        .env_remove("CARGO_TARGET_DIR");
    shell
}

#[test]
fn the_commands_of_the_documents_do_what_the_documents_say() {
    needs_kvm!();
    for (path, text) in documents() {
        let folder = reader();
        for Shown { command, output } in commands(&text) {
            let Some(Run(status)) = rule(&command) else {
                continue;
            };
            let ran = shell(folder.path(), &command).output().unwrap();
            let path = path.display();
            assert_eq!(
                ran.status.code(),
                Some(status),
                "{path}: {command}: {ran:?}"
            );
            if !output.is_empty() {
                let printed = String::from_utf8(ran.stdout).unwrap();
                let printed = comparable(printed.lines());
                let shown = comparable(output.iter().map(String::as_str));
                assert_eq!(printed, shown, "{path}: {command}");
            }
        }
    }
}

/// What depends neither on the moment nor on the KVM.
#[test]
fn the_example_of_a_result_is_that_of_a_real_copy() {
    needs_kvm!();
    let page = fs::read_to_string(root().join("docs/json.md")).unwrap();
    let mut lines = page.lines();
    let shown = lines.find(|line| line.starts_with(r#"{"type":"result""#));
    let ran = shell(reader().path(), "vmm --format json a b")
        .output()
        .unwrap();
    let printed = String::from_utf8(ran.stdout).unwrap();
    let [shown, real] = [shown, printed.lines().last()]
        .map(|line| serde_json::from_str::<serde_json::Value>(line.unwrap()).unwrap());
    for field in ["outcome", "status", "error", "bytes", "sectors", "digest"] {
        assert_eq!(shown[field], real[field], "{field}");
    }
    for kind in ["pio_in", "mmio_read"] {
        assert_eq!(shown["exits"][kind], real["exits"][kind], "{kind}");
    }
    for result in [shown, real] {
        let exits = result["exits"].as_object().unwrap();
        let kinds = exits.iter().filter(|(kind, _)| *kind != "total");
        let sum: u64 = kinds.filter_map(|(_, count)| count.as_u64()).sum();
        assert_eq!(exits["total"].as_u64(), Some(sum), "{result}");
    }
}

#[test]
fn the_demonstration_runs() {
    needs_kvm!();
    let ran = shell(reader().path(), "make demo").output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    let printed = String::from_utf8(ran.stdout).unwrap();
    for part in [
        "ok       guest: booted",
        "[PROGRESS] progress op=copy 50/50 (100%)",
        "[COMPLETE] complete op=copy count=524288 success=true",
        "Both copies were compared, and are equal.",
    ] {
        assert!(printed.contains(part), "{part:?} in {printed}");
    }
    let statistics = String::from_utf8(ran.stderr).unwrap();
    assert!(statistics.contains("exits"), "{statistics}");
}

/// The words that a page has between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_target_of_make_that_a_document_or_the_help_names_exists() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let rules = makefile.lines().filter_map(|line| line.split_once(':'));
    let targets: BTreeSet<&str> = rules.map(|(target, _)| target).collect();
    let exists = |target: &str, where_: &str| {
        assert!(targets.contains(target), "{where_}: make {target}");
    };
    for (path, text) in documents() {
        let shown = commands(&text);
        let written = quoted(&text).chain(shown.iter().map(|shown| shown.command.as_str()));
        for command in written {
            let mut words = command
                .split_whitespace()
                .skip_while(|word| word.contains('='));
            if words.next() == Some("make")
                && let Some(target) = words.find(|word| !word.contains('='))
            {
                exists(target, &path.display().to_string());
            }
        }
    }
    let help = makefile
        .lines()
        .filter_map(|line| line.trim().strip_prefix("@echo 'make "));
    let helped: Vec<&str> = help.filter_map(|line| line.split(' ').next()).collect();
    assert!(helped.len() > 10);
    helped
        .iter()
        .filter(|target| !target.is_empty())
        .for_each(|target| exists(target, "help"));
}

/// A heading as the end of a link has it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter_map(|c| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        c if c.is_alphanumeric() => Some(c.to_ascii_lowercase()),
        _ => None,
    });
    kept.collect()
}

#[test]
fn every_link_of_a_document_leads_somewhere() {
    let mut count = 0;
    for (path, text) in documents() {
        // Links may be broken over lines.
        let text = text.replace('\n', " ");
        for link in text.split("](").skip(1) {
            let target = link.split(')').next().unwrap();
            if target.contains("://") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let linked = if file.is_empty() {
                path.clone()
            } else {
                path.parent().unwrap().join(file)
            };
            assert!(linked.exists(), "{}: {target}", path.display());
            if !heading.is_empty() {
                let page = fs::read_to_string(&linked).unwrap();
                let headings = page.lines().filter(|line| line.starts_with('#'));
                let found = headings
                    .map(|line| anchor(line.trim_start_matches('#')))
                    .any(|found| found == heading);
                assert!(found, "{}: {target}", path.display());
            }
            count += 1;
        }
    }
    assert!(count > 10, "{count}");
}
