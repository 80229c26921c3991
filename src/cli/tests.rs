//! Whole command lines.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::{ImageTask, OutputFormat, ProgressPercent, Protocol, Transport};

const FILES: [&str; 4] = ["--input", "a", "--output", "b"];

fn parsed(arguments: &[&str]) -> Result<Command, String> {
    let arguments: Vec<_> = arguments.iter().map(OsString::from).collect();
    parse(&arguments)
}

fn config(arguments: &[&str]) -> Config {
    match parsed(arguments) {
        Ok(Command::Run(config)) => *config,
        other => panic!("{arguments:?}: {other:?}"),
    }
}

fn with_files(more: &[&str]) -> Config {
    config(&[&FILES[..], more].concat())
}

#[track_caller]
fn error(arguments: &[&str]) -> String {
    let error = parsed(arguments).unwrap_err();
    assert!(!error.contains('\n'), "{error}");
    error
}

fn files(config: &Config) -> [Option<&str>; 3] {
    [
        config.input.to_str(),
        config.output.to_str(),
        config.guest.as_ref().and_then(|guest| guest.to_str()),
    ]
}

#[test]
fn a_command_behind_options_is_told_to_come_first_whatever_is_wrong_behind_it() {
    for arguments in [
        &["-q", "convert", "--backing", "b", "a", "x"][..],
        &["--quiet", "info", "x"],
        &["--timeout", "1", "check", "--image-format=raw", "x"],
    ] {
        let error = error(arguments);
        assert!(error.contains("comes before the options"), "{error}");
    }
    for arguments in [
        &["--input", "info", "--backing=x"][..],
        &["a", "info", "--backing=x"],
    ] {
        let error = error(arguments);
        assert!(error.contains("--backing is an option of"), "{error}");
        assert!(error.ends_with("; see vmm convert --help"), "{error}");
    }
}

#[test]
fn defaults_are_those_of_the_first_prototypes() {
    let config = with_files(&[]);
    assert_eq!(config.input_sector_size.bytes(), 512);
    assert_eq!(config.output_sector_size.bytes(), 512);
    assert_eq!(config.progress, None);
    assert_eq!(config.protocol, Protocol::Protobuf);
    assert_eq!(config.transport, Transport::Auto);
    assert_eq!(config.format, OutputFormat::Text);
    assert_eq!(config.guest, None);
    assert!(config.sandbox && !config.serial_input);
}

#[test]
fn the_defaults_in_the_help_text_are_the_defaults() {
    let default = format!("{:?}", with_files(&[]));
    for option in options::all() {
        let Some(value) = option.default.filter(|value| !value.contains(' ')) else {
            continue;
        };
        let given = with_files(&[&format!("--{}={value}", option.long)]);
        assert_eq!(format!("{given:?}"), default, "--{}", option.long);
    }
}

#[test]
fn every_word_that_is_offered_is_taken_and_no_other() {
    for option in options::all() {
        let options::Value::Words(words) = option.value else {
            continue;
        };
        let mut configs: Vec<_> = words
            .iter()
            .map(|word| format!("{:?}", with_files(&[&format!("--{}={word}", option.long)])))
            .collect();
        configs.sort_unstable();
        configs.dedup();
        assert_eq!(configs.len(), words.len(), "--{}", option.long);
        let option = format!("--{}", option.long);
        let error = error(&[&FILES[..], &[&option, "morse"]].concat());
        for part in words.iter().chain(&[option.as_str(), "'morse'"]) {
            assert!(error.contains(part), "{error}");
        }
    }
}

#[test]
fn all_options_are_taken() {
    let config = with_files(&[
        "--input-sector-size",
        "4K",
        "--output-sector-size=65536",
        "-p",
        "10",
        "--protocol",
        "text",
        "--transport",
        "console",
        "--request-size",
        "128KiB",
        "--queue-depth",
        "1",
        "--timeout",
        "1.5",
        "--stats-file",
        "stats.json",
        "--format",
        "json",
        "--serial-input",
        "--debug",
        "--verbose",
        "--direct",
        "--fsync",
        "--stats",
        "--no-sandbox",
        "guest.bin",
    ]);
    assert_eq!(config.input_sector_size.bytes(), 4096);
    assert_eq!(config.output_sector_size.bytes(), 65536);
    assert_eq!(config.progress, Some(ProgressPercent::TENTHS));
    assert_eq!(config.protocol, Protocol::Text);
    assert_eq!(config.transport, Transport::Console);
    assert_eq!(config.format, OutputFormat::Json);
    assert_eq!(
        config.requests,
        RequestShape {
            size: 131_072,
            depth: 1
        }
    );
    assert_eq!(config.timeout, Some(Duration::from_millis(1500)));
    assert_eq!(config.stats_file, Some(PathBuf::from("stats.json")));
    assert_eq!(config.guest, Some(PathBuf::from("guest.bin")));
    assert!(config.serial_input && config.debug && config.verbose && config.direct);
    assert!(config.fsync && config.stats && !config.sandbox && !config.quiet);
}

#[test]
fn files_may_be_given_by_place_or_by_name() {
    let cases: [(&[&str], [Option<&str>; 3]); 8] = [
        (&["a", "b"], [Some("a"), Some("b"), None]),
        (&["a", "b", "g"], [Some("a"), Some("b"), Some("g")]),
        (&["a", "-q", "b"], [Some("a"), Some("b"), None]),
        (&["--guest=g", "a", "b"], [Some("a"), Some("b"), Some("g")]),
        (
            &["g", "--input", "a", "--output", "b"],
            [Some("a"), Some("b"), Some("g")],
        ),
        (
            &["--output=b", "--guest", "g", "--input=a"],
            [Some("a"), Some("b"), Some("g")],
        ),
        (&["--", "-a", "--b"], [Some("-a"), Some("--b"), None]),
        (&["./-", "help"], [Some("./-"), Some("help"), None]),
    ];
    for (arguments, expected) in cases {
        assert_eq!(files(&config(arguments)), expected, "{arguments:?}");
    }
}

#[test]
fn the_examples_of_the_help_text_are_valid() {
    for (example, _) in text::COPY.examples {
        let words = example.split_whitespace().take_while(|word| *word != "|");
        config(&words.skip(1).collect::<Vec<_>>());
    }
}

/// The command lines of the prototypes' documentation.
#[test]
fn the_first_command_lines_keep_their_meaning() {
    for options in [
        &[][..],
        &[
            "--input-sector-size",
            "4096",
            "--output-sector-size",
            "512",
            "--progress-percent",
            "10",
        ],
    ] {
        let files_first = ["--input", "source.bin", "--output", "dest.bin"];
        let arguments = [&files_first[..], options, &["guest.bin"]].concat();
        let expected = [Some("source.bin"), Some("dest.bin"), Some("guest.bin")];
        assert_eq!(files(&config(&arguments)), expected);
    }
}

#[test]
fn a_text_guest_may_be_quiet_or_make_a_digest() {
    for option in ["--quiet", "--digest=sha256"] {
        assert_eq!(
            with_files(&["--protocol=text", option]).protocol,
            Protocol::Text
        );
    }
    assert!(with_files(&["--quiet", "--digest=sha256"]).quiet);
}

#[test]
fn what_is_missing_contradicts_or_is_too_much_is_named() {
    let cases: [(&[&str], &[&str]); 17] = [
        (&[], &["SRC and DST are missing", "--input SRC"]),
        (&["a"], &["DST is missing"]),
        (&["--input", "a"], &["--output is missing"]),
        (&["--output", "b"], &["--input is missing"]),
        (&["--input", "a", "b"], &["--output is missing"]),
        (&["a", "b", "g", "x"], &["'x' is one argument too many"]),
        (
            &["--input=a", "--output=b", "g", "x"],
            &["'x' is one argument too many"],
        ),
        (&["a", "b", "g", "--guest", "h"], &["two guests"]),
        (
            &["--input=a", "--output=b", "g", "--guest", "h"],
            &["two guests"],
        ),
        (
            &["--input", "a", "--input", "b"],
            &["--input is given twice"],
        ),
        (&["-qv", "a", "b"], &["--quiet and --verbose"]),
        (
            &["-q", "--protocol=text", "--digest=sha256", "a", "b"],
            &["the digest is a line", "leave out --quiet"],
        ),
        (&["--check", "a", "b"], &["'b' is one argument too many"]),
        (
            &["--check", "--input", "a"],
            &["--check copies nothing", "folder"],
        ),
        (&["--check", "--timeout=1"], &["does not take --timeout"]),
        (&["-q", "--check", "a"], &["does not take --quiet"]),
        (
            &["--request-size=3K", "a", "b", "--output-sector-size=4K"],
            &["3072", "a multiple of 4096"],
        ),
    ];
    for (arguments, parts) in cases {
        let error = error(arguments);
        for part in parts {
            assert!(error.contains(part), "{arguments:?}: {error}");
        }
    }
}

#[test]
fn standard_streams_are_no_disks() {
    for arguments in [
        &["-", "b"][..],
        &["a", "-"],
        &["--input", "-", "--output", "b"],
        &["--input=a", "--output=-"],
    ] {
        let error = error(arguments);
        assert!(
            error.contains("read and write at any offset") && error.contains("./-"),
            "{error}"
        );
    }
    assert!(error(&["a", "b", "--stats-file", "-"]).contains("./-"));
    assert!(error(&["a", "b", "-"]).contains("for GUEST"));
    assert!(error(&["a", ""]).contains("for DST"));
}

#[test]
fn an_error_says_the_value_once_with_its_option_and_what_would_be_right() {
    for (option, value, right) in [
        (
            "--input-sector-size",
            "131073",
            "power of two from 512 to 65536",
        ),
        (
            "--output-sector-size",
            "3k",
            "power of two from 512 to 65536",
        ),
        ("--progress-percent", "101", "0 to 100"),
        ("--request-size", "1KB", "K, M, G or T"),
        ("--queue-depth", "few", "from 1 to 682"),
        ("--queue-depth", "0", "give a whole number from 1 to 682"),
        ("--timeout", "soon", "above 0"),
        ("--format", "xml", "text or json"),
        ("--timeout", "it's ' with value '7': x", "above 0"),
    ] {
        let error = error(&[&FILES[..], &[option, value]].concat());
        assert_eq!(error.matches(value).count(), 1, "{error}");
        assert!(error.contains(option) && error.contains(right), "{error}");
    }
}

#[test]
fn a_message_is_one_line_whatever_was_given() {
    let ill = OsString::from_vec(b"\x1b[31m\n\xff".to_vec());
    for arguments in [
        vec!["--timeout".into(), ill.clone()],
        vec![["--".as_ref(), ill.as_os_str()].into_iter().collect()],
        vec!["a".into(), "b".into(), "c".into(), ill],
    ] {
        let error = parse(&arguments).unwrap_err();
        assert!(error.contains("\\u{1b}[31m\\n\\xff"), "{error}");
    }
}

#[test]
fn paths_may_be_any_bytes() {
    let name = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    let long = name(b"--output=\xff\xfe");
    let arguments = ["--input".into(), name(b"\x80a"), long, name(b"g\xc3")];
    let Ok(Command::Run(config)) = parse(&arguments) else {
        panic!("refused");
    };
    assert_eq!(config.input.into_os_string(), name(b"\x80a"));
    assert_eq!(config.output.into_os_string(), name(b"\xff\xfe"));
    assert_eq!(config.guest.unwrap().into_os_string(), name(b"g\xc3"));
}

#[test]
fn help_and_version_are_printed_whatever_else_is_given() {
    for (arguments, expected) in [
        (&["--help"][..], "--input-sector-size"),
        (&["-h"], "--input-sector-size"),
        (&["a", "-qh", "--nonsense"], "--input-sector-size"),
        (&["--version"], "vmm "),
        (&["--input", "a", "-V"], "vmm "),
    ] {
        match parsed(arguments) {
            Ok(Command::Print(text)) => assert!(text.contains(expected), "{text}"),
            other => panic!("{arguments:?}: {other:?}"),
        }
    }
}

#[test]
fn a_check_takes_a_folder_and_a_format() {
    let check = |arguments: &[&str]| match parsed(arguments) {
        Ok(Command::Check(check)) => (check.folder, check.format),
        other => panic!("{arguments:?}: {other:?}"),
    };
    assert_eq!(check(&["--check"]), (None, OutputFormat::Text));
    let folder = Some(PathBuf::from("/tmp"));
    assert_eq!(
        check(&["--check", "/tmp", "--format=json"]),
        (folder, OutputFormat::Json)
    );
}

/// Arguments that come near to valid ones, and any others.
fn argument() -> impl Strategy<Value = OsString> {
    let names: Vec<&'static str> = options::all().iter().map(|option| option.long).collect();
    let name = proptest::sample::select(names);
    let value = "[-=0-9kKMa. ]{0,5}";
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..8).prop_map(OsString::from_vec),
        "-[a-zA-Z0-9=]{0,4}".prop_map(OsString::from),
        value.prop_map(OsString::from),
        (name.clone(), value).prop_map(|(name, value)| format!("--{name}={value}").into()),
        name.prop_map(|name| format!("--{name}").into()),
    ]
}

proptest! {
    #[test]
    fn no_arguments_make_it_panic_and_every_error_is_a_printable_line(
        arguments in proptest::collection::vec(argument(), 0..8)
    ) {
        match parse(&arguments) {
            Ok(Command::Run(config)) => {
                let unit = config.input_sector_size.max(config.output_sector_size).bytes();
                prop_assert!(config.requests.size.is_multiple_of(unit));
                prop_assert!(!config.input.as_os_str().is_empty());
            }
            Ok(_) => {}
            Err(error) => {
                prop_assert!(!error.is_empty());
                prop_assert!(!error.chars().any(char::is_control), "{}", error);
            }
        }
    }

    #[test]
    fn any_two_paths_behind_two_hyphens_are_copied(
        paths in proptest::array::uniform2(proptest::collection::vec(1_u8.., 1..20))
    ) {
        prop_assume!(!paths.contains(&b"-".to_vec()));
        let [input, output] = paths.map(OsString::from_vec);
        let arguments = ["--".into(), input.clone(), output.clone()];
        let Ok(Command::Run(config)) = parse(&arguments) else {
            panic!("refused: {arguments:?}");
        };
        prop_assert_eq!(config.input.into_os_string(), input);
        prop_assert_eq!(config.output.into_os_string(), output);
    }
}

fn image(arguments: &[&str]) -> ImageConfig {
    match parsed(arguments) {
        Ok(Command::Image(config)) => *config,
        other => panic!("{arguments:?}: {other:?}"),
    }
}

#[test]
fn a_word_that_comes_first_is_a_command_and_a_file_of_that_name_is_written_with_its_folder() {
    let info = image(&["info", "a"]);
    assert_eq!((info.task, info.image), (ImageTask::Info, "a".into()));
    let check = image(&["check", "--format", "json", "check"]);
    assert_eq!(check.task, ImageTask::Check);
    assert_eq!(check.image, PathBuf::from("check"));
    assert_eq!(
        files(&config(&["./info", "check"])),
        [Some("./info"), Some("check"), None]
    );
    for arguments in [
        &["-q", "info", "b"][..],
        &["--", "info", "b"],
        &["--check", "check"],
    ] {
        let error = error(arguments);
        assert!(error.contains("is a command"), "{error}");
        assert!(
            error.contains("./info") || error.contains("./check"),
            "{error}"
        );
    }
}

#[test]
fn each_command_has_a_help_text_of_its_own() {
    for arguments in [&["info", "--help"][..], &["check", "a", "-h", "--nonsense"]] {
        match parsed(arguments) {
            Ok(Command::Print(text)) => {
                assert!(text.contains(&format!("vmm {} [OPTIONS] IMAGE", arguments[0])));
                assert!(text.contains("--image-format") && !text.contains("--fsync"));
            }
            other => panic!("{arguments:?}: {other:?}"),
        }
    }
}

#[test]
fn the_examples_of_each_command_are_valid() {
    for command in &commands::WORDS {
        for (example, _) in command.page.examples {
            let arguments: Vec<_> = example.split_whitespace().skip(1).collect();
            let read = parsed(&arguments);
            let right = matches!(read, Ok(Command::Image(_) | Command::Convert(_)));
            assert!(right, "{example}: {read:?}");
        }
    }
}
