//! The completion for bash.

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

pub(super) fn script() -> String {
    let all = options::all();
    let mut files = Vec::new();
    let mut others = Vec::new();
    let mut cases = String::new();
    for option in all.iter().filter(|option| option.argument.is_some()) {
        match option.value {
            Value::File => files.push(*option),
            Value::Other => others.push(*option),
            Value::Words(words) => {
                let words = format!("-W '{}'", words.join(" "));
                cases.push_str(&case(&[*option], &reply(&words)));
            }
        }
    }
    let offer_files = ["compopt -o filenames".to_owned(), reply("-f")].join("\n      ");
    cases.push_str(&case(&files, &offer_files));
    cases.push_str(&case(&others, "return"));
    let names: Vec<_> = all
        .iter()
        .map(|option| format!("--{}", option.long))
        .collect();
    format!(
        "\
# bash completion for vmm. Made from src/cli by `make generated`.

_vmm() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}}
  # bash takes the = of --name=value for a word of its own.
  if [[ $cur == '=' ]]; then
    cur=
  elif [[ $prev == '=' && $COMP_CWORD -ge 2 ]]; then
    prev=${{COMP_WORDS[COMP_CWORD-2]}}
  fi
  COMPREPLY=()
  case $prev in
{cases}  esac
  if [[ $cur == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W '{names}' -- \"$cur\")
  else
    compopt -o filenames
    mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")
  fi
}}
complete -F _vmm vmm
",
        names = names.join(" ")
    )
}
