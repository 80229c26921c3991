//! The completion for zsh.

use super::in_short;
use crate::cli::commands;
use crate::cli::options::{self, Opt, Value};

pub(super) fn script() -> String {
    let copying: String = options::all().iter().map(spec).collect();
    // Both words have the same options.
    let looking = commands::WORDS[0].page.options();
    let looking: String = looking.iter().map(spec).collect();
    let words = commands::WORDS.map(|command| command.word);
    format!(
        "\
#compdef vmm
# zsh completion for vmm. Made from src/cli by `make generated`.

if (( CURRENT > 2 )) && [[ $words[2] == ({patterns}) ]]; then
  shift words
  (( CURRENT-- ))
  _arguments -s -S : \\
{looking}  '1:IMAGE:_files'
else
  _arguments -s -S : \\
{copying}  '1:SRC:_alternative \"commands:command:({words})\" \"files:file:_files\"' \\
  '2:DST:_files' \\
  '3:GUEST:_files'
fi
",
        patterns = words.join("|"),
        words = words.join(" "),
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
        Value::Words(words) | Value::Names(words) => format!("({})", words.join(" ")),
        Value::Other => String::from(" "),
    };
    let rest = format!("[{}]:{argument}:{action}", escaped(in_short(option)));
    match option.short {
        _ if option.repeats => format!("  '*--{long}={rest}' \\\n"),
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
