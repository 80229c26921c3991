//! The completion for bash.

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

/// The function that completes the arguments of one command. `words` may stand in place of a file.
fn function(name: &str, all: &[Opt], words: &str) -> String {
    let names: Vec<_> = all
        .iter()
        .map(|option| format!("--{}", option.long))
        .collect();
    format!(
        "\
{name}() {{
  case $prev in
{cases}  esac
  if [[ $cur == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W '{names}' -- \"$cur\")
  else
    compopt -o filenames
    mapfile -t COMPREPLY < <(compgen {words}-- \"$cur\")
  fi
}}
",
        cases = cases(all),
        names = names.join(" ")
    )
}

pub(super) fn script() -> String {
    let words = commands::WORDS.map(|command| command.word);
    let copy = format!("-f -W '{}' ", words.join(" "));
    // Both words have the same options.
    let image = commands::WORDS[0].page.options();
    format!(
        "\
# bash completion for vmm. Made from src/cli by `make generated`.

{copying}
{looking}
_vmm() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}}
  # bash takes the = of --name=value for a word of its own.
  if [[ $cur == '=' ]]; then
    cur=
  elif [[ $prev == '=' && $COMP_CWORD -ge 2 ]]; then
    prev=${{COMP_WORDS[COMP_CWORD-2]}}
  fi
  COMPREPLY=()
  if [[ $COMP_CWORD -gt 1 && ${{COMP_WORDS[1]}} == @({patterns}) ]]; then
    _vmm_image
  else
    _vmm_copy
  fi
}}
complete -F _vmm vmm
",
        copying = function("_vmm_copy", &options::all(), &copy),
        looking = function("_vmm_image", &image, "-f "),
        patterns = words.join("|"),
    )
}
