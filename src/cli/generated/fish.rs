//! The completion for fish.

use super::{alike, in_short};
use crate::cli::commands;
use crate::cli::options::{self, Opt, Value};

pub(super) fn script() -> String {
    let words = commands::WORDS.map(|command| command.word).join(" ");
    let copying = format!("not __fish_seen_subcommand_from {words}");
    let mut lines = String::new();
    for command in &commands::WORDS {
        lines += &format!(
            "complete -c vmm -n __fish_is_first_arg -a {} -d '{}'\n",
            command.word, command.page.summary
        );
    }
    for option in options::all() {
        lines += &line(&option, &copying);
    }
    for command in alike() {
        let condition = format!("__fish_seen_subcommand_from {}", command.words.join(" "));
        for option in &command.options {
            lines += &line(option, &condition);
        }
    }
    format!("# fish completion for vmm. Made from src/cli by `make generated`.\n\n{lines}")
}

/// One option, where `condition` holds. `-r` is a value, `-F` offers files for it and `-x` does not.
fn line(option: &Opt, condition: &str) -> String {
    let short = option
        .short
        .map(|short| format!(" -s {short}"))
        .unwrap_or_default();
    let value = match (option.argument, option.value) {
        (None, _) => String::new(),
        (Some(_), Value::File) => " -r -F".to_owned(),
        (Some(_), Value::Words(words) | Value::Names(words)) => {
            format!(" -x -a '{}'", words.join(" "))
        }
        (Some(_), Value::Other) => " -x".to_owned(),
    };
    let what = in_short(option).replace('\\', "\\\\").replace('\'', "\\'");
    format!(
        "complete -c vmm -n '{condition}'{short} -l {}{value} -d '{what}'\n",
        option.long
    )
}
