//! The text of `--help`, for a terminal of 80 columns.

use std::fmt::Write;

use super::options::{self, Opt, Value};
use super::text;

const WIDTH: usize = 80;
/// Where the explanation of an option begins.
const COLUMN: usize = 30;
/// Where the explanation of an exit status begins.
const STATUS_COLUMN: usize = 8;

/// The whole text.
pub(super) fn help() -> String {
    let mut help = format!("vmm {}: {}\n\n", super::VERSION, text::SUMMARY);
    for (number, usage) in text::USAGE.iter().enumerate() {
        let label = if number == 0 { "Usage:" } else { "" };
        line(&mut help, &format!("{label:<6} {usage}"));
    }
    paragraph(&mut help, text::DESCRIPTION);
    for (title, group) in options::groups() {
        line(&mut help, &format!("\n{title}:"));
        for option in group {
            entry(&mut help, &heading(&option), COLUMN, &explanation(&option));
        }
    }
    paragraph(&mut help, text::SIZES);
    line(&mut help, "\nExamples:");
    for (example, what) in text::EXAMPLES {
        line(&mut help, &format!("  {example}"));
        entry(&mut help, "", 6, what);
    }
    line(&mut help, "\nExit status:");
    for (status, meaning) in text::STATUSES {
        entry(&mut help, &format!("  {status}"), STATUS_COLUMN, meaning);
    }
    paragraph(
        &mut help,
        &format!("Documentation: {}", text::DOCUMENTATION),
    );
    help
}

/// An option's names, in columns: the letters below each other.
fn heading(option: &Opt) -> String {
    let heading = match option.short {
        Some(short) => format!("  -{short}, --{}", option.long),
        None => format!("      --{}", option.long),
    };
    match (option.argument, option.value) {
        (None, _) => heading,
        (Some(_), Value::Words(words)) => format!("{heading} {}", words.join("|")),
        (Some(name), _) => format!("{heading} {name}"),
    }
}

/// What an option does, with its default.
pub(super) fn explanation(option: &Opt) -> String {
    match option.default {
        Some(default) => format!("{} (default: {default})", option.help),
        None => option.help.to_owned(),
    }
}

fn line(help: &mut String, text: &str) {
    // A String takes all that is written to it.
    let _ = writeln!(help, "{text}");
}

fn paragraph(help: &mut String, text: &str) {
    help.push('\n');
    for wrapped in wrap(text, WIDTH) {
        line(help, &wrapped);
    }
}

/// A heading with its explanation, which begins at a column: in the next line if the heading
/// reaches that far.
fn entry(help: &mut String, heading: &str, column: usize, explanation: &str) {
    let mut first = heading;
    if heading.len() + 2 > column && !heading.is_empty() {
        line(help, heading);
        first = "";
    }
    for wrapped in wrap(explanation, WIDTH - column) {
        line(help, &format!("{first:<column$}{wrapped}"));
        first = "";
    }
}

/// The text in lines of at most `width` characters, where its words allow it.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(last) if last.len() + 1 + word.len() <= width => {
                last.push(' ');
                last.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_text_fits_a_terminal_and_names_everything() {
        let help = help();
        for line in help.lines() {
            assert!(line.len() <= WIDTH && line.trim_end() == line, "{line:?}");
        }
        for option in options::all() {
            assert!(help.contains(&format!("--{}", option.long)), "{help}");
        }
        for (status, _) in text::STATUSES {
            assert!(help.contains(&format!("\n  {status} ")), "{help}");
        }
        assert!(help.contains("vmm [OPTIONS] SRC DST\n"));
        assert!(help.contains("share/doc/vmm"));
    }

    #[test]
    fn text_is_wrapped_between_words() {
        assert_eq!(wrap("aa bb  cc", 5), ["aa bb", "cc"]);
        assert_eq!(wrap("aaaaaaaa b", 5), ["aaaaaaaa", "b"]);
        assert!(wrap("", 5).is_empty());
    }
}
