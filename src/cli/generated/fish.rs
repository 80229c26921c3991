//! The completion for fish.

use super::in_short;
use crate::cli::options::{self, Opt, Value};

pub(super) fn script() -> String {
    let lines: String = options::all().iter().map(line).collect();
    format!("# fish completion for vmm. Made from src/cli by `make generated`.\n\n{lines}")
}

/// One option. `-r` is a value, `-F` offers files for it and `-x` does not.
fn line(option: &Opt) -> String {
    let short = option
        .short
        .map(|short| format!(" -s {short}"))
        .unwrap_or_default();
    let value = match (option.argument, option.value) {
        (None, _) => String::new(),
        (Some(_), Value::File) => " -r -F".to_owned(),
        (Some(_), Value::Words(words)) => format!(" -x -a '{}'", words.join(" ")),
        (Some(_), Value::Other) => " -x".to_owned(),
    };
    let what = in_short(option).replace('\\', "\\\\").replace('\'', "\\'");
    format!(
        "complete -c vmm{short} -l {}{value} -d '{what}'\n",
        option.long
    )
}
