//! The programs that are compared and their command lines: the VMM, and the tools that copy a file
//! without a VM.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;

/// A program that copies one file to another.
#[derive(Clone, Debug)]
pub(crate) enum Program {
    /// The VMM with these options.
    Vmm(Vec<String>),
    /// `cp`, made to copy the bytes where the file system could share them.
    Cp,
    /// `cp` as people type it: by `copy_file_range`, which leaves the copy to the kernel.
    PlainCp,
    /// `dd` with this block size in bytes.
    Dd(u32),
    /// `qemu-img convert`, which reads and writes at the same time as the VMM does.
    QemuImg,
    /// The same, allowed to write out of order, with two requests at a time.
    QemuImgParallel,
    /// Another command, which gets the two paths: for tests of the tool itself.
    #[allow(dead_code, reason = "constructed by tests only")]
    Other(&'static str),
}

impl Program {
    /// The VMM with `options`, which are separated by blanks.
    pub(crate) fn vmm(options: &str) -> Self {
        Self::Vmm(options.split_whitespace().map(str::to_owned).collect())
    }

    /// The command that copies `input` to `output`; `vmm` is the VMM's path.
    pub(crate) fn command(&self, vmm: &Path, input: &OsStr, output: &OsStr) -> Command {
        let mut words = self.words(input, output).into_iter();
        let name = words.next().unwrap_or_default();
        let mut command = match self {
            Self::Vmm(_) => Command::new(vmm),
            _ => Command::new(name),
        };
        command.args(words);
        command
    }

    /// The command line as a person would type it.
    pub(crate) fn line(&self) -> String {
        let words = self.words("IN".as_ref(), "OUT".as_ref());
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }

    fn words(&self, input: &OsStr, output: &OsStr) -> Vec<OsString> {
        let fixed = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let paths = [input.to_owned(), output.to_owned()];
        match self {
            Self::Vmm(options) => {
                let mut words = fixed(&["vmm", "--input"]);
                words.extend([input.to_owned(), "--output".into(), output.to_owned()]);
                words.extend(options.iter().map(OsString::from));
                words
            }
            Self::Cp => [fixed(&["cp", "--reflink=never"]), paths.into()].concat(),
            Self::PlainCp => [fixed(&["cp"]), paths.into()].concat(),
            Self::Dd(block) => vec![
                "dd".into(),
                prefixed("if=", input),
                prefixed("of=", output),
                format!("bs={block}").into(),
                "status=none".into(),
            ],
            Self::QemuImg => [
                fixed(&["qemu-img", "convert", "-f", "raw", "-O", "raw"]),
                paths.into(),
            ]
            .concat(),
            Self::QemuImgParallel => {
                let words = "qemu-img convert -W -m 2 -f raw -O raw";
                let words: Vec<_> = words.split(' ').collect();
                [fixed(&words), paths.into()].concat()
            }
            Self::Other(name) => [fixed(&[name]), paths.into()].concat(),
        }
    }
}

fn prefixed(prefix: &str, path: &OsStr) -> OsString {
    let mut word = OsString::from(prefix);
    word.push(path);
    word
}

/// Whether `name` can be run at all.
pub(crate) fn installed(name: &str) -> bool {
    answers(name, "--version")
}

/// Whether there is a program of this name that takes `argument`.
pub(crate) fn answers(name: &str, argument: &str) -> bool {
    Command::new(name)
        .arg(argument)
        .output()
        .is_ok_and(|output| output.status.success())
}
