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
use trial::{Outcome, Place, Tests};

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
    let mut survivors = 0;
    let crates = list::read(list, root)?;
    if crates.is_empty() {
        return Err("there is nothing to change in these files".into());
    }
    for krate in crates {
        let path = results.join(format!("{}.txt", krate.package));
        // Some tests are other users for a while, who have to get there.
        let folder = std::env::temp_dir().join(format!("mutants-{}", std::process::id()));
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o1777))?;
        let tried = try_crate(&krate, root, &folder, &path);
        program::restore(&krate, root)?;
        fs::remove_dir_all(&folder)?;
        survivors += sum_up(&krate, &tried?);
    }
    Ok(survivors)
}

/// What came of each change, by its number. What does not compile has no entry. As far as it is known
/// it is in the file at `results`.
fn try_crate(
    krate: &Crate,
    root: &Path,
    folder: &Path,
    results: &Path,
) -> Result<BTreeMap<usize, Outcome>> {
    let count = krate.changes.len();
    println!("{}: {count} changes", krate.package);
    let built = program::build(krate, root)?;
    let (woven, uncompiled) = (built.woven.len(), built.uncompiled.len());
    println!("{woven} are in one build, and {uncompiled} do not compile");
    let place = Place {
        // As cargo does it.
        starts_in: root.join(&krate.folder),
        files: folder.to_owned(),
    };
    let tests = Tests::survey(built.programs, count, &place)?;
    let woven: Vec<usize> = built.woven.into_iter().collect();
    let mut outcomes = BTreeMap::new();
    let tried = trial::in_parallel(&woven, |id| tests.try_change(*id));
    for (id, outcome) in woven.iter().zip(tried) {
        outcomes.insert(*id, outcome?);
    }
    fs::write(results, lines(krate, &outcomes))?;
    println!("{} are built by themselves", built.constant.len());
    program::restore(krate, root)?;
    for id in built.constant {
        if let Some(programs) = program::build_one(krate, &krate.changes[id], root)? {
            outcomes.insert(id, Tests::try_programs(programs, &place)?);
        }
        fs::write(results, lines(krate, &outcomes))?;
    }
    Ok(outcomes)
}

/// In which column of the summary an outcome is counted, and its name.
fn told(outcome: Option<&Outcome>) -> (usize, String) {
    match outcome {
        None => (3, "not compiled".to_owned()),
        Some(Outcome::Caught(test)) => (0, format!("noticed by {test}")),
        Some(Outcome::Endless) => (1, "ran for ever".to_owned()),
        Some(Outcome::Survived(0)) => (2, "survived, and no test comes there".to_owned()),
        Some(Outcome::Survived(tests)) => (2, format!("survived {tests} tests")),
    }
}

/// A line for each change.
fn lines(krate: &Crate, outcomes: &BTreeMap<usize, Outcome>) -> String {
    let line = |change: &Change| {
        let (_, what) = told(outcomes.get(&change.id));
        format!("{}\t{what}\n", change.name)
    };
    krate.changes.iter().map(line).collect()
}

/// Prints what has survived and how many there were in each file. Returns how many have survived.
fn sum_up(krate: &Crate, outcomes: &BTreeMap<usize, Outcome>) -> usize {
    let mut files: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
    for Change { id, name, file, .. } in &krate.changes {
        let (column, what) = told(outcomes.get(id));
        if matches!(outcomes.get(id), Some(Outcome::Survived(_))) {
            println!("{name}: {what}");
        }
        files.entry(file).or_default()[column] += 1;
    }
    println!("noticed, ran for ever, survived, not compiled:");
    for (file, [noticed, endless, survived, uncompiled]) in &files {
        println!("{noticed:6} {endless:5} {survived:5} {uncompiled:5}  {file}");
    }
    files.values().map(|counts| counts[2]).sum()
}
