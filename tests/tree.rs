//! What holds for the tree as a whole, and no compiler checks.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files of a folder, and of those in it, whose names end in `end`.
fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, end));
        } else if path.to_string_lossy().ends_with(end) {
            found.push(path);
        }
    }
    found
}

/// The roots of the tests that share tests/common, with their names and texts: as cargo finds them,
/// files of tests/ and `main.rs` of its folders.
fn whole_vm_targets() -> Vec<(String, PathBuf, String)> {
    let found = files(&root().join("tests"), ".rs").into_iter();
    let targets = found.filter_map(|path| {
        let text = fs::read_to_string(&path).unwrap();
        let stem = if path.ends_with("main.rs") {
            path.parent().unwrap().file_name()
        } else {
            path.file_stem()
        };
        let name = stem.unwrap().to_string_lossy().into_owned();
        let shares = text.lines().any(|line| line == "mod common;");
        let is_root = path.ends_with("main.rs") || path.parent()? == root().join("tests");
        (shares && is_root).then_some((name, path, text))
    });
    targets.collect()
}

/// With the compiler's own harness a test that cannot run would count as passed, and with ours one
/// that has the compiler's attribute would not be run at all.
#[test]
fn whole_vm_tests_are_run_by_the_harness_that_can_count_them_as_ignored() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let targets = whole_vm_targets();
    assert!(targets.len() > 10, "{targets:?}");
    for (name, path, text) in targets {
        let entry = manifest.split("[[test]]").find(|entry| {
            entry
                .lines()
                .any(|line| line == format!("name = \"{name}\""))
        });
        let ours = entry.is_some_and(|entry| entry.contains("harness = false"));
        assert!(ours, "{name} needs `harness = false` in Cargo.toml");
        let runs = text.contains("common::harness::main()");
        assert!(
            runs,
            "{name} needs a main that runs common::harness::main()"
        );
        let folder = path.parent().unwrap();
        let modules = if path.ends_with("main.rs") {
            files(folder, ".rs")
        } else {
            vec![path.clone()]
        };
        for module in modules {
            let text = fs::read_to_string(&module).unwrap();
            let has_tests = text.lines().any(|line| line.trim() == "#[test]");
            assert!(
                !has_tests || imports_attribute(&text),
                "{} needs `use crate::common::test;`",
                module.display()
            );
        }
    }
}

/// Whether `#[test]` is that of tests/common.
fn imports_attribute(text: &str) -> bool {
    let is_word = |part: &str| part.trim() == "test";
    text.split(';').any(|statement| {
        let path = statement.trim().rsplit_once("common::");
        path.is_some_and(|(before, names)| {
            let import = before.trim_end().ends_with("use") || before.ends_with("use crate::");
            import
                && names
                    .trim_matches(['{', '}', '\n', ' '])
                    .split(',')
                    .any(is_word)
        })
    })
}
