//! The man page, in the macros of man(7).

use crate::cli::options::{self, Opt, Value};
use crate::cli::{VERSION, help, text};

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
    page.raw(&format!("vmm \\- {}", escaped(text::SUMMARY)));
    page.section("SYNOPSIS");
    for (number, usage) in text::USAGE.iter().enumerate() {
        if number > 0 {
            page.raw(".br");
        }
        page.text(usage);
    }
    page.section("DESCRIPTION");
    page.text(text::DESCRIPTION);
    page.section("OPTIONS");
    for (title, group) in options::groups() {
        page.raw(&format!(".SS \"{}\"", escaped(title)));
        for option in group {
            page.raw(".TP");
            page.raw(&heading(&option));
            page.text(&help::explanation(&option));
        }
    }
    page.raw(".PP");
    page.text(text::SIZES);
    page.section("EXIT STATUS");
    for (status, meaning) in text::STATUSES {
        page.raw(".TP");
        page.raw(&format!("\\fB{status}\\fR"));
        page.text(meaning);
    }
    page.raw(".PP");
    page.text(PRINTING);
    page.section("EXAMPLES");
    for (example, what) in text::EXAMPLES {
        page.raw(".TP");
        page.raw(&format!("\\fB{}\\fR", escaped(example)));
        page.text(what);
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

    /// A line that is nothing but text.
    fn text(&mut self, text: &str) {
        self.raw(&escaped(text));
    }
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
