//! The `vmm` program: arguments in, exit status out. Everything else is in the library.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use vmm::cli::{self, Command};
use vmm::report::last_words;
use vmm::run::{self, EXIT_USAGE};

fn main() -> ExitCode {
    match command() {
        Ok(Command::Print(text)) => {
            // Nobody to print it for is no failure.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Ok(Command::Run(config)) => match run::run(&config) {
            Ok(status) => ExitCode::from(status),
            Err(error) => fail(&error.to_string(), error.exit_code()),
        },
        Err(error) => fail(&format!("{error}; try: vmm --help"), EXIT_USAGE),
    }
}

fn command() -> Result<Command, String> {
    let arguments: Vec<String> = std::env::args_os()
        .skip(1)
        .map(OsString::into_string)
        .collect::<Result<_, _>>()
        .map_err(|argument| format!("the argument {} is not UTF-8", argument.display()))?;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    cli::parse(&arguments)
}

fn fail(error: &str, status: u8) -> ExitCode {
    last_words(error, Duration::from_secs(1));
    ExitCode::from(status)
}
