//! The options: argh's declaration of them, and beside it what argh cannot declare. Help, man page
//! and completions are all made from these two.
//!
//! A new option is a field of [`Cli`], a line in [`GROUPS`] and a line where the field is read.

use std::path::PathBuf;
use std::time::Duration;

use argh::{ArgsInfo, FlagInfo, FlagInfoKind, FromArgs, Optionality};

use super::paths::{disk, file};
use crate::config::{
    Digest, OutputFormat, ProgressPercent, Protocol, SectorSize, Sparse, Transport, parse_bytes,
    parse_depth, parse_request_size, parse_timeout,
};

/// copies a disk inside a virtual machine
#[derive(FromArgs, ArgsInfo)]
pub(super) struct Cli {
    /// the file or block device to copy
    #[argh(option, arg_name = "SRC", from_str_fn(disk))]
    pub(super) input: Option<PathBuf>,

    /// where the copy goes; it appears there when it is complete
    #[argh(option, arg_name = "DST", from_str_fn(disk))]
    pub(super) output: Option<PathBuf>,

    /// sector size of the input disk, a power of two from 512 to 64K
    #[argh(option, arg_name = "SIZE", default = "SectorSize::default()")]
    pub(super) input_sector_size: SectorSize,

    /// sector size of the output disk, likewise
    #[argh(option, arg_name = "SIZE", default = "SectorSize::default()")]
    pub(super) output_sector_size: SectorSize,

    /// bytes a request covers, a multiple of both sector sizes, at most 1M
    #[argh(option, arg_name = "SIZE", from_str_fn(parse_request_size))]
    pub(super) request_size: Option<u64>,

    /// requests under way at once, 1 to 682; 1 is one at a time
    #[argh(option, arg_name = "N", from_str_fn(parse_depth))]
    pub(super) queue_depth: Option<u32>,

    /// bypass the page cache (O_DIRECT) where the files allow it
    #[argh(switch)]
    pub(super) direct: bool,

    /// report success only when the copy is on stable storage
    #[argh(switch)]
    pub(super) fsync: bool,

    /// which zeros become holes: auto keeps the input's holes, always makes one of all zeros that
    /// the guest finds, never writes everything
    #[argh(option, arg_name = "WHEN", default = "Sparse::default()")]
    pub(super) sparse: Sparse,

    /// print the digest of the input's bytes, which the guest computes while it copies
    #[argh(option, arg_name = "NAME")]
    pub(super) digest: Option<Digest>,

    /// read the output back when it is written, and compare it
    #[argh(switch)]
    pub(super) verify: bool,

    /// refuse to make an output with more bytes than this
    #[argh(option, arg_name = "SIZE", from_str_fn(parse_bytes))]
    pub(super) max_output_size: Option<u64>,

    /// write to a block device even if it is mounted or in use
    #[argh(switch)]
    pub(super) force: bool,

    /// progress reports: 0 at sectors 1, 11, 21 and so on and the last; 1 to 99 each time that many
    /// percent more are done, and at the last; 100 none
    #[argh(option, short = 'p', arg_name = "P")]
    pub(super) progress_percent: Option<ProgressPercent>,

    /// how messages and statistics are printed: text, or json with one object a line
    #[argh(option, arg_name = "FORMAT", default = "OutputFormat::default()")]
    pub(super) format: OutputFormat,

    /// print the message lines on a terminal too, beside the progress bar
    #[argh(switch, short = 'v')]
    pub(super) verbose: bool,

    /// print no messages and no bar: only errors, warnings, and what else is asked for
    #[argh(switch, short = 'q')]
    pub(super) quiet: bool,

    /// print the guest's debug lines on stderr
    #[argh(switch)]
    pub(super) debug: bool,

    /// print statistics on stderr at the end
    #[argh(switch)]
    pub(super) stats: bool,

    /// write statistics to this file, as JSON
    #[argh(option, arg_name = "FILE", from_str_fn(file))]
    pub(super) stats_file: Option<PathBuf>,

    /// run this guest and not the built-in one: an ELF executable, or a flat binary that is loaded
    /// and entered at 0x10000
    #[argh(option, arg_name = "FILE", from_str_fn(file))]
    pub(super) guest: Option<PathBuf>,

    /// how the guest reports: protobuf for framed messages, text for plain lines
    #[argh(option, arg_name = "NAME", default = "Protocol::default()")]
    pub(super) protocol: Protocol,

    /// what carries the reports: serial for the serial port, console for a virtio console, auto for
    /// the console when there are many
    #[argh(option, arg_name = "NAME", default = "Transport::default()")]
    pub(super) transport: Transport,

    /// pass standard input to the guest's second serial port
    #[argh(switch)]
    pub(super) serial_input: bool,

    /// end the run if it takes longer than this; fractions are allowed
    #[argh(option, arg_name = "SECONDS", from_str_fn(parse_timeout))]
    pub(super) timeout: Option<Duration>,

    /// do not confine the process; for debugging
    #[argh(switch)]
    pub(super) no_sandbox: bool,

    /// copy nothing; say what this host and the file system of a folder offer, and boot a guest; the
    /// folder may follow, and is the current one otherwise
    #[argh(switch)]
    pub(super) check: bool,

    /// print the version
    #[argh(switch, short = 'V')]
    pub(super) version: bool,
}

/// What argh cannot say of an option.
pub(super) struct More {
    pub(super) long: &'static str,
    default: Option<&'static str>,
    value: Value,
}

/// What kind of value an option takes, as far as a shell can complete it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// A file.
    File,
    /// One of these words.
    Words(&'static [&'static str]),
    /// One of these words, which are too many for the help text.
    Names(&'static [&'static str]),
    /// Something that nobody can guess, or nothing.
    Other,
}

/// The options in the order of the help text. Those that argh adds by itself are among them.
const GROUPS: [(&str, &[More]); 7] = [
    ("Files", &[file_of("input"), file_of("output")]),
    (
        "Disks",
        &[
            plain("input-sector-size").or("512"),
            plain("output-sector-size").or("512"),
            plain("request-size").or("128K"),
            plain("queue-depth").or("as many as fit"),
            plain("direct"),
            plain("fsync"),
            words("sparse", &["auto", "always", "never"]).or("auto"),
            plain("max-output-size").or("the input's size"),
            plain("force"),
        ],
    ),
    ("Checks", &[DIGEST, plain("verify")]),
    ("Output", &output("0, or 10 on a terminal without a bar")),
    (
        "Guest",
        &[
            file_of("guest"),
            words("protocol", &["protobuf", "text"]).or("protobuf"),
            words("transport", &["serial", "console", "auto"]).or("auto"),
            plain("serial-input"),
        ],
    ),
    LIMITS,
    (
        "Instead of a copy",
        &[plain("check"), plain("help"), plain("version")],
    ),
];

/// The digest that is computed on the way.
pub(super) const DIGEST: More = words("digest", &["sha256"]);

/// What an operation that writes a disk says on the way, with the progress that it reports if it is
/// not told otherwise.
pub(super) const fn output(progress: &'static str) -> [More; 7] {
    [
        plain("progress-percent").or(progress),
        words("format", &["text", "json"]).or("text"),
        plain("verbose"),
        plain("quiet"),
        plain("debug"),
        plain("stats"),
        file_of("stats-file"),
    ]
}

/// What ends or opens up a run of any operation.
pub(super) const LIMITS: (&str, &[More]) = ("Limits", &[plain("timeout"), plain("no-sandbox")]);

pub(super) const fn plain(long: &'static str) -> More {
    More {
        long,
        default: None,
        value: Value::Other,
    }
}

pub(super) const fn file_of(long: &'static str) -> More {
    More {
        value: Value::File,
        ..plain(long)
    }
}

pub(super) const fn words(long: &'static str, words: &'static [&'static str]) -> More {
    More {
        value: Value::Words(words),
        ..plain(long)
    }
}

pub(super) const fn names(long: &'static str, names: &'static [&'static str]) -> More {
    More {
        value: Value::Names(names),
        ..plain(long)
    }
}

impl More {
    /// The same, with `default`, what holds if the option is not given.
    pub(super) const fn or(self, default: &'static str) -> Self {
        Self {
            default: Some(default),
            ..self
        }
    }
}

/// One option, with all that is known of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opt {
    /// The name without its hyphens.
    pub(super) long: &'static str,
    pub(super) short: Option<char>,
    /// The name of the value, where there is one.
    pub(super) argument: Option<&'static str>,
    /// Whether it may be given more than once.
    pub(super) repeats: bool,
    pub(super) help: &'static str,
    /// What holds when it is not given.
    pub(super) default: Option<&'static str>,
    pub(super) value: Value,
}

/// All options of a copy, in groups with a title each.
pub(super) fn groups() -> Vec<(&'static str, Vec<Opt>)> {
    join(Cli::get_args_info().flags, &GROUPS)
}

/// What argh has `declared`, in the groups of a table that says the rest.
pub(super) fn join(
    declared: &[FlagInfo<'static>],
    table: &[(&'static str, &[More])],
) -> Vec<(&'static str, Vec<Opt>)> {
    let join = |more: &More| {
        let flag = declared
            .iter()
            .find(|flag| flag.long.strip_prefix("--") == Some(more.long))?;
        let is_help = more.long == "help";
        Some(Opt {
            long: more.long,
            short: if is_help { Some('h') } else { flag.short },
            argument: match flag.kind {
                FlagInfoKind::Option { arg_name } => Some(arg_name),
                FlagInfoKind::Switch => None,
            },
            repeats: flag.optionality == Optionality::Repeating,
            help: if is_help {
                "print this"
            } else {
                flag.description
            },
            default: more.default,
            value: more.value,
        })
    };
    table
        .iter()
        .map(|(title, group)| (*title, group.iter().filter_map(join).collect()))
        .collect()
}

/// All options of a copy.
#[cfg(test)]
pub(super) fn all() -> Vec<Opt> {
    groups().into_iter().flat_map(|(_, group)| group).collect()
}

/// Fails unless the table of a command's options names the options that argh knows.
#[cfg(test)]
pub(super) fn names_are_the_same(declared: &[FlagInfo<'_>], table: &[(&str, &[More])]) {
    let long = |flag: &FlagInfo<'_>| flag.long.trim_start_matches("--").to_owned();
    let mut declared: Vec<_> = declared.iter().map(long).collect();
    let listed = table.iter().flat_map(|(_, group)| group.iter());
    let mut listed: Vec<_> = listed.map(|more| more.long).collect();
    declared.sort_unstable();
    listed.sort_unstable();
    assert_eq!(declared, listed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_and_the_declaration_name_the_same_options() {
        names_are_the_same(Cli::get_args_info().flags, &GROUPS);
        let listed = GROUPS.iter().map(|(_, group)| group.len());
        assert_eq!(all().len(), listed.sum::<usize>());
    }

    #[test]
    fn no_two_options_share_a_letter() {
        let mut letters: Vec<_> = all().iter().filter_map(|option| option.short).collect();
        letters.sort_unstable();
        let count = letters.len();
        letters.dedup();
        assert_eq!(letters.len(), count);
    }

    #[test]
    fn only_options_with_a_value_have_a_default_and_something_to_complete() {
        for option in all().iter().filter(|option| option.argument.is_none()) {
            assert_eq!(
                (option.default, option.value),
                (None, Value::Other),
                "--{}",
                option.long
            );
        }
    }
}
