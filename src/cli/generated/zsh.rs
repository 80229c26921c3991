//! The completion for zsh.

use super::in_short;
use crate::cli::options::{self, Opt, Value};

pub(super) fn script() -> String {
    let specs: String = options::all().iter().map(spec).collect();
    format!(
        "\
#compdef vmm
# zsh completion for vmm. Made from src/cli by `make generated`.

_arguments -s -S : \\
{specs}  '1:SRC:_files' \\
  '2:DST:_files' \\
  '3:GUEST:_files'
"
    )
}

/// The line of one option: what excludes it, how it is written, what it does and takes.
fn spec(option: &Opt) -> String {
    let long = option.long;
    let Some(argument) = option.argument else {
        let rest = format!("[{}]", escaped(in_short(option)));
        return match option.short {
            Some(short) => {
                format!("  '(-{short} --{long})'{{-{short},--{long}}}'{rest}' \\\n")
            }
            None => format!("  '--{long}{rest}' \\\n"),
        };
    };
    let action = match option.value {
        Value::File => "_files".to_owned(),
        Value::Words(words) => format!("({})", words.join(" ")),
        Value::Other => String::from(" "),
    };
    let rest = format!("[{}]:{argument}:{action}", escaped(in_short(option)));
    match option.short {
        Some(short) => format!("  '(-{short} --{long})'{{-{short}+,--{long}=}}'{rest}' \\\n"),
        None => format!("  '--{long}={rest}' \\\n"),
    }
}

/// Text inside the brackets of a quoted specification.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('[', "\\[")
        .replace(']', "\\]")
        .replace(':', "\\:")
        .replace('\'', "'\\''")
}
