//! Runs tests with a change: first those that are quickest, and only such as come to its place.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;

/// How often a running test is looked at.
const LOOK: Duration = Duration::from_millis(3);
/// Tests may take so long with a change, and several times as long as they do without.
const PATIENCE: Duration = Duration::from_secs(4);
const TIMES_AS_LONG: u32 = 5;
/// A test without a change may take so long, and all of them with one.
const LONGEST: Duration = Duration::from_secs(300);
const LONGEST_OF_ALL: Duration = Duration::from_secs(120);
/// So many tests are run in one process at first, as most changes are noticed by one of them, and then
/// so many in each further one.
const FIRST: usize = 6;
const MORE: usize = 40;

/// What came of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A test has noticed it: its name, or how the program ended.
    Caught(String),
    /// The tests did not end.
    Endless,
    /// So many tests come to its place, and all passed.
    Survived(usize),
}

/// A test that passes without a change.
#[derive(Debug)]
pub struct Test {
    /// The program that it is in, as an index.
    program: usize,
    name: String,
    takes: Duration,
}

/// Where tests run.
#[derive(Clone)]
pub struct Place {
    /// The folder that they start in.
    pub starts_in: PathBuf,
    /// Where they have their files, and this program its own.
    pub files: PathBuf,
}

/// The tests of a crate.
pub struct Tests {
    programs: Vec<String>,
    place: Place,
    /// For each change the tests that come to its place, the quickest first.
    reaching: BTreeMap<usize, Vec<Test>>,
}

#[derive(Debug)]
enum End {
    Passed,
    Failed(String),
    Endless,
}

impl Tests {
    /// Runs each test of the `programs` by itself without any of the `count` changes.
    pub fn survey(programs: Vec<String>, count: usize, place: &Place) -> Result<Self> {
        let mut all = Vec::new();
        for (program, path) in programs.iter().enumerate() {
            all.extend(names(path)?.into_iter().map(|name| (program, name)));
        }
        let mut tests = Self {
            programs,
            place: place.clone(),
            reaching: BTreeMap::new(),
        };
        let surveyed = in_parallel(&all, |(program, name)| tests.visit(*program, name, count));
        for ((program, name), surveyed) in all.iter().zip(surveyed) {
            let (end, takes, seen) = surveyed?;
            if !matches!(end, End::Passed) {
                eprintln!("left out, as it fails without a change: {name} ({end:?})");
                continue;
            }
            for id in seen {
                let (program, name) = (*program, name.clone());
                let reaching = tests.reaching.entry(id).or_default();
                reaching.push(Test {
                    program,
                    name,
                    takes,
                });
            }
        }
        for reaching in tests.reaching.values_mut() {
            reaching.sort_by_key(|test| test.takes);
        }
        Ok(tests)
    }

    /// How a test ends, how long it takes and which changes it comes to.
    fn visit(
        &self,
        program: usize,
        name: &str,
        count: usize,
    ) -> Result<(End, Duration, Vec<usize>)> {
        let seen = self.new_file();
        fs::write(&seen, vec![0; count])?;
        // Some tests are other users for a while.
        fs::set_permissions(&seen, Permissions::from_mode(0o666))?;
        let begun = Instant::now();
        let seen_at = ("MUTANTS_SEEN", &*seen.to_string_lossy());
        let end = self.run(program, &[name], seen_at, LONGEST)?;
        let takes = begun.elapsed();
        let marks = fs::read(&seen)?;
        fs::remove_file(&seen)?;
        let ids = marks.iter().enumerate().filter(|(_, mark)| **mark != 0);
        let ids = ids.map(|(id, _)| id).collect();
        Ok((end, takes, ids))
    }

    /// Tries the change with this number.
    pub fn try_change(&self, id: usize) -> Result<Outcome> {
        let reaching = self.reaching.get(&id).map_or(&[][..], Vec::as_slice);
        let (mut rest, mut size) = (reaching, FIRST);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(size.min(rest.len()));
            (rest, size) = (later, MORE);
            for program in 0..self.programs.len() {
                let of_it = now.iter().filter(|test| test.program == program);
                let takes: Duration = of_it.clone().map(|test| test.takes).sum();
                let names: Vec<&str> = of_it.map(|test| test.name.as_str()).collect();
                if names.is_empty() {
                    // Without a name all of them would run.
                    continue;
                }
                let limit = PATIENCE + takes * TIMES_AS_LONG;
                match self.run(program, &names, ("MUTANT", &id.to_string()), limit)? {
                    End::Passed => {}
                    End::Failed(test) => return Ok(Outcome::Caught(test)),
                    End::Endless => return Ok(Outcome::Endless),
                }
            }
        }
        Ok(Outcome::Survived(reaching.len()))
    }

    /// Tries programs that were built with a change, with all their tests.
    pub fn try_programs(programs: Vec<String>, place: &Place) -> Result<Outcome> {
        let tests = Self {
            programs,
            place: place.clone(),
            reaching: BTreeMap::new(),
        };
        let mut count = 0;
        for (program, path) in tests.programs.iter().enumerate() {
            count += names(path)?.len();
            match tests.run(program, &[], ("MUTANT", ""), LONGEST_OF_ALL)? {
                End::Passed => {}
                End::Failed(test) => return Ok(Outcome::Caught(test)),
                End::Endless => return Ok(Outcome::Endless),
            }
        }
        Ok(Outcome::Survived(count))
    }

    fn new_file(&self) -> PathBuf {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        self.place.files.join(format!("mutants-{number}"))
    }

    /// Runs tests of a program, all there are if none are named, with a variable in the environment.
    fn run(
        &self,
        program: usize,
        names: &[&str],
        (variable, value): (&str, &str),
        limit: Duration,
    ) -> Result<End> {
        let (path, folder) = (self.new_file(), self.new_file());
        fs::create_dir(&folder)?;
        // Some tests are other users for a while.
        fs::set_permissions(&folder, Permissions::from_mode(0o1777))?;
        // A change may make a program ask for memory for ever.
        let child = Command::new("sh")
            .args([
                "-c",
                "ulimit -v 16000000; ulimit -c 0; exec \"$@\"",
                "sh",
                &self.programs[program],
            ])
            .args(["--exact", "--test-threads=2"])
            .args(names)
            .env(variable, value)
            .env("TMPDIR", &folder)
            .current_dir(&self.place.starts_in)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(File::create(&path)?)
            .stderr(Stdio::null())
            .spawn()?;
        let end = await_end(child, &path, &folder, limit)?;
        fs::remove_file(&path)?;
        // What tests that were ended have left in it stays there until the end.
        let _ = fs::remove_dir(&folder);
        Ok(end)
    }
}

/// The tests of a program.
fn names(program: &str) -> Result<Vec<String>> {
    let list = Command::new(program)
        .args(["--list", "--format", "terse"])
        .output()?;
    let list = String::from_utf8(list.stdout)?;
    let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
    Ok(names.map(str::to_owned).collect())
}

/// Waits for tests that write to the file at `output` and have their own files in `folder`, until one has
/// failed or they have taken too long; then they are ended, and so is what they have started.
fn await_end(mut child: Child, output: &Path, folder: &Path, limit: Duration) -> Result<End> {
    // Not by a clock, which goes on while all of this is stopped.
    let mut taken = Duration::ZERO;
    let end = loop {
        let status = child.try_wait()?;
        if let Some(test) = failed(&fs::read(output)?) {
            break End::Failed(test);
        }
        match status {
            Some(status) if status.success() => break End::Passed,
            Some(status) => break End::Failed(status.to_string()),
            None if taken > limit => break End::Endless,
            None => thread::sleep(LOOK),
        }
        taken += LOOK;
    };
    let group = format!("-{}", child.id());
    Command::new("kill")
        .args(["-KILL", "--", &group])
        .stderr(Stdio::null())
        .status()?;
    unmount_below(folder)?;
    child.wait()?;
    Ok(end)
}

/// Takes away by force what is mounted below `folder`: a test that serves files to itself over /dev/fuse
/// cannot end while it waits for its own answer.
fn unmount_below(folder: &Path) -> Result<()> {
    for mount in fs::read_to_string("/proc/self/mountinfo")?.lines() {
        let Some(at) = mount.split(' ').nth(4) else {
            continue;
        };
        if Path::new(at).starts_with(folder) {
            Command::new("umount")
                .args(["--force", "--lazy", at])
                .stderr(Stdio::null())
                .status()?;
        }
    }
    Ok(())
}

/// The first test that has failed, in what a test program has printed until now.
fn failed(output: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(output);
    let mut failed = text
        .lines()
        .filter_map(|line| line.strip_suffix(" ... FAILED"));
    failed
        .next()
        .map(|line| line.trim_start_matches("test ").to_owned())
}

/// Does `work` for each of `items`, as many at once as there are processors, and one more for each, since
/// many tests wait. The results are in the order of the items.
pub fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    let threads = 2 * thread::available_parallelism().map_or(1, usize::from);
    let begun = Instant::now();
    let take = || {
        while let Some((index, item)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            items.get(index).map(|item| (index, item))
        } {
            if index > 0 && index % 250 == 0 {
                println!(
                    "{index} of {} after {} s",
                    items.len(),
                    begun.elapsed().as_secs()
                );
            }
            let result = work(item);
            results
                .lock()
                .unwrap_or_else(|held| held.into_inner())
                .push((index, result));
        }
    };
    thread::scope(|scope| {
        (0..threads).for_each(|_| drop(scope.spawn(take)));
    });
    let mut results = results
        .into_inner()
        .unwrap_or_else(|held| held.into_inner());
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
