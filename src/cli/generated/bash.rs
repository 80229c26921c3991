//! The completion for bash.

use super::alike;
use crate::cli::commands;
use crate::cli::options::{self, Opt, Value};

/// The names of options, as the patterns of a `case`.
fn patterns(options: &[Opt]) -> String {
    let names: Vec<_> = options
        .iter()
        .flat_map(|option| {
            let short = option.short.map(|short| format!("-{short}"));
            short.into_iter().chain([format!("--{}", option.long)])
        })
        .collect();
    names.join("|")
}

/// Offers what bash's compgen makes of these arguments.
fn reply(what: &str) -> String {
    format!("mapfile -t COMPREPLY < <(compgen {what} -- \"$cur\")\n      return")
}

/// What to do behind one of these options.
fn case(options: &[Opt], body: &str) -> String {
    format!("    {})\n      {body}\n      ;;\n", patterns(options))
}

/// The arms of a `case` for the options of one command that take a value.
fn cases(all: &[Opt]) -> String {
    let mut files = Vec::new();
    let mut others = Vec::new();
    let mut cases = String::new();
    for option in all.iter().filter(|option| option.argument.is_some()) {
        match option.value {
            Value::File => files.push(*option),
            Value::Other => others.push(*option),
            Value::Words(words) | Value::Names(words) => {
                let words = format!("-W '{}'", words.join(" "));
                cases.push_str(&case(&[*option], &reply(&words)));
            }
        }
    }
    let offer_files = ["compopt -o filenames".to_owned(), reply("-f")].join("\n      ");
    if !files.is_empty() {
        cases.push_str(&case(&files, &offer_files));
    }
    cases.push_str(&case(&others, "return"));
    cases
}

/// The function that completes the arguments of one command: its options, and where something else
/// begins what `others` makes bash's compgen offer.
fn function(name: &str, all: &[Opt], others: &str) -> String {
    let names: Vec<_> = all
        .iter()
        .map(|option| format!("--{}", option.long))
        .collect();
    let offer = format!(
        "mapfile -t COMPREPLY < <(compgen -W '{}' -- \"$cur\")",
        names.join(" ")
    );
    let body = format!(
        "\
  if [[ $cur == -* ]]; then
    {offer}
  else
    compopt -o filenames
    mapfile -t COMPREPLY < <(compgen {others} -- \"$cur\")
  fi
"
    );
    format!(
        "\
{name}() {{
  case $prev in
{cases}  esac
{body}}}
",
        cases = cases(all),
    )
}

pub(super) fn script() -> String {
    let words = commands::WORDS.map(|command| command.word).join(" ");
    let mut functions = function("_vmm_copy", &options::all(), "-f");
    let mut choice = String::new();
    for command in alike() {
        let name = format!("_vmm_{}", command.words[0]);
        functions.push('\n');
        functions.push_str(&function(&name, &command.options, "-f"));
        let patterns = command.words.join("|");
        choice.push_str(&format!("    {patterns}) {name} ;;\n"));
    }
    format!(
        "\
# bash completion for vmm. Made from src/cli by `make generated`.

{functions}
_vmm() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} command=
  # bash takes the = of --name=value for a word of its own.
  if [[ $cur == '=' ]]; then
    cur=
  elif [[ $prev == '=' && $COMP_CWORD -ge 2 ]]; then
    prev=${{COMP_WORDS[COMP_CWORD-2]}}
  fi
  COMPREPLY=()
  if [[ $COMP_CWORD -gt 1 ]]; then
    command=${{COMP_WORDS[1]}}
  fi
  case $command in
{choice}    *) _vmm_copy ;;
  esac
  # A file may have the name of a command.
  if [[ $COMP_CWORD -eq 1 && $cur != -* ]]; then
    mapfile -t COMPREPLY < <(compgen -f -W '{words}' -- \"$cur\" | sort -u)
  fi
}}
complete -F _vmm vmm
"
    )
}
