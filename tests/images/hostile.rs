//! The hostile images of the crate of formats, each through a whole VM: the guest finds what the
//! parsers find on the host, in bounded time and memory, and nothing is left behind.

#[path = "../../guest/formats/tests/hostile/mod.rs"]
mod cases;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use guest_formats::{Class, Options, Reason, Verdict, inspect};

use serde_json::Value;

use crate::common::kvm_is_usable;
use crate::{BROKEN, REFUSED, SAFE, object, vmm};

/// The longest that a run may take on processors: others may use the host as well.
const LONGEST: Duration = Duration::from_secs(2);

/// What the user would say on the command line.
fn arguments(options: &Options) -> Vec<String> {
    let claimed = options
        .claimed
        .iter()
        .map(|format| format!("--image-format={}", format.name()));
    let allowed = Reason::ALL
        .iter()
        .filter(|reason| options.allowed.contains(**reason));
    let allowed = allowed.map(|reason| format!("--allow={}", reason.name()));
    let largest = format!("--max-virtual-size={}", options.largest_disk);
    claimed.chain(allowed).chain([largest]).collect()
}

/// Looks into one image and checks it: `expected` is among what is found.
fn judge(name: &str, bytes: &[u8], options: &Options, expected: Option<Reason>) {
    if !kvm_is_usable() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    fs::write(&path, bytes).unwrap();
    let arguments = arguments(options);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();

    let run = vmm(
        "info",
        &path,
        &[&arguments[..], &["--format=json"]].concat(),
    );
    assert_eq!(run.stderr, "", "{name}");
    assert!(run.cpu < LONGEST, "{name}: {:?}", run.cpu);
    let answer: Value = serde_json::from_str(&run.stdout).unwrap();
    let status = run.code();
    let info = inspect(&mut { bytes }, options).unwrap();
    let known: BTreeSet<_> = info
        .findings
        .iter()
        .map(|finding| finding.reason.name())
        .collect();
    let found: BTreeSet<_> = crate::reasons(&answer).into_iter().collect();
    assert_eq!(found, known, "{name}");
    assert_eq!(answer["format"], info.format.name(), "{name}");
    let counts = |reason: Reason| {
        !(options.allowed.contains(reason) && reason.may_be_allowed())
            && answer["reasons"]
                .as_array()
                .unwrap()
                .iter()
                .any(|found| found["name"] == reason.name())
    };
    let counted: Vec<_> = Reason::ALL
        .iter()
        .copied()
        .filter(|reason| counts(*reason))
        .collect();
    let verdict = match counted.iter().any(|reason| reason.class() == Class::Broken) {
        true => Verdict::Broken,
        false if counted.is_empty() => Verdict::Safe,
        false => Verdict::Refused,
    };
    let expected_status = match verdict {
        Verdict::Safe => SAFE,
        Verdict::Refused => REFUSED,
        Verdict::Broken => BROKEN,
    };
    assert_eq!(answer["verdict"], verdict.name(), "{name}");
    assert_eq!(status, Some(expected_status), "{name}");

    // What is found in tables alone is for a check to find.
    let in_tables = expected.filter(|reason| !known.contains(reason.name()));
    let run = vmm("check", &path, &arguments);
    assert_eq!(run.stderr, "", "{name}");
    assert!(run.cpu < LONGEST, "{name}: {:?}", run.cpu);
    if let Some(reason) = in_tables {
        assert!(
            run.stdout.contains(reason.name()),
            "{name}: {reason:?} in {run:?}"
        );
        assert_ne!(run.code(), Some(SAFE), "{name}");
    }
    assert_nothing_changed(name, folder.path(), bytes);
}

/// Checks the tables of one image, against the headers of which nothing speaks: `problem` is among
/// what is found.
fn judge_check(name: &str, bytes: &[u8], problem: &str) {
    if !kvm_is_usable() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    fs::write(&path, bytes).unwrap();
    let info = vmm("info", &path, &[]);
    assert_eq!(info.code(), Some(SAFE), "{name}: {info:?}");
    let (answer, status) = object("check", &path, &[]);
    assert_eq!(status, Some(BROKEN), "{name}: {answer}");
    let mut problems = answer["check"]["problems"].as_array().unwrap().iter();
    assert!(
        problems.any(|found| found["name"] == problem),
        "{name}: {answer}"
    );
    assert_nothing_changed(name, folder.path(), bytes);
}

/// There is nothing in the folder but the image, and that is as it was.
fn assert_nothing_changed(name: &str, folder: &Path, bytes: &[u8]) {
    assert_eq!(
        fs::read_dir(folder).unwrap().count(),
        1,
        "{name}: files appeared"
    );
    assert!(
        fs::read(folder.join("image")).unwrap() == bytes,
        "{name}: the image has changed"
    );
}
