//! What argh cannot do, done before it: arguments as people type them become arguments as argh
//! takes them.
//!
//! `--name=value` becomes two arguments, `-qp5` its long options, and what is not an option is set
//! apart. Bytes that are not UTF-8 are carried as [`escape`] does it.

use std::ffi::OsString;

use super::options::Opt;
use super::{commands, escape};

/// How similar two names must be for the one to be offered in place of the other (Jaro-Winkler
/// similarity, 0 to 1).
const SIMILAR: f64 = 0.8;

/// Arguments after preparation.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Prepared {
    /// The options, as argh takes them.
    pub(super) options: Vec<String>,
    /// Their names.
    pub(super) names: Vec<&'static str>,
    /// The arguments that are no options, in their order.
    pub(super) positionals: Vec<String>,
}

/// Prepares the arguments, without the program's name, of a command that has the options `known`. If
/// help or the version is asked for, nothing else matters: what came before is dropped, and what
/// follows is not looked at.
///
/// # Errors
///
/// An unknown option, one that lacks a value, has one too much or is given twice.
pub(super) fn prepare(arguments: &[OsString], known: Vec<Opt>) -> Result<Prepared, String> {
    let mut given = Given {
        known,
        options: Vec::new(),
        seen: Vec::new(),
    };
    let mut positionals = Vec::new();
    let mut rest = arguments.iter().map(|argument| escape::encode(argument));
    while let Some(argument) = rest.next() {
        if argument == "--" {
            positionals.extend(rest);
            break;
        } else if let Some(option) = argument.strip_prefix("--") {
            given.long(option, &mut rest)?;
        } else if let Some(letters) = argument.strip_prefix('-').filter(|rest| !rest.is_empty()) {
            given.letters(letters, &mut rest)?;
        } else {
            positionals.push(argument);
        }
        if let Some(option @ ("help" | "version")) = given.seen.last().copied() {
            return Ok(Prepared {
                options: vec![format!("--{option}")],
                names: vec![option],
                positionals: Vec::new(),
            });
        }
    }
    Ok(Prepared {
        options: given.options,
        names: given.seen,
        positionals,
    })
}

/// The options given so far.
struct Given {
    known: Vec<Opt>,
    /// The options and their values, as argh takes them.
    options: Vec<String>,
    /// Their names.
    seen: Vec<&'static str>,
}

impl Given {
    /// Takes an option by its name, with its value behind `=` or in the next argument.
    fn long(&mut self, text: &str, rest: &mut impl Iterator<Item = String>) -> Result<(), String> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        let option = self
            .known
            .iter()
            .find(|option| option.long == name)
            .copied()
            .ok_or_else(|| unknown(name, &self.known))?;
        if option.argument.is_none() && value.is_some() {
            return Err(match name {
                // A folder that follows it is no value of it.
                "check" => {
                    "--check takes no value behind =: give --check FOLDER, with a space".to_owned()
                }
                _ => format!("--{name} takes no value: leave out the = and the rest"),
            });
        }
        self.take(option, value, rest)
    }

    /// Takes options by their letters. The rest behind one that needs a value is that value.
    fn letters(
        &mut self,
        letters: &str,
        rest: &mut impl Iterator<Item = String>,
    ) -> Result<(), String> {
        let mut remaining = letters.chars();
        while let Some(letter) = remaining.next() {
            let option = self
                .known
                .iter()
                .find(|option| option.short == Some(letter))
                .copied()
                .ok_or_else(|| no_letter(letter, letters, &self.known))?;
            if option.argument.is_none() {
                self.take(option, None, rest)?;
                continue;
            }
            let value = remaining.as_str();
            let value = value.strip_prefix('=').unwrap_or(value);
            let value = (!value.is_empty()).then(|| value.to_owned());
            return self.take(option, value, rest);
        }
        Ok(())
    }

    fn take(
        &mut self,
        option: Opt,
        value: Option<String>,
        rest: &mut impl Iterator<Item = String>,
    ) -> Result<(), String> {
        let long = format!("--{}", option.long);
        if let Some(argument) = option.argument {
            if self.seen.contains(&option.long) && !option.repeats {
                return Err(format!("{long} is given twice: give it once"));
            }
            let value = value
                .or_else(|| rest.next())
                .ok_or_else(|| format!("{long} lacks its value: give {long} {argument}"))?;
            self.options.extend([long, value]);
        } else {
            self.options.push(long);
        }
        self.seen.push(option.long);
        Ok(())
    }
}

/// The one of `known` that is most like `word`, if its similarity, from 0 to 1, is `least` or more.
pub(super) fn most_similar(
    word: &str,
    known: impl Iterator<Item = &'static str>,
    least: f64,
) -> Option<&'static str> {
    let similarity = |known: &str| strsim::jaro_winkler(word, known);
    known
        .filter(|known| similarity(known) >= least)
        .max_by(|a, b| similarity(a).total_cmp(&similarity(b)))
}

/// Says that the letter `letter` of `letters` is no option, and which one they are the name of.
fn no_letter(letter: char, letters: &str, known: &[Opt]) -> String {
    let name = letters.split_once('=').map_or(letters, |(name, _)| name);
    match known.iter().any(|option| option.long == name) {
        true => format!("-{name} is not an option: did you mean --{name}?"),
        false => format!("-{letter} is not an option"),
    }
}

/// Says that there is no such option, and which command has it, or which ones may have been meant.
fn unknown(name: &str, known: &[Opt]) -> String {
    let commands = commands::that_have(name);
    if let Some(first) = commands.first() {
        let named = |command| match command {
            "vmm" => "a copy",
            other => other,
        };
        let of: Vec<&str> = commands.iter().map(|command| named(command)).collect();
        return format!(
            "--{name} is an option of {}; see {first} --help",
            of.join(" and ")
        );
    }
    let mut meant: Vec<&str> = known
        .iter()
        .map(|option| option.long)
        .filter(|long| name.len() > 2 && long.contains(name))
        .collect();
    if meant.is_empty() {
        let names = known.iter().map(|option| option.long);
        meant.extend(most_similar(name, names, SIMILAR));
    }
    match meant.as_slice() {
        [] => format!("--{name} is not an option"),
        names => format!(
            "--{name} is not an option: did you mean --{}?",
            names.join(" or --")
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::options;
    use super::*;

    fn prepared(arguments: &[&str]) -> [Vec<String>; 2] {
        let arguments: Vec<_> = arguments.iter().map(OsString::from).collect();
        let prepared = prepare(&arguments, options::all()).unwrap();
        [prepared.options, prepared.positionals]
    }

    fn error(arguments: &[&str]) -> String {
        let arguments: Vec<_> = arguments.iter().map(OsString::from).collect();
        prepare(&arguments, options::all()).unwrap_err()
    }

    #[test]
    fn each_way_to_write_an_option_is_the_same_option() {
        for arguments in [
            &["-q", "-p", "5", "a"][..],
            &["-qp5", "a"],
            &["-qp=5", "a"],
            &["a", "-qp", "5"],
            &["--quiet", "--progress-percent=5", "a"],
            &["--quiet", "--progress-percent", "5", "--", "a"],
        ] {
            let expected = [vec!["--quiet", "--progress-percent", "5"], vec!["a"]];
            assert_eq!(prepared(arguments), expected, "{arguments:?}");
        }
    }

    #[test]
    fn nothing_is_an_option_behind_two_hyphens() {
        let expected = [vec![], vec!["--help", "-q"]];
        assert_eq!(prepared(&["--", "--help", "-q"]), expected);
    }

    #[test]
    fn a_value_may_look_like_anything() {
        for value in ["--quiet", "-", "--", "help", "a=b", ""] {
            let expected = [vec!["--input", value], vec![]];
            assert_eq!(prepared(&["--input", value]), expected);
            assert_eq!(prepared(&[&format!("--input={value}")]), expected);
        }
    }

    #[test]
    fn a_lone_hyphen_is_no_option() {
        assert_eq!(prepared(&["-"]), [vec![], vec!["-"]]);
    }

    #[test]
    fn a_misspelt_option_is_answered_with_the_one_that_was_meant() {
        for (given, meant) in [
            ("--inptu", "--input?"),
            ("--verison", "--version?"),
            ("--hlep", "--help?"),
            ("--queue-dept", "--queue-depth?"),
            ("--progress", "--progress-percent?"),
            ("--stat", "--stats or --stats-file?"),
            (
                "--sector-size=4k",
                "--input-sector-size or --output-sector-size?",
            ),
        ] {
            let error = error(&[given]);
            assert!(error.ends_with(meant), "{error}");
        }
        for (given, meant) in [
            ("-input", "--input?"),
            ("-version", "--version?"),
            ("-guest=a", "--guest?"),
        ] {
            let error = error(&[given]);
            assert!(error.ends_with(meant), "{error}");
        }
        for given in ["--nonsense", "--x", "-x", "--=a", "---"] {
            let error = error(&[given]);
            assert!(error.ends_with("is not an option"), "{error}");
        }
    }

    #[test]
    fn an_option_of_another_command_is_told_to_be_one() {
        for (name, told) in [
            ("output-format", "of vmm convert; see vmm convert --help"),
            (
                "image-format",
                "of vmm info and vmm check and vmm convert; see vmm info --help",
            ),
        ] {
            let error = error(&[&format!("--{name}"), "a"]);
            assert_eq!(error, format!("--{name} is an option {told}"));
        }
        let known = commands::named("convert").unwrap().page.groups;
        let known = known().into_iter().flat_map(|(_, group)| group).collect();
        let error = prepare(&["--guest=a".into()], known).unwrap_err();
        assert_eq!(error, "--guest is an option of a copy; see vmm --help");
    }

    #[test]
    fn contradictions_are_errors() {
        assert!(error(&["--input", "a", "--input=a"]).contains("--input is given twice"));
        assert!(error(&["--quiet=yes"]).contains("takes no value: leave"));
        assert!(error(&["--check=/tmp"]).contains("give --check FOLDER"));
        assert!(error(&["--input"]).contains("give --input SRC"));
        assert!(error(&["-qp"]).contains("give --progress-percent P"));
    }
}
