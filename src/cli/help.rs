//! The text of `--help`, for a terminal of 80 columns.

use std::fmt::Write;

use super::options::{Opt, Value};
use super::text::{self, Page};

const WIDTH: usize = 80;
/// Where the explanation of an option begins.
const COLUMN: usize = 30;
/// Where the explanation of an exit status begins.
const STATUS_COLUMN: usize = 8;

/// The whole text for a command.
pub(super) fn help(page: &Page) -> String {
    let mut help = format!("vmm {}: {}\n\n", super::VERSION, page.summary);
    for (number, usage) in page.usage.iter().enumerate() {
        let label = if number == 0 { "Usage:" } else { "" };
        line(&mut help, &format!("{label:<6} {usage}"));
    }
    paragraph(&mut help, page.description);
    let groups = (page.groups)();
    for (title, group) in &groups {
        line(&mut help, &format!("\n{title}:"));
        for option in group {
            entry(&mut help, &heading(option), COLUMN, &explanation(option));
        }
    }
    let mut options = groups.iter().flat_map(|(_, group)| group);
    if options.any(|option| option.argument == Some("SIZE")) {
        paragraph(&mut help, text::SIZES);
    }
    line(&mut help, "\nExamples:");
    for (example, what) in page.examples {
        line(&mut help, &format!("  {example}"));
        entry(&mut help, "", 6, what);
    }
    line(&mut help, "\nExit status:");
    for (status, meaning) in page.statuses {
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
    let mut text = option.help.to_owned();
    if let Value::Names(names) = option.value {
        text += ": ";
        text += &names.join(", ");
    }
    if let Some(default) = option.default {
        text += &format!(" (default: {default})");
    }
    text
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
    use super::super::commands;
    use super::*;

    #[test]
    fn each_help_text_fits_a_terminal_and_names_everything() {
        let words = commands::WORDS.map(|command| command.page);
        for page in [text::COPY].into_iter().chain(words) {
            let help = help(&page);
            for line in help.lines() {
                assert!(line.len() <= WIDTH && line.trim_end() == line, "{line:?}");
            }
            for option in page.options() {
                assert!(help.contains(&format!("--{}", option.long)), "{help}");
            }
            for (status, _) in page.statuses {
                assert!(help.contains(&format!("\n  {status} ")), "{help}");
            }
            for usage in page.usage {
                assert!(help.contains(&format!(" {usage}\n")), "{help}");
            }
            assert!(help.contains("share/doc/vmm"));
        }
    }

    #[test]
    fn text_is_wrapped_between_words() {
        assert_eq!(wrap("aa bb  cc", 5), ["aa bb", "cc"]);
        assert_eq!(wrap("aaaaaaaa b", 5), ["aaaaaaaa", "b"]);
        assert!(wrap("", 5).is_empty());
    }
}
