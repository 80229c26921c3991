//! Runs commands in turns and says what each run cost: wall time of the whole process, and the CPU
//! time and peak memory that wait4(2) reports for it.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use wait4::Wait4;

use crate::figures::median;
use crate::program::Program;
use crate::workspace::{Workspace, remove, same};

/// Up to how many runs each is shown while it goes on; more are of copies too short to wait for.
const SHOWN_RUNS: u32 = 20;

/// A copy to be measured.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) program: Program,
    /// Length of the input.
    pub(crate) bytes: u64,
    /// Whether another process computes on one of the cores meanwhile.
    pub(crate) busy: bool,
}

impl Case {
    pub(crate) fn new(name: impl Into<String>, program: Program, bytes: u64) -> Self {
        Self {
            name: name.into(),
            program,
            bytes,
            busy: false,
        }
    }
}

/// What one run cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// From before the process is started until it has been waited for, in seconds.
    pub(crate) wall: f64,
    /// User and system time, in seconds.
    pub(crate) cpu: f64,
    /// Largest resident set, in bytes.
    pub(crate) peak: f64,
    /// Exits to user space, if the program is the VMM and says so.
    pub(crate) exits: Option<f64>,
    /// Progress lines on stdout.
    pub(crate) reports: u64,
}

/// All runs of a case.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) case: Case,
    pub(crate) samples: Vec<Sample>,
}

impl Measured {
    /// Median of one figure; not a number if nothing was run.
    fn median(&self, figure: impl Fn(&Sample) -> f64) -> f64 {
        median(self.samples.iter().map(figure)).unwrap_or(f64::NAN)
    }

    /// Median wall time in seconds.
    pub(crate) fn wall(&self) -> f64 {
        self.median(|sample| sample.wall)
    }

    /// Median CPU time in seconds.
    pub(crate) fn cpu(&self) -> f64 {
        self.median(|sample| sample.cpu)
    }

    /// Largest resident set of any run in bytes.
    pub(crate) fn peak(&self) -> f64 {
        peak(&self.samples)
    }

    /// Median number of exits to user space.
    pub(crate) fn exits(&self) -> Option<f64> {
        median(self.samples.iter().filter_map(|sample| sample.exits))
    }

    /// Progress lines of the last run.
    pub(crate) fn reports(&self) -> u64 {
        self.samples.last().map_or(0, |sample| sample.reports)
    }

    /// Shortest and longest wall time in seconds.
    pub(crate) fn range(&self) -> (f64, f64) {
        self.samples
            .iter()
            .fold((f64::INFINITY, 0.0), |(low, high), sample| {
                (low.min(sample.wall), high.max(sample.wall))
            })
    }
}

/// Largest resident set of any run in bytes.
pub(crate) fn peak(samples: &[Sample]) -> f64 {
    samples.iter().map(|sample| sample.peak).fold(0.0, f64::max)
}

/// A measurement that could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MeasureError {
    #[error("cannot {what}: {error}")]
    Io { what: String, error: io::Error },
    #[error("{name} failed ({status}): {reason}")]
    Failed {
        name: String,
        status: std::process::ExitStatus,
        reason: String,
    },
    #[error("{0} made an output that differs from its input")]
    Differs(String),
}

/// What turns the system's reason into an error that says what was being done.
pub(crate) fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> MeasureError {
    let what = what.into();
    move |error| MeasureError::Io { what, error }
}

/// Where and with what commands are run.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) workspace: Workspace,
    /// The VMM to measure.
    pub(crate) vmm: PathBuf,
}

impl Runner {
    /// Runs every case `runs` times: all cases once, then all once more, so that what changes on
    /// the machine over time changes for all of them. Each turn begins with another case, so that none
    /// always comes behind the same one. The first output of each is compared with its input, outside
    /// of the timing.
    ///
    /// # Errors
    ///
    /// Which command failed or copied wrongly, and why.
    pub(crate) fn in_turns(
        &self,
        cases: Vec<Case>,
        runs: u32,
    ) -> Result<Vec<Measured>, MeasureError> {
        let mut measured: Vec<_> = cases
            .into_iter()
            .map(|case| Measured {
                case,
                samples: Vec::new(),
            })
            .collect();
        let count = measured.len();
        for turn in 1..=runs {
            let begin = turn as usize % count.max(1);
            for index in (begin..count).chain(0..begin) {
                let measured = &mut measured[index];
                let first = measured.samples.is_empty();
                let sample = self.run(&measured.case, first)?;
                if runs <= SHOWN_RUNS {
                    let name = &measured.case.name;
                    eprintln!("{turn}/{runs} {:8.3} s  {name}", sample.wall);
                }
                measured.samples.push(sample);
            }
        }
        Ok(measured)
    }

    fn run(&self, case: &Case, verify: bool) -> Result<Sample, MeasureError> {
        let input = self
            .workspace
            .input(case.bytes)
            .map_err(io_error("make the input"))?;
        let output = self.workspace.path("output");
        let statistics = self.workspace.path("statistics");
        for path in [&output, &statistics] {
            remove(path).map_err(io_error(format!("remove {}", path.display())))?;
        }
        let mut command = case
            .program
            .command(&self.vmm, input.as_ref(), output.as_ref());
        if matches!(case.program, Program::Vmm(_)) {
            command.arg("--stats-file").arg(&statistics);
        }
        let prepared = self.workspace.prepare(case.bytes);
        prepared.map_err(io_error("get memory ready"))?;
        let busy = BusyLoop::start(case.busy).map_err(io_error("start a busy loop"))?;
        let mut sample = self.time(&case.name, &mut command)?;
        drop(busy);
        sample.exits = exits(&statistics);
        if verify && !same(&input, &output).map_err(io_error("compare the output"))? {
            return Err(MeasureError::Differs(case.name.clone()));
        }
        // Now, so that its pages are not written back while the next command is timed.
        remove(&output).map_err(io_error("remove the output"))?;
        Ok(sample)
    }

    /// Times one process whose stdout and stderr go to files.
    ///
    /// # Errors
    ///
    /// It cannot be run, or failed.
    pub(crate) fn time(&self, name: &str, command: &mut Command) -> Result<Sample, MeasureError> {
        let (stdout, stderr) = (self.workspace.path("stdout"), self.workspace.path("stderr"));
        for (path, is_error) in [(&stdout, false), (&stderr, true)] {
            let file = File::create(path).map_err(io_error(format!("make {}", path.display())))?;
            if is_error {
                command.stderr(file);
            } else {
                command.stdout(file);
            }
        }
        command.stdin(Stdio::null());
        let started = Instant::now();
        let ended = command.spawn().and_then(|mut child| child.wait4());
        let wall = started.elapsed().as_secs_f64();
        let ended = ended.map_err(io_error(format!("run {name}")))?;
        if !ended.status.success() {
            let reason = fs::read_to_string(&stderr).unwrap_or_default();
            return Err(MeasureError::Failed {
                name: name.to_owned(),
                status: ended.status,
                reason: reason.lines().last().unwrap_or_default().to_owned(),
            });
        }
        Ok(Sample {
            wall,
            cpu: (ended.rusage.utime + ended.rusage.stime).as_secs_f64(),
            peak: ended.rusage.maxrss as f64,
            exits: None,
            reports: reports(&stdout).map_err(io_error("read the messages"))?,
        })
    }

    /// Runs the VMM with `options` and gives back its exit status and the last line of its stderr.
    ///
    /// # Errors
    ///
    /// The VMM cannot be started.
    pub(crate) fn refusal(&self, options: &str) -> Result<(Option<i32>, String), MeasureError> {
        let (input, output) = (self.workspace.path("none"), self.workspace.path("output"));
        let ended = Program::vmm(options)
            .command(&self.vmm, input.as_ref(), output.as_ref())
            .output()
            .map_err(io_error("run the VMM"))?;
        let text = String::from_utf8_lossy(&ended.stderr);
        Ok((
            ended.status.code(),
            text.lines().last().unwrap_or_default().to_owned(),
        ))
    }
}

/// The exits that the VMM counted; none if it wrote no statistics.
fn exits(statistics: &Path) -> Option<f64> {
    let text = fs::read_to_string(statistics).ok()?;
    let value: serde_json::Value = serde_json::from_str(&text).ok()?;
    value.pointer("/exits/total")?.as_f64()
}

/// Counts the progress lines in a file.
fn reports(stdout: &Path) -> io::Result<u64> {
    let mut count = 0;
    for line in BufReader::new(File::open(stdout)?).split(b'\n') {
        count += u64::from(line?.starts_with(b"[PROGRESS]"));
    }
    Ok(count)
}

/// A process that computes on one core until it is dropped.
struct BusyLoop(Option<Child>);

impl BusyLoop {
    fn start(wanted: bool) -> io::Result<Self> {
        if !wanted {
            return Ok(Self(None));
        }
        let core = first_core().unwrap_or_else(|| "0".to_owned());
        // taskset becomes the shell, so that the child is the loop itself and can be ended.
        let child = Command::new("taskset")
            .args(["-c", &core, "sh", "-c", "while :; do :; done"])
            .stdin(Stdio::null())
            .spawn()?;
        Ok(Self(Some(child)))
    }
}

impl Drop for BusyLoop {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The first core that this process may run on.
fn first_core() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let core = list.trim().split([',', '-']).next()?;
    Some(core.to_owned())
}
