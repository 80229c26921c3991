//! How every operation begins: the time limit and the signals, then a console that says what the
//! user should know, and in the end a runner with a thread for each disk.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use crate::machine::Vcpu;
use crate::report::{Console, ConsoleOptions};
use crate::runtime::{Alarm, Deadline, RunError, Runner, Signals, Worker};
use crate::sandbox::Calls;

/// A run that opens what it reads. Its time limit counts already.
pub(super) struct Beginning {
    deadline: Option<Deadline>,
    alarm: Option<Alarm>,
}

impl Beginning {
    /// Starts the time limit. If it is over before the files are open, `refuse` tells the user why
    /// the run does not begin, and after which time, and returns the exit status.
    pub(super) fn new(
        timeout: Option<Duration>,
        refuse: impl FnOnce(&RunError, Duration) -> u8 + Send + 'static,
    ) -> Result<Self, RunError> {
        let deadline = timeout.and_then(Deadline::after);
        let set_alarm =
            |deadline: Deadline| deadline.set_alarm(move |error| refuse(error, deadline.limit()));
        let alarm = deadline.map(set_alarm).transpose();
        let alarm = alarm.map_err(RunError::host("set an alarm"))?;
        Ok(Self { deadline, alarm })
    }

    /// To be called when what is read is open. From here on the time limit is the runner's to
    /// watch, and a signal ends the run in order, since there may be a file to remove.
    pub(super) fn take_over_signals(self) -> Result<(Option<Deadline>, Signals), RunError> {
        let signals = Signals::take_over().map_err(RunError::host("take over signals"))?;
        drop(self.alarm);
        Ok((self.deadline, signals))
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

/// The console of a run, which has said all that the user should know before the run begins.
pub(super) fn open_console(options: ConsoleOptions, notes: &[String], sandbox: bool) -> Console {
    let mut console = Console::open(options);
    notes.iter().for_each(|note| console.warn(note));
    if !sandbox {
        console.warn("the sandbox is off");
    }
    console
}

/// A runner for `vcpu` with a thread for each of `workers`. `placing` are the folders in which
/// files get their names in the end, each with the system calls that this takes.
pub(super) fn runner<'a>(
    vcpu: Vcpu,
    placing: &'a [(BorrowedFd<'a>, Calls)],
    workers: impl IntoIterator<Item = Worker>,
) -> Runner<'a> {
    let runner = placing
        .iter()
        .fold(Runner::new(vcpu), |runner, (folder, calls)| {
            runner.folder(*folder).main_calls(calls)
        });
    workers.into_iter().fold(runner, Runner::worker)
}
