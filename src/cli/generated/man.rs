//! The man page, in the macros of man(7).

use crate::cli::options::{Opt, Value};
use crate::cli::text::{COPY, Page as Command};
use crate::cli::{VERSION, commands, help, text};

/// What becomes of help and version when they cannot be written.
const PRINTING: &str = "\
Where stdout cannot be written, --help and --version end with status 3; where nobody reads it any \
more, with 0.";

pub(super) fn page() -> String {
    let mut page = Page(String::new());
    page.raw(".\\\" Made from src/cli by `make generated`.");
    page.raw(&format!(
        ".TH VMM 1 \"\" \"vmm {}\" \"User Commands\"",
        escaped(VERSION)
    ));
    page.section("NAME");
    page.raw(&format!("vmm \\- {}", escaped(COPY.summary)));
    page.section("SYNOPSIS");
    for (number, usage) in COPY.usage.iter().enumerate() {
        if number > 0 {
            page.raw(".br");
        }
        page.text(usage);
    }
    page.section("DESCRIPTION");
    page.text(COPY.description);
    page.section("OPTIONS");
    for (title, group) in (COPY.groups)() {
        page.raw(&format!(".SS \"{}\"", escaped(title)));
        group.iter().for_each(|option| page.option(option));
    }
    page.raw(".PP");
    page.text(text::SIZES);
    page.section("EXIT STATUS");
    page.statuses(&COPY);
    page.raw(".PP");
    page.text(PRINTING);
    page.section("EXAMPLES");
    page.examples(&COPY);
    for command in &commands::WORDS {
        page.section(&format!("VMM {}", command.word.to_uppercase()));
        page.command(&command.page);
    }
    page.section("DOCUMENTATION");
    page.text(text::DOCUMENTATION);
    page.0
}

fn heading(option: &Opt) -> String {
    let long = format!("\\fB\\-\\-{}\\fR", escaped(option.long));
    let short = option
        .short
        .map(|short| format!("\\fB\\-{short}\\fR, "))
        .unwrap_or_default();
    let argument = match (option.argument, option.value) {
        (None, _) => String::new(),
        (Some(_), Value::Words(words)) => format!(r" \fB{}\fR", words.join(r"\fR|\fB")),
        (Some(name), _) => format!(r" \fI{name}\fR"),
    };
    format!("{short}{long}{argument}")
}

struct Page(String);

impl Page {
    /// A line that is made of macros and escapes.
    fn raw(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn section(&mut self, title: &str) {
        self.raw(&format!(".SH \"{title}\""));
    }

    /// All that is said of a command that a word begins.
    fn command(&mut self, command: &Command) {
        self.text(&format!("{}.", capitalised(command.summary)));
        for usage in command.usage {
            self.raw(".PP");
            self.text(usage);
        }
        self.raw(".PP");
        self.text(command.description);
        self.raw(".SS \"Options\"");
        command
            .options()
            .iter()
            .for_each(|option| self.option(option));
        self.raw(".SS \"Exit status\"");
        self.statuses(command);
        self.raw(".SS \"Examples\"");
        self.examples(command);
    }

    fn option(&mut self, option: &Opt) {
        self.raw(".TP");
        self.raw(&heading(option));
        self.text(&help::explanation(option));
    }

    fn statuses(&mut self, command: &Command) {
        for (status, meaning) in command.statuses {
            self.raw(".TP");
            self.raw(&format!("\\fB{status}\\fR"));
            self.text(meaning);
        }
    }

    fn examples(&mut self, command: &Command) {
        for (example, what) in command.examples {
            self.raw(".TP");
            self.raw(&format!("\\fB{}\\fR", escaped(example)));
            self.text(what);
        }
    }

    /// A line that is nothing but text.
    fn text(&mut self, text: &str) {
        self.raw(&escaped(text));
    }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

/// Text as roff takes it: a backslash begins an escape, a plain hyphen may become another
/// character, and a dot or an apostrophe at the beginning of a line is a request.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}

#[test]
fn text_cannot_become_a_request_or_an_escape() {
    assert_eq!(escaped(".so a-b\\c"), "\\&.so a\\-b\\ec");
    assert_eq!(escaped("'b"), "\\&'b");
}
