//! The commands that look into an image: `vmm info` and `vmm check`. They have their options, which
//! are declared here as [`super::options`] declares those of a copy, and one argument.

use std::time::Duration;

use argh::{ArgsInfo, FromArgs};

use super::files::positional;
use super::options::{self, LIMITS, More, Opt, names, plain, words};
use super::{Parsed, paths, read, superfluous};
use crate::config::{
    ImageConfig, ImageFormat, ImageReason, ImageTask, OutputFormat, parse_bytes, parse_timeout,
};

/// looks into a disk image inside a virtual machine
#[derive(FromArgs, ArgsInfo)]
struct ImageCli {
    /// the format that the image has; where it is not given, the one that its content shows, and
    /// the image is refused if that is not clear
    #[argh(option, arg_name = "FORMAT")]
    image_format: Option<ImageFormat>,

    /// do not refuse the image for this reason; may be given for several
    #[argh(option, arg_name = "REASON")]
    allow: Vec<ImageReason>,

    /// refuse a virtual disk that is larger
    #[argh(option, arg_name = "SIZE", from_str_fn(parse_bytes))]
    max_virtual_size: Option<u64>,

    /// how the answer is printed: text, or json with one object
    #[argh(option, arg_name = "FORMAT", default = "OutputFormat::default()")]
    format: OutputFormat,

    /// print the guest's debug lines on stderr
    #[argh(switch)]
    debug: bool,

    /// end the run if it takes longer than this; fractions are allowed
    #[argh(option, arg_name = "SECONDS", from_str_fn(parse_timeout))]
    timeout: Option<Duration>,

    /// do not confine the process; for debugging
    #[argh(switch)]
    no_sandbox: bool,
}

/// The options in the order of the help text.
const GROUPS: [(&str, &[More]); 4] = [
    (
        "Image",
        &[
            names("image-format", ImageFormat::NAMES),
            names("allow", ImageReason::OVERRIDABLE),
            plain("max-virtual-size").or("64T"),
        ],
    ),
    (
        "Output",
        &[
            words("format", &["text", "json"]).or("text"),
            plain("debug"),
        ],
    ),
    LIMITS,
    ("Instead", &[plain("help")]),
];

/// The options, in groups with a title each.
pub(super) fn groups() -> Vec<(&'static str, Vec<Opt>)> {
    options::join(ImageCli::get_args_info().flags, &GROUPS)
}

/// What the arguments behind the command's name ask for; nothing if that is help.
pub(super) fn parse(
    task: ImageTask,
    arguments: &[std::ffi::OsString],
) -> Result<Option<ImageConfig>, String> {
    let word = match task {
        ImageTask::Info => "info",
        ImageTask::Check => "check",
    };
    let Some(Parsed {
        cli, positionals, ..
    }) = read::<ImageCli>(&["vmm", word], arguments, groups())?
    else {
        return Ok(None);
    };
    let image = match positionals.as_slice() {
        [] => return Err(format!("IMAGE is missing: give vmm {word} IMAGE")),
        [image] => positional("IMAGE", image, paths::disk)?,
        [_, second, ..] => return Err(superfluous(second, &format!("vmm {word} IMAGE"))),
    };
    Ok(Some(ImageConfig {
        task,
        image,
        claimed: cli.image_format,
        allowed: cli.allow,
        largest_disk: cli.max_virtual_size,
        format: cli.format,
        debug: cli.debug,
        timeout: cli.timeout,
        sandbox: !cli.no_sandbox,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::PathBuf;

    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Option<ImageConfig>, String> {
        let arguments: Vec<_> = arguments.iter().map(Into::into).collect();
        parse(ImageTask::Info, &arguments)
    }

    fn config(arguments: &[&str]) -> ImageConfig {
        parsed(arguments).unwrap().unwrap()
    }

    #[test]
    fn the_table_and_the_declaration_name_the_same_options() {
        options::names_are_the_same(ImageCli::get_args_info().flags, &GROUPS);
    }

    #[test]
    fn all_options_are_taken() {
        let config = config(&[
            "--image-format=qcow2",
            "--allow",
            "backing-file",
            "--allow=marked-dirty",
            "--max-virtual-size",
            "1G",
            "--format=json",
            "disk.qcow2",
            "--debug",
            "--timeout",
            "1.5",
            "--no-sandbox",
        ]);
        assert_eq!(config.image, PathBuf::from("disk.qcow2"));
        assert_eq!(config.claimed.unwrap().name(), "qcow2");
        let allowed: Vec<_> = config.allowed.iter().map(|reason| reason.name()).collect();
        assert_eq!(allowed, ["backing-file", "marked-dirty"]);
        assert_eq!(config.largest_disk, Some(1 << 30));
        assert_eq!(config.format, OutputFormat::Json);
        assert_eq!(config.timeout, Some(Duration::from_millis(1500)));
        assert!(config.debug && !config.sandbox);
    }

    #[test]
    fn the_defaults_in_the_help_text_are_the_defaults() {
        let default = config(&["a"]);
        assert_eq!(default.largest_disk, None);
        let tebibytes = guest_formats::Options::LARGEST_DISK >> 40;
        let said = groups().into_iter().flat_map(|(_, group)| group);
        let said = said.filter(|option| option.long == "max-virtual-size");
        let said: Vec<_> = said.filter_map(|option| option.default).collect();
        assert_eq!(said, [format!("{tebibytes}T")]);
        assert_eq!(default.format, OutputFormat::Text);
        assert!(default.sandbox && default.claimed.is_none() && default.allowed.is_empty());
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        let cases: [(&[&str], &[&str]); 7] = [
            (&[], &["IMAGE is missing", "vmm info IMAGE"]),
            (&["a", "b"], &["'b' is one argument too many"]),
            (&["-"], &["for IMAGE", "./-"]),
            (
                &["a", "--image-format=qed2"],
                &["'qed2'", "--image-format", "qcow2"],
            ),
            (
                &["a", "--allow=data-file"],
                &["'data-file'", "cannot be overridden"],
            ),
            (&["a", "--allow=x"], &["'x'", "--allow", "backing-file"]),
            (
                &["a", "--fsync"],
                &["--fsync is an option of a copy and vmm convert"],
            ),
        ];
        for (arguments, parts) in cases {
            let error = parsed(arguments).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{arguments:?}: {error}");
            }
        }
    }
}
