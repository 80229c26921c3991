//! The command `vmm convert` and its options, which are declared here as [`super::options`]
//! declares those of a copy.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use argh::{ArgsInfo, FromArgs};

use super::files::pair;
use super::options::{self, DIGEST, LIMITS, More, Opt, file_of, names, output, plain, words};
use super::paths::{disk, file};
use super::{Parsed, escape, read, superfluous};
use crate::config::{
    ConvertConfig, Digest, DiskFormat, ImageFormat, ImageReason, OutputFormat, ProgressPercent,
    parse_bytes, parse_timeout,
};

/// converts a disk image inside a virtual machine
#[derive(FromArgs, ArgsInfo)]
struct ConvertCli {
    /// the file or block device with the image
    #[argh(option, arg_name = "IMAGE", from_str_fn(disk))]
    input: Option<PathBuf>,

    /// where the disk in it goes; it appears there when it is complete
    #[argh(option, arg_name = "DISK", from_str_fn(disk))]
    output: Option<PathBuf>,

    /// a file that has what the image lacks; if that lacks something, too, give the next behind it,
    /// at most 14 of them; with --allow backing-file the last may be left out, and is zeros
    #[argh(option, arg_name = "FILE", from_str_fn(disk))]
    backing: Vec<PathBuf>,

    /// the format that the image has; where it is not given, the one that its content shows, and
    /// the image is refused if that is not clear
    #[argh(option, arg_name = "FORMAT")]
    image_format: Option<ImageFormat>,

    /// do not refuse the image for this reason; may be given for several
    #[argh(option, arg_name = "REASON")]
    allow: Vec<ImageReason>,

    /// the internal snapshot to convert, by its id or its name, which may be any bytes, in place of
    /// the disk as it is
    #[argh(option, arg_name = "NAME", from_str_fn(snapshot))]
    snapshot: Option<OsString>,

    /// read the holes of the files, too, and do not ask the file system for them
    #[argh(switch)]
    read_holes: bool,

    /// the format of the output: the disk as it is, or a qcow2 image of it, in which zeros take no
    /// room
    #[argh(option, arg_name = "FORMAT", default = "DiskFormat::default()")]
    output_format: DiskFormat,

    /// refuse a disk that is larger, and an output that gets longer
    #[argh(
        option,
        arg_name = "SIZE",
        from_str_fn(parse_bytes),
        default = "ConvertConfig::MAX_OUTPUT_SIZE"
    )]
    max_output_size: u64,

    /// print the digest of the disk in the image, which the guest computes on the way
    #[argh(option, arg_name = "NAME")]
    digest: Option<Digest>,

    /// bypass the page cache (O_DIRECT) where the files allow it
    #[argh(switch)]
    direct: bool,

    /// report success only when the output is on stable storage
    #[argh(switch)]
    fsync: bool,

    /// write to a block device even if it is mounted or in use
    #[argh(switch)]
    force: bool,

    /// progress reports: 0 at sectors 1, 11, 21 and so on and the last; 1 to 99 each time that many
    /// percent more are done, and at the last; 100 none
    #[argh(
        option,
        short = 'p',
        arg_name = "P",
        from_str_fn(percent),
        default = "ProgressPercent::NEVER"
    )]
    progress_percent: ProgressPercent,

    /// how messages and statistics are printed: text, or json with one object a line
    #[argh(option, arg_name = "FORMAT", default = "OutputFormat::default()")]
    format: OutputFormat,

    /// print the message lines on a terminal too, beside the progress bar
    #[argh(switch, short = 'v')]
    verbose: bool,

    /// print no messages and no bar: only errors, warnings, and what else is asked for
    #[argh(switch, short = 'q')]
    quiet: bool,

    /// print the guest's debug lines on stderr
    #[argh(switch)]
    debug: bool,

    /// print statistics on stderr at the end
    #[argh(switch)]
    stats: bool,

    /// write statistics to this file, as JSON
    #[argh(option, arg_name = "FILE", from_str_fn(file))]
    stats_file: Option<PathBuf>,

    /// end the run if it takes longer than this; fractions are allowed
    #[argh(option, arg_name = "SECONDS", from_str_fn(parse_timeout))]
    timeout: Option<Duration>,

    /// do not confine the process; for debugging
    #[argh(switch)]
    no_sandbox: bool,
}

/// Of a name in an image not more bytes than these are kept, so that one that is as long may be cut.
const TOO_LONG: usize = 1024;

/// Reads the id or the name of a snapshot, which may be any bytes.
fn snapshot(text: &str) -> Result<OsString, String> {
    match text {
        // A variable of a shell that was never set must not name the disk as it is, nor a snapshot.
        "" => Err("give the id or the name of a snapshot; one without a name has an id".to_owned()),
        _ => {
            let name = escape::decode(text);
            match name.len() {
                ..TOO_LONG => Ok(name),
                _ => Err(format!(
                    "a name of {TOO_LONG} bytes or more is not compared; give the id"
                )),
            }
        }
    }
}

fn percent(text: &str) -> Result<ProgressPercent, String> {
    text.parse()
}

/// The options in the order of the help text.
const GROUPS: [(&str, &[More]); 6] = [
    (
        "Files",
        &[file_of("input"), file_of("output"), file_of("backing")],
    ),
    (
        "Image",
        &[
            names("image-format", ImageFormat::NAMES),
            names("allow", ImageReason::OVERRIDABLE),
            plain("snapshot"),
            plain("read-holes"),
        ],
    ),
    (
        "Disk",
        &[
            words("output-format", DiskFormat::NAMES).or("raw"),
            plain("max-output-size").or("16T"),
            DIGEST,
            plain("direct"),
            plain("fsync"),
            plain("force"),
        ],
    ),
    ("Output", &output("100")),
    LIMITS,
    ("Instead", &[plain("help")]),
];

/// The options, in groups with a title each.
pub(super) fn groups() -> Vec<(&'static str, Vec<Opt>)> {
    options::join(ConvertCli::get_args_info().flags, &GROUPS)
}

/// What the arguments behind the command's name ask for; nothing if that is help.
pub(super) fn parse(arguments: &[OsString]) -> Result<Option<ConvertConfig>, String> {
    let Some(Parsed {
        cli, positionals, ..
    }) = read::<ConvertCli>(&["vmm", "convert"], arguments, groups())?
    else {
        return Ok(None);
    };
    let names = ["IMAGE", "DISK"];
    let (input, output, rest) = pair(names, [cli.input, cli.output], &positionals)?;
    if let Some(surplus) = rest.first() {
        return Err(superfluous(surplus, "vmm convert [OPTIONS] IMAGE DISK"));
    }
    if cli.quiet && cli.verbose {
        return Err("--quiet and --verbose contradict each other: give one of them".to_owned());
    }
    if cli.backing.len() > ConvertConfig::MOST_BACKINGS {
        return Err(format!(
            "--backing is given {} times: give at most {}",
            cli.backing.len(),
            ConvertConfig::MOST_BACKINGS
        ));
    }
    Ok(Some(ConvertConfig {
        input,
        output,
        backings: cli.backing,
        claimed: cli.image_format,
        output_format: cli.output_format,
        allowed: cli.allow,
        snapshot: cli.snapshot,
        read_holes: cli.read_holes,
        max_output_size: cli.max_output_size,
        progress: cli.progress_percent,
        digest: cli.digest,
        direct: cli.direct,
        fsync: cli.fsync,
        force: cli.force,
        format: cli.format,
        verbose: cli.verbose,
        quiet: cli.quiet,
        debug: cli.debug,
        stats: cli.stats,
        stats_file: cli.stats_file,
        timeout: cli.timeout,
        sandbox: !cli.no_sandbox,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Option<ConvertConfig>, String> {
        let arguments: Vec<_> = arguments.iter().map(Into::into).collect();
        parse(&arguments)
    }

    #[test]
    fn the_table_and_the_declaration_name_the_same_options() {
        options::names_are_the_same(ConvertCli::get_args_info().flags, &GROUPS);
    }

    #[test]
    fn files_are_taken_in_their_order_and_the_rest_has_defaults() {
        let arguments = [
            "--input",
            "a",
            "--backing",
            "b",
            "--output=d",
            "--backing=c",
            "--allow=marked-dirty",
            "--snapshot",
            "one",
        ];
        let config = parsed(&arguments).unwrap().unwrap();
        assert_eq!(config.input, PathBuf::from("a"));
        assert_eq!(config.output, PathBuf::from("d"));
        assert_eq!(config.backings, [PathBuf::from("b"), PathBuf::from("c")]);
        assert_eq!(config.snapshot.as_deref(), Some(OsStr::new("one")));
        assert_eq!(config.allowed.len(), 1);
        assert_eq!(config.max_output_size, 16 << 40);
        assert_eq!(config.output_format, DiskFormat::Raw);
        assert_eq!(config.progress, ProgressPercent::NEVER);
        assert!(config.sandbox && config.claimed.is_none() && config.digest.is_none());
    }

    #[test]
    fn the_name_of_a_snapshot_may_be_any_bytes_but_is_never_empty() {
        let name = OsStr::from_bytes(b"caf\xe9 \xf0");
        let arguments = ["--snapshot", "", "a", "b"].map(OsString::from);
        let mut named = arguments.clone();
        named[1] = name.to_owned();
        let config = parse(&named).unwrap().unwrap();
        assert_eq!(config.snapshot.as_deref(), Some(name));
        for arguments in [
            &arguments[..],
            &["--snapshot=", "a", "b"].map(OsString::from),
        ] {
            let error = parse(arguments).unwrap_err();
            assert!(error.contains("--snapshot"), "{error}");
            assert!(error.contains("id or the name of a snapshot"), "{error}");
        }
    }

    #[test]
    fn the_name_of_a_snapshot_is_shorter_than_what_is_kept_of_it() {
        assert_eq!(TOO_LONG, guest_formats::LONGEST_NAME);
        let longest = "y".repeat(TOO_LONG - 1);
        let config = parsed(&["--snapshot", &longest, "a", "b"])
            .unwrap()
            .unwrap();
        assert_eq!(config.snapshot.as_deref(), Some(OsStr::new(&longest)));
        let error = parsed(&["--snapshot", &format!("{longest}y"), "a", "b"]).unwrap_err();
        assert!(error.contains("give the id"), "{error}");
    }

    #[test]
    fn files_may_be_given_in_their_place() {
        let config = parsed(&["--fsync", "a", "-q", "b"]).unwrap().unwrap();
        assert_eq!(config.input, PathBuf::from("a"));
        assert_eq!(config.output, PathBuf::from("b"));
        assert!(config.fsync && config.quiet);
    }

    #[test]
    fn a_chain_has_a_longest_length() {
        let most = vec!["--backing=x"; ConvertConfig::MOST_BACKINGS];
        let config = parsed(&[&most[..], &["a", "b"]].concat()).unwrap().unwrap();
        assert_eq!(config.backings.len(), ConvertConfig::MOST_BACKINGS);
        let error = parsed(&[&most[..], &["--backing=x", "a", "b"]].concat()).unwrap_err();
        assert!(error.contains("give at most"), "{error}");
    }

    #[test]
    fn each_output_format_has_its_name() {
        for (name, format) in [("raw", DiskFormat::Raw), ("qcow2", DiskFormat::Qcow2)] {
            assert!(DiskFormat::NAMES.contains(&name));
            let arguments = ["--input=a", "--output=b", "--output-format", name];
            let config = parsed(&arguments).unwrap().unwrap();
            assert_eq!(config.output_format, format);
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        let mut many = vec!["--backing=x"; 20];
        many.extend(["a", "b"]);
        let cases: [(&[&str], &[&str]); 9] = [
            (
                &[],
                &["IMAGE and DISK are missing", "--input IMAGE --output DISK"],
            ),
            (&["a"], &["DISK is missing"]),
            (&["a", "b", "c"], &["'c'", "too many", "IMAGE DISK"]),
            (&["--output=d"], &["--input is missing"]),
            (&["--input=a"], &["--output is missing"]),
            (&["--input=a", "--output=d", "e"], &["'e'", "too many"]),
            (&["--allow=overlap"], &["'overlap'", "cannot be overridden"]),
            (&["--output-format=vmdk"], &["'vmdk'", "give raw or qcow2"]),
            (&many, &["20 times", "at most 14"]),
        ];
        for (arguments, parts) in cases {
            let error = parsed(arguments).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{arguments:?}: {error}");
            }
        }
    }
}
