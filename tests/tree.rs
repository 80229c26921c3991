//! What holds for the tree as a whole, and no compiler checks.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
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

/// How many lines of a file of the program are before its tests.
fn lines_without_tests(text: &str) -> usize {
    let tests = text.find("\n#[cfg(test)]\nmod tests {");
    text[..tests.unwrap_or(text.len())].lines().count()
}

/// The files of the program and of its guests, without those that are tests or help tests.
fn program_files() -> Vec<PathBuf> {
    let is_test = |path: &PathBuf| {
        let name = path.to_string_lossy();
        let inside = path.components().any(|part| {
            let part = part.as_os_str();
            part == "tests" || part == "testing" || part == "target"
        });
        inside || name.ends_with("tests.rs") || name.ends_with("testing.rs")
    };
    let mut found = files(&root().join("src"), ".rs");
    for member in fs::read_dir(root().join("guest")).unwrap() {
        let sources = member.unwrap().path().join("src");
        if sources.is_dir() {
            found.extend(files(&sources, ".rs"));
        }
    }
    let relative = |path: PathBuf| path.strip_prefix(root()).unwrap().to_path_buf();
    let mut found: Vec<_> = found.into_iter().map(relative).collect();
    found.retain(|path| !is_test(path));
    found
}

/// Who reads a file is to see all of it: what grows longer has a second duty, and is split along it.
#[test]
fn no_file_of_the_program_is_much_longer_than_350_lines_without_its_tests() {
    let found = program_files();
    assert!(found.len() > 150, "{found:?}");
    for path in found {
        let text = fs::read_to_string(root().join(&path)).unwrap();
        let lines = lines_without_tests(&text);
        assert!(lines <= 375, "{} has {lines} lines", path.display());
    }
}

/// The words between backticks in `text`.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The names that the program declares: files, modules, types, functions and constants.
fn declared_names() -> BTreeSet<String> {
    const KEYWORDS: [&str; 8] = [
        "fn", "struct", "enum", "trait", "mod", "type", "const", "static",
    ];
    let mut names = BTreeSet::new();
    for path in program_files() {
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let folders = path.components().map(|part| part.as_os_str());
        names.extend(folders.map(|part| part.to_string_lossy().into_owned()));
        names.insert(stem);
        let text = fs::read_to_string(root().join(&path)).unwrap();
        let words: Vec<&str> = text.split_whitespace().collect();
        for pair in words.windows(2).filter(|pair| KEYWORDS.contains(&pair[0])) {
            let end = pair[1].find(|c: char| !c.is_alphanumeric() && c != '_');
            names.insert(pair[1][..end.unwrap_or(pair[1].len())].to_owned());
        }
    }
    names
}

#[test]
fn the_architecture_names_what_there_is() {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let names = declared_names();
    let paths = quoted(&text).filter(|word| word.contains("::"));
    let mut checked = 0;
    for word in paths.flat_map(|path| path.split(|c: char| !c.is_alphanumeric() && c != '_')) {
        if !word.is_empty() {
            assert!(names.contains(word), "there is no {word}");
            checked += 1;
        }
    }
    assert!(checked > 20, "{checked}");
}

#[test]
fn what_there_is_is_named_in_the_architecture() {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let library = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let modules: Vec<&str> = library
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .collect();
    assert!(modules.len() > 8, "{modules:?}");
    let (floors, _) = text.split_once("\n\nBoth sides").unwrap();
    for module in modules {
        assert!(quoted(floors).any(|word| word == module), "{module}");
        let link = format!("[`{module}`]");
        assert!(library.contains(&link), "{link} in src/lib.rs");
    }
    for folder in ["src/operations", "guest"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let is_crate = folder == "guest" && path.join("Cargo.toml").is_file();
            let is_operation = folder != "guest" && path.is_dir();
            let name = path.file_name().unwrap().to_string_lossy();
            let named = match is_crate {
                true => format!("guest/{name}"),
                false => name.into_owned(),
            };
            let is_there = quoted(&text).any(|word| word == named);
            assert!(!(is_crate || is_operation) || is_there, "{named}");
        }
    }
}
