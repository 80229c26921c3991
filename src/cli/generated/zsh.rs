//! The completion for zsh.

use super::{alike, in_short};
use crate::cli::commands;
use crate::cli::options::{self, Opt, Value};

pub(super) fn script() -> String {
    let copying: String = options::all().iter().map(spec).collect();
    let words = commands::WORDS.map(|command| command.word);
    let mut choice = String::new();
    for command in alike() {
        let mut arguments: Vec<_> = command.options.iter().map(spec).collect();
        let files = command.files.iter().zip(1..);
        arguments.extend(files.map(|(name, place)| format!("  '{place}:{name}:_files' \\\n")));
        let arguments = arguments.concat();
        choice += &format!(
            "\
  ({patterns})
  shift words
  (( CURRENT-- ))
  _arguments -s -S : \\
{arguments}
  return
  ;;
",
            patterns = command.words.join("|"),
            arguments = arguments.trim_end_matches(" \\\n"),
        );
    }
    format!(
        "\
#compdef vmm
# zsh completion for vmm. Made from src/cli by `make generated`.

if (( CURRENT > 2 )); then
  case $words[2] in
{choice}  esac
fi
_arguments -s -S : \\
{copying}  '1:SRC: _alternative \"commands:command:({words})\" \"files:file:_files\"' \\
  '2:DST:_files' \\
  '3:GUEST:_files'
",
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
