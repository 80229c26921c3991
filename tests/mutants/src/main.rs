//! Makes each change that cargo-mutants lists, and runs the unit tests, which should fail:
//! `mutants LIST ROOT RESULTS`. LIST is what `cargo mutants --list --json` has printed in ROOT, a copy of
//! a workspace that may be changed. RESULTS gets a line for each change.
//!
//! A build for each change would take hours. So one build holds all that a switch can make, and only
//! what is left, mostly in constants, is built by itself.

mod list;
mod program;
mod trial;
mod weave;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use list::{Change, Crate};
use trial::{Outcome, Tests};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [list, root, results] = &arguments[..] else {
        eprintln!("mutants LIST ROOT RESULTS");
        return ExitCode::from(2);
    };
    match run(list, root, results) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Tries all changes of `list`. Returns how many have survived.
fn run(list: &Path, root: &Path, results: &Path) -> Result<usize> {
    fs::create_dir_all(results)?;
    let results = results.canonicalize()?;
    let mut survivors = 0;
    for krate in list::read(list, root)? {
        let outcomes = try_crate(&krate, root);
        program::restore(&krate, root)?;
        survivors += report(&krate, &outcomes?, &results)?;
    }
    Ok(survivors)
}

/// What came of each change, by its number. What does not compile has no entry.
fn try_crate(krate: &Crate, root: &Path) -> Result<BTreeMap<usize, Outcome>> {
    let count = krate.changes.len();
    println!("{}: {count} changes", krate.package);
    // Some tests are other users for a while, who have to get there.
    let folder = std::env::temp_dir().join(format!("mutants-{}", std::process::id()));
    fs::create_dir(&folder)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o1777))?;
    let program = program::build(krate, root)?;
    let (woven, uncompiled) = (program.woven.len(), program.uncompiled.len());
    println!("{woven} are in one build, and {uncompiled} do not compile");
    let tests = Tests::survey(&program.path, count, &folder)?;
    let woven: Vec<usize> = program.woven.into_iter().collect();
    let mut outcomes = BTreeMap::new();
    for (id, outcome) in woven
        .iter()
        .zip(trial::in_parallel(&woven, |id| tests.try_change(*id)))
    {
        outcomes.insert(*id, outcome?);
    }
    program::restore(krate, root)?;
    println!("{} are built by themselves", program.constant.len());
    for id in program.constant {
        if let Some(path) = program::build_one(krate, &krate.changes[id], root)? {
            outcomes.insert(id, Tests::try_program(&path, &folder)?);
        }
    }
    fs::remove_dir_all(&folder)?;
    Ok(outcomes)
}

/// Prints what has survived and how many there were in each file. Returns how many have survived.
fn report(krate: &Crate, outcomes: &BTreeMap<usize, Outcome>, results: &Path) -> Result<usize> {
    let mut lines = String::new();
    let mut files: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
    for Change { id, name, file, .. } in &krate.changes {
        let (column, what) = match outcomes.get(id) {
            None => (3, "not compiled".to_owned()),
            Some(Outcome::Caught(test)) => (0, format!("noticed by {test}")),
            Some(Outcome::Endless) => (1, "ran for ever".to_owned()),
            Some(Outcome::Survived(0)) => (2, "survived, and no test comes there".to_owned()),
            Some(Outcome::Survived(tests)) => (2, format!("survived {tests} tests")),
        };
        if column == 2 {
            println!("{name}: {what}");
        }
        files.entry(file).or_default()[column] += 1;
        lines.push_str(&format!("{name}\t{what}\n"));
    }
    fs::write(results.join(format!("{}.txt", krate.package)), lines)?;
    println!("noticed, ran for ever, survived, not compiled:");
    for (file, [noticed, endless, survived, uncompiled]) in &files {
        println!("{noticed:6} {endless:5} {survived:5} {uncompiled:5}  {file}");
    }
    Ok(files.values().map(|counts| counts[2]).sum())
}
