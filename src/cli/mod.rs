//! The command line, and how it becomes a checked [`Config`].
//!
//! Three steps, one file each: `prepare` turns what people type into what argh takes,
//! `options` declares the options for argh, and this file puts together what argh has read. A word
//! of `commands` as the first argument begins another command, which has options of its own.
//! The help text, the man page and the shells' completions are made from the same declaration.

mod commands;
mod escape;
mod help;
mod image;
mod options;
mod paths;
mod prepare;
mod text;

#[cfg(test)]
mod generated;

use std::ffi::OsString;
use std::path::PathBuf;

use argh::FromArgs;

use crate::config::{Config, HostCheck, ImageConfig, RequestShape};
use options::Cli;
use prepare::Prepared;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Copy with this configuration.
    Run(Box<Config>),
    /// Say what this host offers.
    Check(HostCheck),
    /// Look into an image.
    Image(Box<ImageConfig>),
    /// Print this on standard output and be done.
    Print(String),
}

/// Reads the arguments, without the program's name. They may be any bytes.
///
/// # Errors
///
/// What is wrong with them and what would be right: one line, fit for a terminal.
pub fn parse(arguments: &[OsString]) -> Result<Command, String> {
    command(arguments).map_err(|error| escape::printable(error.trim_end()))
}

fn command(arguments: &[OsString]) -> Result<Command, String> {
    let (word, rest) = match arguments.split_first() {
        Some((first, rest)) => (first.to_str().and_then(commands::named), rest),
        None => (None, arguments),
    };
    if let Some(command) = word {
        return Ok(match image::parse(command.task, rest)? {
            Some(config) => Command::Image(Box::new(config)),
            None => Command::Print(help::help(&command.page)),
        });
    }
    let Prepared {
        options,
        positionals,
    } = prepare::prepare(arguments, options::all())?;
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let cli = match Cli::from_args(&["vmm"], &options) {
        Ok(cli) => cli,
        // argh ends well only where help is asked for. The text is ours.
        Err(exit) if exit.status.is_ok() => return Ok(Command::Print(help::help(&text::COPY))),
        Err(exit) => return Err(reworded(&exit.output)),
    };
    if cli.version {
        return Ok(Command::Print(format!("vmm {VERSION}\n")));
    }
    // A word that does something else when it comes first must not name a file here by mistake.
    if let Some(word) = positionals
        .first()
        .filter(|word| commands::named(word).is_some())
    {
        return Err(format!(
            "'{word}' is a command, which comes before the options: give vmm {word} IMAGE, or \
             ./{word} for a file of that name"
        ));
    }
    if cli.check {
        return check(&cli, &positionals).map(Command::Check);
    }
    copy(cli, &positionals).map(|config| Command::Run(Box::new(config)))
}

fn check(cli: &Cli, positionals: &[String]) -> Result<HostCheck, String> {
    if cli.input.is_some() || cli.output.is_some() || cli.guest.is_some() {
        return Err("--check copies nothing: give it a folder at most".to_owned());
    }
    let folder = match positionals {
        [] => None,
        [folder] => Some(positional("FOLDER", folder, paths::file)?),
        [_, second, ..] => return Err(superfluous(second, "vmm --check [FOLDER]")),
    };
    Ok(HostCheck {
        folder,
        format: cli.format,
    })
}

fn copy(cli: Cli, positionals: &[String]) -> Result<Config, String> {
    let Files {
        input,
        output,
        guest,
    } = files(cli.input, cli.output, positionals)?;
    if guest.is_some() && cli.guest.is_some() {
        return Err("two guests are given, one by --guest: give one of them".to_owned());
    }
    if cli.quiet && cli.verbose {
        return Err("--quiet and --verbose contradict each other: give one of them".to_owned());
    }
    let sectors = [cli.input_sector_size, cli.output_sector_size];
    Ok(Config {
        input,
        output,
        input_sector_size: cli.input_sector_size,
        output_sector_size: cli.output_sector_size,
        progress: cli.progress_percent,
        protocol: cli.protocol,
        transport: cli.transport,
        requests: RequestShape::new(cli.request_size, cli.queue_depth, sectors)?,
        guest: cli.guest.or(guest),
        serial_input: cli.serial_input,
        debug: cli.debug,
        verbose: cli.verbose,
        quiet: cli.quiet,
        direct: cli.direct,
        fsync: cli.fsync,
        sparse: cli.sparse,
        digest: cli.digest,
        verify: cli.verify,
        max_output_size: cli.max_output_size,
        force: cli.force,
        timeout: cli.timeout,
        sandbox: !cli.no_sandbox,
        stats: cli.stats,
        stats_file: cli.stats_file,
        format: cli.format,
    })
}

/// The files that a copy names, but for options of their own.
struct Files {
    input: PathBuf,
    output: PathBuf,
    guest: Option<PathBuf>,
}

/// Finds out what the positionals are. Beside `--input` and `--output` there is only the guest;
/// without them they are the input, the output and perhaps the guest.
fn files(
    input: Option<PathBuf>,
    output: Option<PathBuf>,
    positionals: &[String],
) -> Result<Files, String> {
    let guest = |guest: Option<&String>| {
        guest
            .map(|guest| positional("GUEST", guest, paths::file))
            .transpose()
    };
    match (input, output, positionals) {
        (Some(_), Some(_), [_, second, ..]) => Err(superfluous(
            second,
            "vmm [OPTIONS] --input SRC --output DST [GUEST]",
        )),
        (Some(input), Some(output), positionals) => Ok(Files {
            input,
            output,
            guest: guest(positionals.first())?,
        }),
        (Some(_), None, _) => {
            Err("--output is missing: give --input SRC and --output DST".to_owned())
        }
        (None, Some(_), _) => {
            Err("--input is missing: give --input SRC and --output DST".to_owned())
        }
        (None, None, []) => {
            Err("SRC and DST are missing: give both, or --input SRC and --output DST".to_owned())
        }
        (None, None, [_]) => Err("DST is missing: give SRC and DST".to_owned()),
        (None, None, [_, _, _, fourth, ..]) => {
            Err(superfluous(fourth, "vmm [OPTIONS] SRC DST [GUEST]"))
        }
        (None, None, [input, output, third @ ..]) => Ok(Files {
            input: positional("SRC", input, paths::disk)?,
            output: positional("DST", output, paths::disk)?,
            guest: guest(third.first())?,
        }),
    }
}

fn positional(
    name: &str,
    text: &str,
    read: fn(&str) -> Result<PathBuf, String>,
) -> Result<PathBuf, String> {
    read(text).map_err(|right| not_valid(text, name, &right))
}

fn superfluous(argument: &str, usage: &str) -> String {
    format!("'{argument}' is one argument too many: give {usage}")
}

fn not_valid(value: &str, name: &str, right: &str) -> String {
    format!("'{value}' is not valid for {name}: {right}")
}

/// argh's message for a value that does not fit, in our words. Any other stays as it is.
fn reworded(message: &str) -> String {
    let parts = || {
        let rest = message.strip_prefix("Error parsing option '")?;
        let (name, rest) = rest.split_once("' with value '")?;
        // What follows the value is ours, and has no quotation mark.
        let (value, right) = rest.rsplit_once("': ")?;
        Some(not_valid(value, name, right))
    };
    parts().unwrap_or_else(|| message.to_owned())
}

#[cfg(test)]
mod tests;
