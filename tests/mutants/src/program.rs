//! The crate's tests with all changes in them: writes the woven files, and leaves out, as often as it
//! takes, what the compiler does not like.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::Result;
use crate::list::{Change, Crate};
use crate::weave::{Edit, Woven, edits, weave};

const SWITCH: &str = include_str!("switch.rs");

/// Crates whose library is tested by programs of their own, for the most part. Those of the VMM start
/// whole machines, which takes too long.
const TESTED_FROM_OUTSIDE: [&str; 1] = ["guest-formats"];

/// A crate's tests, and what became of the changes.
pub struct Built {
    /// The programs that the tests are in.
    pub programs: Vec<String>,
    /// The changes that they can make.
    pub woven: BTreeSet<usize>,
    /// The changes that a switch cannot make. They may be tried by themselves.
    pub constant: BTreeSet<usize>,
    /// The changes that do not compile, and why.
    pub uncompiled: BTreeMap<usize, String>,
}

/// Weaves the changes of `krate` into its files below `root`, and builds its tests.
pub fn build(krate: &Crate, root: &Path) -> Result<Built> {
    let mut files: BTreeMap<&str, Vec<Edit>> = BTreeMap::new();
    for (file, text) in &krate.texts {
        let changes = krate.changes.iter().filter(|change| change.file == *file);
        files.insert(file, edits(text, &changes.collect::<Vec<_>>())?);
    }
    let mut woven: BTreeSet<usize> = files.values().flatten().map(|edit| edit.id).collect();
    let all = krate.changes.iter().map(|change| change.id);
    let constant = all.filter(|id| !woven.contains(id)).collect();
    let library = root.join(&krate.library);
    fs::write(library.with_file_name("mutants_switch.rs"), SWITCH)?;

    let mut uncompiled = BTreeMap::new();
    loop {
        let mut texts = BTreeMap::new();
        for (file, edits) in &files {
            let mut result = weave(&krate.texts[*file], edits);
            if *file == krate.library {
                result.text.push_str("\nmod mutants_switch;\n");
            }
            fs::write(root.join(file), &result.text)?;
            texts.insert(*file, result);
        }
        let output = compile("cargo", &krate.package, root)?;
        if let Some(programs) = programs_of(&output) {
            return Ok(Built {
                programs,
                woven,
                constant,
                uncompiled,
            });
        }
        let wrong = wrong_changes(&output, &texts)?;
        for edits in files.values_mut() {
            edits.retain(|edit| !wrong.contains_key(&edit.id));
        }
        woven.retain(|id| !wrong.contains_key(id));
        uncompiled.extend(wrong);
    }
}

/// Makes one change and no other, and builds the tests. `None` if it does not compile, or if the
/// compiler works a constant out for ever.
pub fn build_one(krate: &Crate, change: &Change, root: &Path) -> Result<Option<Vec<String>>> {
    let mut text = krate.texts[&change.file].clone();
    text.replace_range(change.place.clone(), &change.replacement);
    fs::write(root.join(&change.file), text)?;
    let output = compile("timeout --kill-after=1 180 cargo", &krate.package, root)?;
    fs::write(root.join(&change.file), &krate.texts[&change.file])?;
    Ok(programs_of(&output))
}

/// Puts the files back.
pub fn restore(krate: &Crate, root: &Path) -> Result<()> {
    for (file, text) in &krate.texts {
        fs::write(root.join(file), text)?;
    }
    Ok(())
}

/// Builds the tests with `cargo`, a command and its first arguments.
fn compile(cargo: &str, package: &str, root: &Path) -> Result<Output> {
    let (program, arguments) = cargo.split_once(' ').unwrap_or((cargo, ""));
    let mut cargo = Command::new(program);
    cargo.args(arguments.split_whitespace());
    cargo.args(["test", "--locked", "--lib", "--no-run", "-p", package]);
    if TESTED_FROM_OUTSIDE.contains(&package) {
        cargo.args(["--test", "*"]);
    }
    cargo.arg("--message-format=json").current_dir(root);
    Ok(cargo.output()?)
}

fn messages(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    let parsed = text.lines().map(serde_json::from_str);
    parsed.filter_map(std::result::Result::ok).collect()
}

/// The programs that were built, if all were.
fn programs_of(output: &Output) -> Option<Vec<String>> {
    let messages = messages(output);
    let programs = messages
        .iter()
        .filter_map(|line| line["executable"].as_str());
    let programs: Vec<_> = programs.map(str::to_owned).collect();
    (output.status.success() && !programs.is_empty()).then_some(programs)
}

/// The changes that the compiler's errors are about, with what it says.
fn wrong_changes(
    output: &Output,
    texts: &BTreeMap<&str, Woven>,
) -> Result<BTreeMap<usize, String>> {
    let mut wrong = BTreeMap::new();
    for line in messages(output) {
        let message = &line["message"];
        if message["level"] == "error"
            && let Some(id) = blamed(message, texts)
        {
            let what = message["message"].as_str().unwrap_or_default();
            wrong.entry(id).or_insert(what.replace(['\n', '\t'], " "));
        }
    }
    if wrong.is_empty() {
        let reason = String::from_utf8_lossy(&output.stderr);
        return Err(
            format!("the tests cannot be built, and no change is to blame: {reason}").into(),
        );
    }
    Ok(wrong)
}

fn blamed(message: &Value, texts: &BTreeMap<&str, Woven>) -> Option<usize> {
    let mut spans: Vec<&Value> = message["spans"].as_array()?.iter().collect();
    // Where the error is comes before what else has to do with it.
    spans.sort_by_key(|span| span["is_primary"] != true);
    spans.into_iter().find_map(|span| {
        let text = texts.get(span["file_name"].as_str()?)?;
        let byte = |name: &str| usize::try_from(span[name].as_u64()?).ok();
        text.owner(&(byte("byte_start")?..byte("byte_end")?))
    })
}
