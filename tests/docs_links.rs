//! What README and docs say of the tree is so: the paths that they name exist, every page and picture
//! is led to, and each dependency has its reason. (Links and commands: tests/documents.rs.)
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

/// A page of Markdown.
struct Page {
    path: PathBuf,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README and whatever is in docs, without what is drawn as code.
fn pages() -> Vec<Page> {
    let docs = fs::read_dir(root().join("docs")).unwrap();
    let paths = docs.map(|entry| entry.unwrap().path());
    let markdown = paths.filter(|path| path.extension().is_some_and(|ending| ending == "md"));
    let mut paths: Vec<_> = markdown.chain([root().join("README.md")]).collect();
    paths.sort();
    let page = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        Page {
            path,
            text: without_blocks(&text),
        }
    };
    paths.into_iter().map(page).collect()
}

fn without_blocks(text: &str) -> String {
    let mut fenced = false;
    let mut kept = String::new();
    for line in text.lines() {
        let fence = line.starts_with("```");
        fenced ^= fence;
        if !fenced && !fence && !line.starts_with("    ") {
            kept.push_str(line);
        }
        kept.push('\n');
    }
    kept
}

/// Where the links of a page lead, without those to other sites.
fn links(text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1);
    let targets = targets.filter_map(|rest| Some(rest.split_once(')')?.0.to_owned()));
    targets
        .filter(|target| !target.starts_with("http"))
        .collect()
}

#[test]
fn paths_of_the_tree_that_are_named_exist() {
    const FOLDERS: [&str; 8] = [
        "docs/",
        "examples/",
        "fuzz/",
        "guest/",
        "proto/",
        "resources/",
        "src/",
        "tests/",
    ];
    let mut missing = Vec::new();
    for page in pages() {
        // Every second part lies between backquotes.
        for name in page.text.split('`').skip(1).step_by(2) {
            let is_path = FOLDERS.iter().any(|folder| name.starts_with(folder))
                && !name.contains([' ', '*', '…']);
            // What a program makes there, and is not in the tree.
            let is_made = name.starts_with("fuzz/artifacts") || name.starts_with("fuzz/corpus");
            if is_path && !is_made && !root().join(name).exists() {
                missing.push(format!("{}: {name}", page.path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn what_is_said_to_be_in_a_file_is_named_there() {
    let mut missing = Vec::new();
    for page in pages() {
        let folder = page.path.parent().unwrap();
        for part in page.text.split("[`").skip(1) {
            let Some((name, rest)) = part.split_once("`](") else {
                continue;
            };
            let (target, _) = rest.split_once(')').unwrap_or_default();
            // The last part of a path of Rust, such as the method of a type.
            let last = name.rsplit("::").next().unwrap_or_default();
            let is_word = !last.is_empty() && last.chars().all(|c| c.is_alphanumeric() || c == '_');
            if is_word && target.ends_with(".rs") {
                let file = fs::read_to_string(folder.join(target)).unwrap();
                let mut words = file.split(|c: char| !(c.is_alphanumeric() || c == '_'));
                if !words.any(|word| word == last) {
                    missing.push(format!("{}: {name} in {target}", page.path.display()));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// The modules of a crate with the sources in `folder`, each as its path and where its text is.
fn modules(folder: &Path) -> Vec<(Vec<String>, PathBuf)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.with_extension("");
            let names = name.strip_prefix(folder).unwrap().iter();
            let names = names.map(|name| name.to_str().unwrap().to_owned());
            if path.is_dir() {
                found.push((names.collect(), path.clone()));
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push((names.collect(), path));
            }
        }
    }
    found
}

/// All Rust text at `path`, a file or a folder.
fn source(path: &Path) -> String {
    if path.is_file() {
        return fs::read_to_string(path).unwrap();
    }
    let entries = fs::read_dir(path).unwrap();
    entries
        .map(|entry| source(&entry.unwrap().path()))
        .collect()
}

/// `a::{b, c}` as `a::b` and `a::c`.
fn without_braces(name: &str) -> Vec<String> {
    match name.split_once('{') {
        None => vec![name.to_owned()],
        Some((before, list)) => list
            .trim_end_matches('}')
            .split(',')
            .map(|part| format!("{before}{}", part.trim()))
            .collect(),
    }
}

#[test]
fn modules_and_items_that_are_named_exist() {
    // Of other crates, whose documentation is elsewhere.
    const FOREIGN: [&str; 4] = ["std", "prost", "vm_device", "virtio_queue"];
    let members = fs::read_dir(root().join("guest")).unwrap();
    let sources = members.map(|entry| entry.unwrap().path().join("src"));
    let mut found = modules(&root().join("src"));
    for folder in sources.filter(|folder| folder.is_dir()) {
        let name = folder.parent().unwrap().file_name().unwrap();
        found.push((
            vec![format!("guest_{}", name.to_str().unwrap())],
            folder.clone(),
        ));
        found.extend(modules(&folder));
    }
    let exists = |name: &str| {
        let parts: Vec<&str> = name.split("::").collect();
        let is_module = |parts: &[&str], path: &[String]| {
            path.len() >= parts.len() && path[path.len() - parts.len()..] == *parts
        };
        let (last, before) = parts.split_last().unwrap();
        found.iter().any(|(path, _)| is_module(&parts, path))
            || found.iter().any(|(path, file)| {
                let has_word = || {
                    let source = source(file);
                    let mut words = source.split(|it: char| !it.is_alphanumeric() && it != '_');
                    words.any(|word| word == *last)
                };
                is_module(before, path) && has_word()
            })
            // A module of a crate that is named with the crate.
            || parts[0].starts_with("guest_") && found.iter().any(|(path, _)| is_module(&parts[1..], path))
    };
    let mut count = 0;
    let mut missing = Vec::new();
    for page in pages() {
        for quoted in page.text.split('`').skip(1).step_by(2) {
            let is_path = quoted.contains("::")
                && quoted.starts_with(|it: char| it.is_ascii_lowercase())
                && quoted
                    .chars()
                    .all(|it| it.is_alphanumeric() || "_:{}, ".contains(it));
            for name in without_braces(quoted) {
                let foreign = FOREIGN
                    .iter()
                    .any(|it| name.starts_with(&format!("{it}::")));
                if is_path && !foreign {
                    count += 1;
                    if !exists(&name) {
                        missing.push(format!("{}: {name}", page.path.display()));
                    }
                }
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(count > 30, "only {count} were found");
}

#[test]
fn files_are_referred_to_by_name_and_not_by_line() {
    for page in pages() {
        for link in links(&page.text) {
            let line = link.split_once("#L").map(|(_, line)| line);
            let is_line = line.is_some_and(|line| line.starts_with(|it: char| it.is_ascii_digit()));
            assert!(
                !is_line,
                "{}: {link} will be wrong soon",
                page.path.display()
            );
        }
    }
}

#[test]
fn every_page_of_docs_is_named_in_the_readme() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for page in pages() {
        let path = page
            .path
            .strip_prefix(root())
            .unwrap()
            .display()
            .to_string();
        let named = path == "README.md" || readme.contains(&format!("]({path})"));
        assert!(named, "the README does not lead to {path}");
    }
}

#[test]
fn pictures_say_what_they_show_and_bring_their_own_background() {
    let folder = root().join("docs/pictures");
    let shown: String = pages().into_iter().map(|page| page.text).collect();
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy();
        assert!(
            shown.contains(&format!("](pictures/{name})")),
            "no page shows {name}"
        );
        assert!(!shown.contains(&format!("![](pictures/{name})")), "{name}");
        for part in ["<title>", "<desc>", ".paper { fill: #ffffff;", "viewBox="] {
            assert!(text.contains(part), "{name} lacks {part}");
        }
        assert!(!text.contains("href"), "{name} needs something else");
        count += 1;
    }
    assert!(count > 0);
}

/// The oldest version of Rust that a manifest says is enough.
fn rust_version(manifest: &str) -> String {
    let text = fs::read_to_string(root().join(manifest)).unwrap();
    let lines = text.lines();
    let mut versions = lines.filter_map(|line| line.strip_prefix("rust-version = \""));
    versions.next().unwrap().trim_end_matches('"').to_owned()
}

#[test]
fn the_readme_says_which_rust_is_enough() {
    let version = rust_version("Cargo.toml");
    for other in ["guest/Cargo.toml", "examples/rust-guest/Cargo.toml"] {
        assert_eq!(rust_version(other), version, "{other}");
    }
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let told = format!("Rust {version} or later");
    assert!(readme.contains(&told), "the README does not say {told:?}");
}

#[test]
fn every_dependency_has_its_reason() {
    let page = fs::read_to_string(root().join("docs/comparison.md")).unwrap();
    for (manifest, section) in [
        ("Cargo.toml", "[dependencies]"),
        ("proto/Cargo.toml", "[dependencies]"),
        ("guest/Cargo.toml", "[workspace.dependencies]"),
    ] {
        let text = fs::read_to_string(root().join(manifest)).unwrap();
        let rest = text.split(&format!("\n{section}\n")).nth(1).unwrap();
        let lines = rest.lines().take_while(|line| !line.starts_with('['));
        let names = lines.filter_map(|line| Some(line.split_once(" = ")?.0));
        let names: Vec<_> = names.filter(|name| !name.starts_with('#')).collect();
        assert!(!names.is_empty());
        for name in names {
            let told = format!("`{name}`");
            assert!(
                page.contains(&told),
                "docs/comparison.md says nothing of {told}"
            );
        }
    }
}
