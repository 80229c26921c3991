//! The command line, and how it becomes a checked [`Config`].
//!
//! Three steps, one file each: `prepare` turns what people type into what argh takes,
//! `options` declares the options for argh, and this file puts together what argh has read. A word
//! of `commands` as the first argument begins another command, which has options of its own.
//! The help text, the man page and the shells' completions are made from the same declaration.

mod commands;
mod convert;
mod escape;
mod files;
mod help;
mod image;
mod options;
mod paths;
mod prepare;
mod text;

#[cfg(test)]
mod generated;

use std::ffi::OsString;

use argh::FromArgs;

use crate::config::{Config, ConvertConfig, HostCheck, ImageConfig, Protocol, RequestShape};
use crate::sandbox::Advice;
use commands::{Task, Word};
use files::positional;
use options::{Cli, Opt};
use prepare::Prepared;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What helps where the sandbox is in the way of this program.
pub const SANDBOX_ADVICE: Advice = Advice {
    forbidden_call: "this is a fault of vmm or of its surroundings: if libraries are preloaded into the \
                     process (LD_PRELOAD), run it without them; otherwise please report it; \
                     --no-sandbox runs without the sandbox",
    not_confined: "--no-sandbox runs without",
};

/// What a command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Copy with this configuration.
    Run(Box<Config>),
    /// Say what this host offers.
    Check(HostCheck),
    /// Convert an image.
    Convert(Box<ConvertConfig>),
    /// Look into an image.
    Image(Box<ImageConfig>),
    /// Print this on standard output and be done.
    Print(String),
}

/// Reads the arguments, without the program's name. They may be any bytes.
///
/// # Errors
///
/// What is wrong with them, what would be right, and where the help is: one line, fit for a
/// terminal.
pub fn parse(arguments: &[OsString]) -> Result<Command, String> {
    let word = arguments.first().and_then(|word| word.to_str());
    let (parsed, help) = match word.and_then(commands::named) {
        Some(word) => (
            worded(word, arguments.get(1..).unwrap_or_default()),
            format!("vmm {} --help", word.word),
        ),
        None => (wordless(arguments), "vmm --help".to_owned()),
    };
    parsed.map_err(|error| {
        let error = escape::printable(error.trim_end());
        match error.ends_with('?') {
            true => format!("{error} See {help}"),
            false if error.ends_with("--help") => error,
            false => format!("{error}; try: {help}"),
        }
    })
}

/// Whether the arguments, right or wrong, ask for JSON.
#[must_use]
pub fn wants_json(arguments: &[OsString]) -> bool {
    let follows = |pair: &[OsString]| pair[0] == "--format" && pair[1] == "json";
    arguments.iter().any(|argument| argument == "--format=json")
        || arguments.windows(2).any(follows)
}

/// A command that begins with a word of its own.
fn worded(word: &Word, arguments: &[OsString]) -> Result<Command, String> {
    let parsed = match word.task {
        Task::Look(task) => {
            image::parse(task, arguments)?.map(|config| Command::Image(Box::new(config)))
        }
        Task::Convert => {
            convert::parse(arguments)?.map(|config| Command::Convert(Box::new(config)))
        }
    };
    Ok(parsed.unwrap_or_else(|| Command::Print(help::help(&word.page))))
}

/// A copy, or what is asked for in place of one.
fn wordless(arguments: &[OsString]) -> Result<Command, String> {
    let parsed = read::<Cli>(&["vmm"], arguments, options::groups());
    let parsed = parsed.map_err(|error| match word_behind_options(arguments) {
        Some(word) => comes_first(word),
        None => error,
    });
    let Some(parsed) = parsed? else {
        return Ok(Command::Print(help::help(&text::COPY)));
    };
    let Parsed {
        cli,
        positionals,
        names,
    } = parsed;
    if cli.version {
        return Ok(Command::Print(format!("vmm {VERSION}\n")));
    }
    // A word that does something else when it comes first must not name a file here by mistake.
    if let Some(word) = positionals
        .first()
        .filter(|word| commands::named(word).is_some())
    {
        return Err(comes_first(word));
    }
    if cli.check {
        return check(&cli, &positionals, &names).map(Command::Check);
    }
    if let Some(word) = positionals.first().filter(|_| cli.input.is_none())
        && let Some(meant) = commands::meant(word)
        && !paths::exists(word)
    {
        return Err(format!(
            "'{word}' is neither a command nor a file: did you mean vmm {meant}?"
        ));
    }
    copy(cli, &positionals).map(|config| Command::Run(Box::new(config)))
}

/// A word that begins a command, where options come before it.
fn word_behind_options(arguments: &[OsString]) -> Option<&str> {
    let words = arguments.iter().map(|argument| argument.to_str());
    let (at, word) = words
        .enumerate()
        .find_map(|(at, word)| Some((at, word.filter(|word| commands::named(word).is_some())?)))?;
    let known = options::groups().into_iter().flat_map(|(_, group)| group);
    // If it is the value of the option before it, that lacks it here.
    let before = prepare::prepare(arguments.get(..at)?, known.collect()).ok()?;
    before.positionals.is_empty().then_some(word)
}

fn comes_first(word: &str) -> String {
    format!(
        "'{word}' is a command, which comes before the options: give vmm {word} first, or \
         ./{word} for a file of that name"
    )
}

/// What argh makes of the arguments of a command, and what it is not given.
struct Parsed<C> {
    cli: C,
    /// The arguments that are no options.
    positionals: Vec<String>,
    /// The names of the options.
    names: Vec<&'static str>,
}

/// Parses the arguments of the command `name`, which has these options. Nothing if help is asked for:
/// its text is ours.
fn read<C: FromArgs>(
    name: &[&str],
    arguments: &[OsString],
    groups: Vec<(&'static str, Vec<Opt>)>,
) -> Result<Option<Parsed<C>>, String> {
    let known = groups.into_iter().flat_map(|(_, group)| group).collect();
    let Prepared {
        options,
        names,
        positionals,
    } = prepare::prepare(arguments, known)?;
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    match C::from_args(name, &options) {
        Ok(cli) => Ok(Some(Parsed {
            cli,
            positionals,
            names,
        })),
        // argh ends well only where help is asked for.
        Err(exit) if exit.status.is_ok() => Ok(None),
        Err(exit) => Err(reworded(&exit.output)),
    }
}

fn check(cli: &Cli, positionals: &[String], names: &[&str]) -> Result<HostCheck, String> {
    if let Some(name) = names
        .iter()
        .find(|name| !["check", "format"].contains(*name))
    {
        return Err(format!(
            "--check copies nothing and does not take --{name}: give it a folder and --format at most"
        ));
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
    let (input, output, guest) = files::of_a_copy(cli.input, cli.output, positionals)?;
    if guest.is_some() && cli.guest.is_some() {
        return Err("two guests are given, one by --guest: give one of them".to_owned());
    }
    if cli.quiet && cli.verbose {
        return Err("--quiet and --verbose contradict each other: give one of them".to_owned());
    }
    if cli.quiet && cli.digest.is_some() && cli.protocol == Protocol::Text {
        return Err(
            "with --protocol text the digest is a line of the guest's text, which --quiet hides: \
             leave out --quiet"
                .to_owned(),
        );
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
        guest_by_place: guest.is_some(),
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
