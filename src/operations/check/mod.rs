//! The look at a host: whether a copy would run here, what would make it better, and what to do
//! about it. It ends with a guest of seven bytes that is booted in the sandbox.
//!
//! Nothing is changed on the host; the process itself is confined at the end.

mod host;
mod trial;

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::config::{HostCheck, OutputFormat};
use crate::machine::{self, Severity};
use crate::operations::beginning::{self, Beginning};
use crate::reason::reason;
use crate::report::{
    self, ANSWER_PIECE, Console, ConsoleOptions, Drained, finding_object, host_check_object,
};
use crate::runtime::{RunError, Signals, Watched, exit_status, say_goodbye};

/// How long a reader is waited for before the guest is booted.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a finding means for a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// It is as it should be.
    Ok,
    /// A copy runs, and takes longer.
    Slower,
    /// A copy runs, and is less well protected against something.
    Weaker,
    /// No copy runs.
    Missing,
}

impl State {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Slower => "slower",
            Self::Weaker => "weaker",
            Self::Missing => "missing",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug)]
struct Finding {
    what: String,
    state: State,
    text: String,
}

impl Finding {
    fn new(what: impl Into<String>, state: State, text: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            state,
            text: text.into(),
        }
    }
}

impl From<machine::Finding> for Finding {
    fn from(finding: machine::Finding) -> Self {
        let state = match finding.severity {
            Severity::Good => State::Ok,
            Severity::Slower => State::Slower,
            Severity::Fatal => State::Missing,
        };
        Self::new(finding.what, state, finding.text)
    }
}

/// Looks at what `check` asks for, tells the user, and returns the exit status: 0 if a copy would
/// run.
pub fn run(check: &HostCheck) -> u8 {
    let watched = Watched {
        confined: true,
        last_object: (check.format == OutputFormat::Json).then_some(last_object),
        ..Watched::default()
    };
    match Beginning::new(None, watched) {
        Ok(beginning) => look(check, &beginning),
        Err(error) => refuse(check.format, &error),
    }
}

/// Says why nothing was looked at, and returns the exit status.
fn refuse(format: OutputFormat, error: &RunError) -> u8 {
    let object = (format == OutputFormat::Json).then(|| last_object(error, Duration::ZERO));
    report::last_words(&error.to_string(), object.as_deref(), PATIENCE);
    error.exit_code()
}

/// The last object of a look that ends because of `error`.
fn last_object(error: &RunError, _elapsed: Duration) -> String {
    host_check_object(false, error.exit_code())
}

/// Looks, and returns the exit status.
fn look(check: &HostCheck, beginning: &Beginning) -> u8 {
    let folder = check.folder.as_deref().unwrap_or(Path::new("."));
    beginning::knock([folder]);
    let signals = match beginning.take_over_signals() {
        Ok(signals) => signals,
        Err(error) => return refuse(check.format, &error),
    };
    let mut talk = Talk {
        console: beginning.open_console(options(), &[], true),
        format: check.format,
        missing: false,
    };
    let kvm: Vec<Finding> = host::kvm();
    let has_kvm = kvm.iter().all(|finding| finding.state != State::Missing);
    let found = kvm
        .into_iter()
        .chain(host::sandbox())
        .chain(host::folder(folder));
    found.for_each(|finding| talk.tell(&finding));
    // All of this is shown before the process is confined: what goes wrong then may end it.
    let give_up = Instant::now() + PATIENCE;
    let drained = talk.console.drain(give_up, PATIENCE, signals.as_fd());
    if matches!(drained, Drained::GaveUp { .. }) {
        return talk.unanswered("nobody reads it", &signals);
    }

    let (mut talk, signals) = if has_kvm {
        match trial::boot(talk, signals, &beginning.watch) {
            Ok(ended) => ended,
            Err(status) => return status,
        }
    } else {
        talk.tell(&Finding::new(
            trial::WHAT,
            State::Missing,
            "not booted: there is no KVM to boot it",
        ));
        (talk, signals)
    };
    talk.conclude();
    say_goodbye(&mut talk.console, None, signals.as_fd());
    // What was found is all that this is for.
    match talk.console.failure() {
        Some(errno) => talk.unanswered(&reason(errno), &signals),
        None => talk.status(),
    }
}

/// The conversation with the user.
struct Talk {
    console: Console,
    format: OutputFormat,
    missing: bool,
}

impl Talk {
    fn tell(&mut self, finding: &Finding) {
        let Finding { what, state, text } = finding;
        self.missing |= *state == State::Missing;
        let line = match self.format {
            OutputFormat::Text => format!("{:8} {what}: {text}\n", state.name()),
            OutputFormat::Json => finding_object(what, state.name(), text),
        };
        self.show(&line);
    }

    fn conclude(&mut self) {
        let line = match (self.format, self.missing) {
            (OutputFormat::Json, missing) => host_check_object(!missing, self.status()),
            (OutputFormat::Text, false) => "A copy would run here.\n".to_owned(),
            (OutputFormat::Text, true) => "No copy can run here: see the lines that begin with \
                missing, and docs/troubleshooting.md.\n"
                .to_owned(),
        };
        self.show(&line);
    }

    /// Says that nobody gets the answer, and returns the exit status.
    fn unanswered(&mut self, reason: &str, signals: &Signals) -> u8 {
        let text = format!("cannot write the answer to standard output: {reason}");
        self.console.error(&text);
        say_goodbye(&mut self.console, None, signals.as_fd());
        exit_status::HOST
    }

    /// Says what has ended the look before its end, and returns the exit status.
    fn break_off(&mut self, error: &RunError, signals: &Signals) -> u8 {
        self.console.error(&error.to_string());
        if self.format == OutputFormat::Json {
            self.show(&last_object(error, Duration::ZERO));
        }
        say_goodbye(&mut self.console, Some(error), signals.as_fd());
        error.exit_code()
    }

    fn show(&mut self, line: &str) {
        let pieces = line.as_bytes().chunks(ANSWER_PIECE);
        pieces.for_each(|piece| self.console.answer(piece));
    }

    const fn status(&self) -> u8 {
        if self.missing { exit_status::HOST } else { 0 }
    }
}

/// All lines are passed on as they are, whatever the format is: they are whole.
fn options() -> ConsoleOptions {
    ConsoleOptions {
        quiet: false,
        verbose: false,
        debug: false,
        format: report::OutputFormat::Text,
        raw_text: true,
        total: None,
        verb: "checked",
    }
}
