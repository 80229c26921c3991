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
