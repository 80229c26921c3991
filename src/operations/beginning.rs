//! How every operation begins: the time limit, the watcher and the signals, then a console that says
//! what the user should know, and in the end a runner with a thread for each disk.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use super::ending;
use crate::machine::Vcpu;
use crate::report::{Console, ConsoleOptions};
use crate::runtime::{Deadline, RunError, Runner, Signals, Watch, Watched, Worker, check_memory};
use crate::sandbox::Calls;

/// A run that opens what it reads. Its time limit counts already, and a watcher ends the process where
/// the system does not let this thread go on; dropping this ends the watcher, and is the last thing
/// that a run does.
pub(super) struct Beginning {
    pub(super) deadline: Option<Deadline>,
    pub(super) watch: Watch,
}

impl Beginning {
    /// Starts the time limit, and the watcher. Whether the time is over is the watcher's to see until
    /// there is a runner.
    pub(super) fn new(timeout: Option<Duration>, watched: Watched) -> Result<Self, RunError> {
        check_memory()?;
        let deadline = timeout.and_then(Deadline::after);
        let watch = Watch::start(Watched {
            deadline,
            ..watched
        })?;
        Ok(Self { deadline, watch })
    }

    /// To be called when what is read is open. From here on a signal ends the run in order, since there
    /// may be a file to remove; where that takes too long the watcher ends the process.
    pub(super) fn take_over_signals(&self) -> Result<Signals, RunError> {
        self.watch.take_over_signals()
    }

    /// The console of a run, which has said all that the user should know before the run begins.
    pub(super) fn open_console(
        &self,
        options: ConsoleOptions,
        notes: &[String],
        sandbox: bool,
    ) -> Console {
        let mut console = Console::open(options);
        console.count_beats(self.watch.beats());
        notes.iter().for_each(|note| console.warn(note));
        if !sandbox {
            console.warn("the sandbox is off");
        }
        console
    }

    /// A runner for `vcpu` with a thread for each of `workers`. `placing` are the folders in which
    /// files get their names in the end, each with the system calls that this takes.
    pub(super) fn runner<'a>(
        &self,
        vcpu: Vcpu,
        placing: &'a [(BorrowedFd<'a>, Calls)],
        workers: impl IntoIterator<Item = Worker>,
    ) -> Runner<'a> {
        let runner = Runner::new(vcpu)
            .watched_by(&self.watch)
            .deadline(self.deadline);
        let runner = placing.iter().fold(runner, |runner, (folder, calls)| {
            runner.folder(*folder).main_calls(calls)
        });
        workers.into_iter().fold(runner, Runner::worker)
    }
}

/// Runs an operation, and returns the exit status. `start` goes as far as there is an outcome, good or
/// bad, of which `finish` tells the user. A run that does not even begin is told of by a console with
/// these `options`.
pub(super) fn run<T>(
    timeout: Option<Duration>,
    watched: Watched,
    options: impl FnOnce() -> ConsoleOptions,
    start: impl FnOnce(&Beginning) -> Result<T, RunError>,
    finish: impl FnOnce(T, Duration) -> u8,
) -> u8 {
    let started = Instant::now();
    let refuse = |error: &RunError, watch: &Watch| {
        let options = options();
        ending::spare_own_files(error, options.format);
        let console = Console::open(options);
        ending::refuse(console, error, started.elapsed(), watch)
    };
    let beginning = match Beginning::new(timeout, watched) {
        Ok(beginning) => beginning,
        Err(error) => return refuse(&error, &Watch::default()),
    };
    match start(&beginning) {
        Ok(done) => finish(done, started.elapsed()),
        Err(error) => refuse(&error, &beginning.watch),
    }
}

impl Drop for Beginning {
    fn drop(&mut self) {
        self.watch.run_is_over();
    }
}

/// Asks the file systems that are to be written, at `outputs`, for something. One that does not
/// answer keeps the process here, where signals and the time limit still end it at once, since
/// nothing has to be removed yet.
pub(super) fn knock<'p>(outputs: impl IntoIterator<Item = &'p Path>) {
    for path in outputs {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        // What is wrong with them is found out when they are opened.
        let _ = std::fs::symlink_metadata(folder.unwrap_or(Path::new(".")));
        let _ = std::fs::metadata(path);
    }
}
