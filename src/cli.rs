//! The command line, and how it becomes a checked [`Config`].

use std::path::PathBuf;
use std::time::Duration;

use argh::{EarlyExit, FromArgs};

use crate::config::{
    Config, ProgressPercent, Protocol, RequestShape, SectorSize, StatsFormat, parse_positive,
    parse_timeout,
};

/// Copies a disk inside a virtual machine.
///
/// Starts a VM with the input as a read-only disk and the output as another, and lets the guest
/// copy the one to the other. The output appears under its name only when it is complete.
#[derive(FromArgs)]
#[argh(
    note = "Sector sizes are powers of two from 512 to 65536, in bytes.",
    error_code(0, "the output is a complete copy"),
    error_code(2, "the command line is wrong"),
    error_code(3, "the host failed: a file, a disk, KVM"),
    error_code(
        4,
        "the guest failed: it reported an error, faulted or broke the protocol"
    ),
    error_code(124, "the time limit ended the run"),
    error_code(130, "SIGINT (Ctrl-C) ended the run"),
    error_code(143, "SIGTERM ended the run")
)]
struct Cli {
    /// the file or block device to copy
    #[argh(option, arg_name = "src")]
    input: Option<PathBuf>,

    /// where the copy goes
    #[argh(option, arg_name = "dst")]
    output: Option<PathBuf>,

    /// sector size of the input disk in bytes (default: 512)
    #[argh(option, arg_name = "n", default = "SectorSize::default()")]
    input_sector_size: SectorSize,

    /// sector size of the output disk in bytes (default: 512)
    #[argh(option, arg_name = "n", default = "SectorSize::default()")]
    output_sector_size: SectorSize,

    /// progress reports: 0 every ten sectors, 1 to 99 every that many percent, 100 none
    /// (default: 0)
    #[argh(option, arg_name = "p", default = "ProgressPercent::default()")]
    progress_percent: ProgressPercent,

    /// how the guest reports: protobuf or text (default: protobuf)
    #[argh(option, arg_name = "name", default = "Protocol::default()")]
    protocol: Protocol,

    /// bytes a request covers, a multiple of both sector sizes (default: 131072)
    #[argh(option, arg_name = "bytes", from_str_fn(request_size))]
    request_size: Option<u32>,

    /// requests under way at once; 1 is one at a time (default: as many as fit)
    #[argh(option, arg_name = "n", from_str_fn(queue_depth))]
    queue_depth: Option<u32>,

    /// print the guest's debug lines on stderr
    #[argh(switch)]
    debug: bool,

    /// print the message lines on a terminal too, beside the progress bar
    #[argh(switch)]
    verbose: bool,

    /// print errors only
    #[argh(switch)]
    quiet: bool,

    /// bypass the page cache (O_DIRECT) where the files allow it
    #[argh(switch)]
    direct: bool,

    /// report success only when the copy is on stable storage
    #[argh(switch)]
    fsync: bool,

    /// end the run if it takes longer than this
    #[argh(option, arg_name = "seconds", from_str_fn(parse_timeout))]
    timeout: Option<Duration>,

    /// print statistics on stderr at the end
    #[argh(switch)]
    stats: bool,

    /// how statistics are printed: text or json (default: text)
    #[argh(option, arg_name = "name", default = "StatsFormat::default()")]
    format: StatsFormat,

    /// write statistics to this file as JSON
    #[argh(option, arg_name = "file")]
    stats_file: Option<PathBuf>,

    /// do not confine the process; for debugging
    #[argh(switch)]
    no_sandbox: bool,

    /// print the version
    #[argh(switch)]
    version: bool,

    /// another guest: an ELF executable, or a flat binary for 0x10000 (default: the built-in one)
    #[argh(positional, arg_name = "guest")]
    guest: Option<PathBuf>,
}

fn request_size(text: &str) -> Result<u32, String> {
    parse_positive(text, "a request size")
}

fn queue_depth(text: &str) -> Result<u32, String> {
    parse_positive(text, "a queue depth")
}

/// What a command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Run with this configuration.
    Run(Box<Config>),
    /// Print this and be done.
    Print(String),
}

/// Reads the arguments, without the program's name.
///
/// # Errors
///
/// What is wrong with them and what would be right.
pub fn parse(arguments: &[&str]) -> Result<Command, String> {
    let cli = match Cli::from_args(&["vmm"], arguments) {
        Ok(cli) => cli,
        Err(EarlyExit {
            output,
            status: Ok(()),
        }) => return Ok(Command::Print(output)),
        Err(EarlyExit { output, .. }) => return Err(one_line(&output)),
    };
    if cli.version {
        return Ok(Command::Print(format!(
            "vmm {}\n",
            env!("CARGO_PKG_VERSION")
        )));
    }
    let required = |path: Option<PathBuf>, name: &str| {
        path.filter(|path| !path.as_os_str().is_empty())
            .ok_or_else(|| format!("{name} is missing: give --input SRC and --output DST"))
    };
    let input = required(cli.input, "--input")?;
    let output = required(cli.output, "--output")?;
    if cli.quiet && cli.verbose {
        return Err("--quiet and --verbose contradict each other: give one of them".to_owned());
    }
    let sectors = [cli.input_sector_size, cli.output_sector_size];
    Ok(Command::Run(Box::new(Config {
        input,
        output,
        input_sector_size: cli.input_sector_size,
        output_sector_size: cli.output_sector_size,
        progress: cli.progress_percent,
        protocol: cli.protocol,
        requests: RequestShape::new(cli.request_size, cli.queue_depth, sectors)?,
        guest: cli.guest,
        debug: cli.debug,
        verbose: cli.verbose,
        quiet: cli.quiet,
        direct: cli.direct,
        fsync: cli.fsync,
        timeout: cli.timeout,
        sandbox: !cli.no_sandbox,
        stats: cli.stats,
        stats_file: cli.stats_file,
        format: cli.format,
    })))
}

/// argh explains over several lines; an error is one.
fn one_line(text: &str) -> String {
    let lines: Vec<_> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines.join(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    const FILES: [&str; 4] = ["--input", "a", "--output", "b"];

    fn config(more: &[&str]) -> Config {
        match parse(&[&FILES[..], more].concat()).unwrap() {
            Command::Run(config) => *config,
            Command::Print(text) => panic!("{text}"),
        }
    }

    fn error(arguments: &[&str]) -> String {
        let error = parse(arguments).unwrap_err();
        assert!(!error.contains('\n'), "{error}");
        error
    }

    #[test]
    fn defaults_are_those_of_the_first_prototypes() {
        let config = config(&[]);
        assert_eq!(config.input_sector_size.bytes(), 512);
        assert_eq!(config.output_sector_size.bytes(), 512);
        assert_eq!(config.progress.percent(), 0);
        assert_eq!(config.protocol, Protocol::Protobuf);
        assert_eq!(config.guest, None);
        assert!(config.sandbox);
    }

    #[test]
    fn all_options_are_taken() {
        let config = config(&[
            "--input-sector-size",
            "4096",
            "--output-sector-size",
            "65536",
            "--progress-percent",
            "10",
            "--protocol",
            "text",
            "--request-size",
            "131072",
            "--queue-depth",
            "1",
            "--timeout",
            "1.5",
            "--debug",
            "guest.bin",
        ]);
        assert_eq!(config.input_sector_size.bytes(), 4096);
        assert_eq!(config.output_sector_size.bytes(), 65536);
        assert_eq!(config.progress.percent(), 10);
        assert_eq!(config.protocol, Protocol::Text);
        assert_eq!(
            config.requests,
            RequestShape {
                size: 131_072,
                depth: 1
            }
        );
        assert_eq!(config.timeout, Some(Duration::from_millis(1500)));
        assert_eq!(config.guest, Some(PathBuf::from("guest.bin")));
        assert!(config.debug);
    }

    #[test]
    fn wrong_values_are_refused_with_what_would_be_right() {
        for size in ["131072", "1000", "0", "-1", "4k", ""] {
            let error = error(&[&FILES[..], &["--input-sector-size", size]].concat());
            assert!(error.contains("power of two from 512 to 65536"), "{error}");
        }
        assert!(error(&FILES[..2]).contains("--output DST"));
        assert!(error(&[]).contains("--input SRC"));
        assert!(error(&[&FILES[..], &["--progress-percent", "101"]].concat()).contains("0 to 100"));
        assert!(error(&[&FILES[..], &["--nonsense"]].concat()).contains("--nonsense"));
    }

    #[test]
    fn help_and_version_are_printed_not_refused() {
        for (argument, expected) in [("--help", "--input-sector-size"), ("--version", "vmm ")] {
            match parse(&[argument]).unwrap() {
                Command::Print(text) => assert!(text.contains(expected), "{text}"),
                Command::Run(_) => panic!("{argument} ran"),
            }
        }
    }
}
