//! The program as it is called: help, version and wrong command lines, what a shell completes,
//! and what `make install` installs.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::process::binary;
use common::{Files, Vmm, needs_kvm, skip, test};

fn main() -> std::process::ExitCode {
    common::harness::main()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The output of a tool, or `None` where it does not exist, which is said.
fn tool(command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(error) => {
            let name = command.get_program().display().to_string();
            skip(&format!("cannot run {name}: {error}"));
            None
        }
    }
}

/// A variable for make's command line.
fn variable(name: &str, value: &Path) -> OsString {
    [name.as_ref(), value.as_os_str()].join(OsStr::new("="))
}

#[test]
fn help_teaches_how_to_use_it() {
    let help = Vmm::bare().arg("--help").succeed();
    assert_eq!(help.stderr, "");
    assert_eq!(Vmm::bare().arg("-h").succeed().stdout, help.stdout);
    for part in [
        "vmm [OPTIONS] SRC DST",
        "both are required",
        "Examples:",
        "100 none",
        "Documentation:",
    ] {
        assert!(help.stdout.contains(part), "{part:?} in {help:?}");
    }
    for status in [0, 2, 3, 4, 124, 129, 130, 142, 143, 159] {
        assert!(help.stdout.contains(&format!("\n  {status} ")), "{help:?}");
    }
}

#[test]
fn version_is_one_line() {
    for option in ["--version", "-V"] {
        let version = Vmm::bare().arg(option).succeed();
        assert_eq!(
            version.stdout,
            concat!("vmm ", env!("CARGO_PKG_VERSION"), "\n")
        );
    }
}

#[test]
fn help_that_cannot_be_written_is_a_failure() {
    for option in ["--help", "--version"] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let finished = Vmm::bare().arg(option).stdout(full).run();
        finished.assert_failed(3, "cannot write to standard output: No space left");
        assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
    }
}

#[test]
fn help_that_nobody_reads_is_none() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let finished = Vmm::bare().arg("--help").stdout(writer).succeed();
    assert_eq!(finished.stderr, "");
}

#[test]
fn a_wrong_command_line_is_one_line_with_a_way_on() {
    let cases: [(&[&str], &[&str]); 7] = [
        (&[], &["SRC and DST are missing"]),
        (&["a"], &["DST is missing"]),
        (&["--inptu", "a"], &["did you mean --input?"]),
        (&["-x", "a", "b"], &["-x is not an option"]),
        (&["-", "b"], &["'-'", "any offset"]),
        (&["a", "b", "--queue-depth=x"], &["'x'", "--queue-depth"]),
        (&["a", "b", "\x1b[2J\n", "\x1b]0;\x07"], &["\\u{1b}]0;"]),
    ];
    for (arguments, parts) in cases {
        let finished = Vmm::bare().args(arguments).run();
        finished.assert_failed(2, "");
        assert_eq!(finished.stdout, "");
        assert!(
            finished.stderr.starts_with("vmm: ") && finished.stderr.ends_with("vmm --help\n"),
            "{finished:?}"
        );
        assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
        assert!(!finished.stderr.contains('\x1b'), "{finished:?}");
        for part in parts {
            assert!(finished.stderr.contains(part), "{part:?} in {finished:?}");
        }
    }
}

#[test]
fn a_program_that_asks_for_json_gets_a_result_for_a_wrong_command_line() {
    for arguments in [
        &["--format", "json", "--bogus"][..],
        &["convert", "--format=json"],
        &["info", "--format", "json", "a", "b"],
    ] {
        let finished = Vmm::bare().args(arguments).run();
        finished.assert_failed(2, "");
        let object: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
        assert_eq!(object["type"], "result");
        assert_eq!(object["outcome"], "usage");
        assert_eq!(object["status"], 2);
        assert!(finished.stderr.contains(object["error"].as_str().unwrap()));
    }
}

#[test]
fn a_command_that_is_nearly_one_is_no_file() {
    let mut files = Files::new(b"x");
    for (word, meant) in [
        ("inf", "info"),
        ("Info", "info"),
        ("chekc", "check"),
        ("conver", "convert"),
    ] {
        let vmm = Vmm::bare().current_dir(files.folder()).arg(word);
        let finished = vmm.arg(files.input()).arg(files.output()).run();
        finished.assert_failed(2, &format!("did you mean vmm {meant}?"));
    }
    assert!(!files.output().exists());
    // A file of that name is one.
    files.add("conver", b"");
    let finished = Vmm::bare().current_dir(files.folder()).arg("conver").run();
    finished.assert_failed(2, "DST is missing");
}

#[test]
fn a_file_size_limit_is_an_error_from_the_first_byte_on() {
    let files = Files::new(b"");
    let file = || File::create(files.path("text")).unwrap();
    for option in ["--help", "--version"] {
        let finished = Vmm::bare()
            .arg(option)
            .with_file_size_limit(0)
            .stdout(file())
            .run();
        finished.assert_failed(3, "cannot write to standard output: File too large");
    }
    let finished = Vmm::bare()
        .arg("--bogus")
        .with_file_size_limit(0)
        .stderr(file())
        .run();
    assert_eq!(finished.code(), Some(2), "{finished:?}");
    std::fs::remove_file(files.path("text")).unwrap();
}

#[test]
fn two_paths_are_source_and_destination() {
    needs_kvm!();
    let files = Files::random(5000);
    let vmm = Vmm::bare().arg("-qp10").arg(files.input());
    vmm.arg(files.output()).succeed();
    files.assert_copied();
}

#[test]
fn a_third_path_is_the_guest_as_the_option_is() {
    needs_kvm!();
    let mut files = Files::random(5000);
    let guest = files.add("guest.elf", common::GUEST);
    let copy = || Vmm::bare().arg(files.input()).arg(files.output());
    copy().arg(&guest).succeed();
    files.assert_copied();
    copy().arg("--guest").arg(&guest).succeed();
    let missing = files.path("no guest");
    for vmm in [copy().arg(&missing), copy().arg("--guest").arg(&missing)] {
        vmm.run().assert_failed(3, "no guest");
    }
}

#[test]
fn paths_that_are_not_utf_8_are_copied() {
    needs_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &[u8]| folder.path().join(OsStr::from_bytes(name));
    let input = path(b"in \xff\xc3");
    let data = common::random(3000, 1);
    if let Err(error) = fs::write(&input, &data) {
        skip(&format!("the file system takes no such name: {error}"));
        return;
    }
    let outputs = [path(b"out \x80"), path(b"out\n\xfe")];
    Vmm::copying(&input, &outputs[0]).succeed();
    let mut joined = OsStr::new("--output=").to_owned();
    joined.push(&outputs[1]);
    Vmm::bare().arg("--input").arg(&input).arg(joined).succeed();
    for output in outputs {
        assert_eq!(fs::read(output).unwrap(), data);
    }
}

/// What bash offers for a command line, whose words are these.
fn completed(words: &[&str]) -> Option<BTreeSet<String>> {
    let script = root().join("resources/completions/vmm.bash");
    // `compopt` works only while bash itself completes.
    let ask = r#"compopt() { :; }
        source "$1"; shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _vmm
        printf '%s\n' "${COMPREPLY[@]}""#;
    let mut bash = Command::new("bash");
    bash.args(["-c", ask, "bash"]).arg(script).args(words);
    let output = tool(bash.current_dir(root()))?;
    assert!(output.stderr.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    Some(text.split_whitespace().map(str::to_owned).collect())
}

#[test]
fn bash_completes_options_words_and_files() {
    let cases: [(&[&str], &[&str]); 7] = [
        (&["vmm", "--inp"], &["--input", "--input-sector-size"]),
        (&["vmm", "--protocol", ""], &["protobuf", "text"]),
        (&["vmm", "--transport", "=", "c"], &["console"]),
        (&["vmm", "--format", "="], &["json", "text"]),
        (&["vmm", "--input", "Cargo.l"], &["Cargo.lock"]),
        (&["vmm", "-q", "Makef"], &["Makefile"]),
        (&["vmm", "-p", "Makef"], &[]),
    ];
    for (words, expected) in cases {
        let Some(found) = completed(words) else {
            return;
        };
        let expected: BTreeSet<_> = expected.iter().map(|word| (*word).to_owned()).collect();
        assert_eq!(found, expected, "{words:?}");
    }
}

#[test]
fn fish_completes_options_and_words() {
    let script = root().join("resources/completions/vmm.fish");
    for (line, expected) in [
        ("vmm --transport ", &["auto", "console", "serial"][..]),
        ("vmm --input-s", &["--input-sector-size"]),
        ("vmm --format=j", &["--format=json"]),
    ] {
        let mut fish = Command::new("fish");
        fish.args(["-c", "source $argv[1]; complete -C $argv[2]"])
            .arg(&script)
            .arg(line);
        let Some(output) = tool(&mut fish) else {
            return;
        };
        let text = String::from_utf8(output.stdout).unwrap();
        let mut found: Vec<_> = text
            .lines()
            .filter_map(|line| line.split('\t').next())
            .collect();
        found.sort_unstable();
        assert_eq!(found, expected, "{line}");
    }
}

#[test]
fn zsh_and_fish_can_read_their_completions() {
    for (shell, options, file) in [
        ("zsh", &["-n"], "_vmm"),
        ("fish", &["--no-execute"], "vmm.fish"),
    ] {
        let path = root().join("resources/completions").join(file);
        if let Some(output) = tool(Command::new(shell).args(options).arg(path)) {
            assert!(
                output.status.success() && output.stderr.is_empty(),
                "{output:?}"
            );
        }
    }
}

#[test]
fn the_man_page_is_formatted_without_a_warning() {
    let page = root().join("resources/man/vmm.1");
    let mut groff = Command::new("groff");
    let Some(output) = tool(groff.args(["-man", "-ww", "-Tutf8"]).arg(page)) else {
        return;
    };
    assert!(output.stderr.is_empty(), "{output:?}");
    assert!(output.stdout.len() > 3000, "{output:?}");
}

/// All files below a folder, by their paths in it.
fn tree(folder: &Path) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.strip_prefix(folder).unwrap().to_owned());
            }
        }
    }
    files
}

/// make(1) in the project's folder. What a surrounding one was told, or the user's environment says, is not
/// meant for it.
fn make() -> Command {
    let mut make = Command::new("make");
    make.current_dir(root());
    for name in [
        "MAKEFLAGS",
        "GNUMAKEFLAGS",
        "MAKEFILES",
        "MAKELEVEL",
        "PREFIX",
        "BINDIR",
        "DATADIR",
        "MANDIR",
        "DOCDIR",
        "INSTALL",
        "INPUT_SECTOR_SIZE",
        "OUTPUT_SECTOR_SIZE",
        "PROGRESS",
        "ARGS",
    ] {
        make.env_remove(name);
    }
    make
}

#[test]
fn make_installs_program_man_page_completions_and_documentation() {
    let folder = tempfile::tempdir().unwrap();
    let destination = folder.path().join("a folder's name");
    let make = |target: &str| {
        let places = [
            variable("DESTDIR", &destination),
            variable("VMM", &binary()),
        ];
        tool(make().args([target, "PREFIX=/usr"]).args(places))
    };
    let Some(output) = make("install") else {
        return;
    };
    assert!(output.status.success(), "{output:?}");
    let installed = tree(&destination);
    for file in [
        "usr/bin/vmm",
        "usr/share/man/man1/vmm.1",
        "usr/share/bash-completion/completions/vmm",
        "usr/share/zsh/site-functions/_vmm",
        "usr/share/fish/vendor_completions.d/vmm.fish",
        "usr/share/doc/vmm/README.md",
        "usr/share/doc/vmm/LICENSE-APACHE",
        "usr/share/doc/vmm/docs/architecture.md",
    ] {
        assert!(installed.contains(Path::new(file)), "{file}: {installed:?}");
    }
    let documentation = destination.join("usr/share/doc/vmm");
    let readme = fs::read_to_string(documentation.join("README.md")).unwrap();
    let readme = readme.replace('\n', " ");
    let links = readme.split("](").skip(1);
    let links = links.map(|rest| rest.split([')', '#']).next().unwrap());
    let links: Vec<_> = links.filter(|link| !link.contains("://")).collect();
    assert!(links.len() > 20, "{links:?}");
    for link in links {
        assert!(
            documentation.join(link).is_file(),
            "the README links to {link}"
        );
    }
    let program = destination.join("usr/bin/vmm");
    let mode = fs::metadata(&program).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    Vmm::of(&program).arg("--version").succeed();

    let foreign = PathBuf::from("usr/share/doc/vmm/docs/of another package");
    fs::write(destination.join(&foreign), "").unwrap();
    let output = make("uninstall").unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(tree(&destination), BTreeSet::from([foreign.clone()]));
    fs::remove_file(destination.join(foreign)).unwrap();
    let output = make("uninstall").unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(!documentation.exists());
}

#[test]
fn make_install_does_not_build() {
    let folder = tempfile::tempdir().unwrap();
    let destination = variable("DESTDIR", folder.path());
    let Some(output) = tool(make().args(["install", "VMM=no/such/vmm"]).arg(destination)) else {
        return;
    };
    assert!(!output.status.success());
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("run make first"), "{error}");
    assert_eq!(tree(folder.path()), BTreeSet::new());
}

#[test]
fn make_run_takes_paths_as_they_are() {
    needs_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let content = common::random(1024, 1);
    for name in ["co$1py", "co$(py)", "a\nb", "it's \"a\\b\"", "c#d e"] {
        let [input, output] = ["in", "out"].map(|end| folder.path().join(format!("{name}.{end}")));
        fs::write(&input, &content).unwrap();
        let paths = [("INPUT", &input), ("OUTPUT", &output), ("VMM", &binary())];
        let paths = paths.map(|(name, path)| variable(name, path));
        let Some(run) = tool(make().args(["run", "CARGO=true", "ARGS=-q"]).args(paths)) else {
            return;
        };
        assert!(run.status.success(), "{name}: {run:?}");
        let copy = fs::read(folder.path().join(format!("{name}.out"))).unwrap();
        assert!(copy == content, "{name}");
    }
    assert_eq!(tree(folder.path()).len(), 10);
}

#[test]
fn make_finds_what_was_built_whatever_the_folder_is_called() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("it's #1 for $x");
    let program = target.join("release/vmm");
    fs::create_dir_all(target.join("release")).unwrap();
    fs::copy("/bin/true", &program).unwrap();
    let mut make = make();
    make.args(["install", "CARGO=true"])
        .env("CARGO_TARGET_DIR", &target)
        .env("DESTDIR", folder.path().join("to $HOME"));
    let Some(install) = tool(&mut make) else {
        return;
    };
    assert!(install.status.success(), "{install:?}");
    let installed = folder.path().join("to $HOME/usr/local/bin/vmm");
    assert_eq!(fs::read(installed).unwrap(), fs::read(program).unwrap());
}
