//! The man page and the shells' completions, made from the options and kept in `resources/`.
//!
//! The program needs none of this, so it exists in tests alone. One test compares the files with
//! what would be made today, and with `BLESS=1` in the environment writes them anew.
#![allow(clippy::unwrap_used)]

mod bash;
mod fish;
mod man;
mod zsh;

use std::fs;
use std::path::Path;

use super::commands::{self, Task};
use super::options::Opt;

/// The files, by their paths below `resources/`.
fn files() -> [(&'static str, String); 4] {
    [
        ("man/vmm.1", man::page()),
        ("completions/vmm.bash", bash::script()),
        ("completions/_vmm", zsh::script()),
        ("completions/vmm.fish", fish::script()),
    ]
}

/// What an option does, in the few words for which a completion has room.
fn in_short(option: &Opt) -> &'static str {
    let help = option.help;
    let end = [": ", "; ", " (", ", "]
        .iter()
        .filter_map(|mark| help.find(mark))
        .min();
    &help[..end.unwrap_or(help.len())]
}

/// Commands with the same options.
struct Alike {
    words: Vec<&'static str>,
    options: Vec<Opt>,
    /// The files that they take beside their options, by the names that the help text has for them.
    files: &'static [&'static str],
}

/// All commands, those with the same options together.
fn alike() -> Vec<Alike> {
    let names = |options: &[Opt]| options.iter().map(|option| option.long).collect::<Vec<_>>();
    let mut all: Vec<Alike> = Vec::new();
    for command in &commands::WORDS {
        let options = command.page.options();
        let same = all
            .iter_mut()
            .find(|other| names(&other.options) == names(&options));
        match same {
            Some(same) => same.words.push(command.word),
            None => all.push(Alike {
                words: vec![command.word],
                options,
                files: match command.task {
                    Task::Look(_) => &["IMAGE"],
                    Task::Convert => &["IMAGE", "DISK"],
                },
            }),
        }
    }
    all
}

#[test]
fn man_page_and_completions_are_those_of_the_options() {
    let resources = Path::new(env!("CARGO_MANIFEST_DIR")).join("resources");
    for (name, text) in files() {
        let path = resources.join(name);
        if std::env::var_os("BLESS").is_some_and(|value| value == "1") {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == text,
            "resources/{name} is not what the options make of it: run `make generated`"
        );
    }
}

#[test]
fn every_option_is_in_every_file() {
    for (name, text) in files() {
        let text = text.replace("\\-", "-");
        let commands = commands::WORDS.iter().flat_map(|word| word.page.options());
        for option in super::options::all().into_iter().chain(commands) {
            let flag = match name {
                "completions/vmm.fish" => format!("-l {}", option.long),
                _ => format!("--{}", option.long),
            };
            assert!(text.contains(&flag), "{flag} in {name}");
        }
    }
}

/// What bash offers where the last of these words is being typed; nothing if there is no bash.
fn offered(words: &[&str]) -> Option<Vec<String>> {
    let script = "source resources/completions/vmm.bash || exit
        COMP_WORDS=(\"$@\") COMP_CWORD=$(($# - 1))
        compopt() { :; }
        _vmm
        printf '%s\\n' \"${COMPREPLY[@]}\"";
    let bash = std::process::Command::new("bash")
        .args(["--norc", "-c", script, "bash"])
        .args(words)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .ok()?;
    assert!(bash.status.success(), "{bash:?}");
    let text = String::from_utf8(bash.stdout).unwrap();
    Some(text.lines().map(str::to_owned).collect())
}

#[test]
fn bash_offers_the_options_of_the_command_and_no_others() {
    if offered(&["vmm", ""]).is_none() {
        return;
    }
    for command in &commands::WORDS {
        let offered = offered(&["vmm", command.word, "--"]).unwrap();
        let names = command.page.options().into_iter();
        let names: Vec<_> = names.map(|option| format!("--{}", option.long)).collect();
        assert_eq!(offered, names, "{}", command.word);
    }
    let copy = offered(&["vmm", "--"]).unwrap();
    assert!(copy.contains(&"--verify".to_owned()) && !copy.contains(&"--backing".to_owned()));
    let formats = offered(&["vmm", "convert", "--output-format", ""]).unwrap();
    assert!(formats.contains(&"raw".to_owned()), "{formats:?}");
    let value = offered(&["vmm", "convert", "--digest", "=", ""]).unwrap();
    assert_eq!(value, ["sha256"]);
    for word in ["info", "convert"] {
        let files = offered(&["vmm", word, "Car"]).unwrap();
        assert!(files.contains(&"Cargo.toml".to_owned()), "{word}");
    }
}
