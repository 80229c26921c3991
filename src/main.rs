//! The `vmm` program: arguments in, exit status out. Everything else is in the library.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use rustix::io::Errno;
use vmm::cli::{self, Command};
use vmm::operations::{check, convert, copy, inspect};
use vmm::reason::reason;
use vmm::report::{Exits, RunEnd, RunResult, is_reader_gone, last_words, result_object};
use vmm::runtime::{self, Heap, exit_status};
use vmm::sandbox;

#[global_allocator]
static HEAP: Heap = Heap;

/// What runs before Rust's runtime does.
#[used]
// SAFETY: the section holds functions that the C library calls with three arguments, which one that takes
// none may ignore (System V ABI of x86-64); and these are ready to be called so early.
#[unsafe(link_section = ".init_array")]
static BEFORE_RUNTIME: [extern "C" fn(); 2] = [runtime::hold_closed_streams, runtime::hold_ending];

fn main() -> ExitCode {
    runtime::fail_writes();
    sandbox::advise(cli::SANDBOX_ADVICE);
    runtime::describe_panics();
    // A filter around the process may forbid a call with or without a sandbox of its own. Where it cannot
    // be told, the end comes all the same.
    let _ = sandbox::catch_violations();
    let status = runtime::check_stack().and_then(|()| runtime::catch(run));
    status.unwrap_or_else(|error| fail(&error.to_string(), RunEnd::HostError, error.exit_code()))
}

fn run() -> ExitCode {
    match cli::parse(&arguments()) {
        Ok(Command::Print(text)) => print(&text),
        Ok(Command::Check(wanted)) => ExitCode::from(check::run(&wanted)),
        Ok(Command::Run(config)) => ExitCode::from(copy::run(&config)),
        Ok(Command::Convert(config)) => ExitCode::from(convert::run(&config)),
        Ok(Command::Image(config)) => ExitCode::from(inspect::run(&config)),
        Err(error) => fail(&error, RunEnd::Usage, exit_status::USAGE),
    }
}

fn arguments() -> Vec<OsString> {
    std::env::args_os().skip(1).collect()
}

/// Prints what was asked for. A reader who has gone away has read enough, but a text that got
/// lost is a failure.
fn print(text: &str) -> ExitCode {
    match Stdout.write_all(text.as_bytes()) {
        Err(error) if !has_no_reader(&error) => fail(
            &format!("cannot write to standard output: {}", reason(&error)),
            RunEnd::HostError,
            exit_status::HOST,
        ),
        _ => ExitCode::SUCCESS,
    }
}

/// Whether a write to standard output failed because nobody reads it any more.
fn has_no_reader(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|errno| is_reader_gone(io::stdout().as_fd(), errno))
}

/// Standard output as it is: Rust's own handle takes a closed stream for one that takes all.
struct Stdout;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(io::stdout(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Says why nothing was run. For a program that wants JSON the last object, and the only one, says so
/// too.
fn fail(error: &str, outcome: RunEnd, status: u8) -> ExitCode {
    let result = || RunResult {
        outcome,
        status,
        error: Some(error.to_owned()),
        bytes: 0,
        sectors: 0,
        seconds: 0.0,
        exits: Exits::default(),
        digest: None,
    };
    let object = cli::wants_json(&arguments()).then(|| result_object(&result()));
    last_words(error, object.as_deref(), Duration::from_secs(1));
    ExitCode::from(status)
}
