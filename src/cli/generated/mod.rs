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
        let image = super::commands::WORDS[0].page.options();
        for option in super::options::all().into_iter().chain(image) {
            let flag = match name {
                "completions/vmm.fish" => format!("-l {}", option.long),
                _ => format!("--{}", option.long),
            };
            assert!(text.contains(&flag), "{flag} in {name}");
        }
    }
}
