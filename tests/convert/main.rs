//! Whole conversions: every format that is read, good images and bad ones, through the machine.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a failure in a test is to panic"
)]

// The images that lie are tests of another crate, too, and do not name the attribute.
#[macro_use]
extern crate test_attribute;

mod codecs;
#[path = "../common/mod.rs"]
mod common;
mod guests;
mod holes;
mod hostile;
mod opens;
mod oracles;
mod own;
mod qemu;
#[path = "../../guest/formats/tests/support/mod.rs"]
mod support;
mod to_qcow2;

use std::fs;
use std::path::{Path, PathBuf};

use common::files::first_difference;
use common::{Finished, Vmm};
use guest_formats::{Options, Reason};
use tempfile::TempDir;

fn main() -> std::process::ExitCode {
    common::harness::main()
}

/// Exit statuses that say that an image is refused, or broken.
const REFUSED: [i32; 2] = [5, 6];

/// The most memory of its own that a conversion may have, in bytes, whatever the image says.
const MOST_MEMORY: u64 = 32 << 20;

/// One conversion: a folder with an image in it, and a place for the disk.
struct Conversion {
    folder: TempDir,
    arguments: Vec<String>,
}

impl Conversion {
    fn of(image: &[u8]) -> Self {
        let conversion = Self {
            folder: tempfile::tempdir().unwrap(),
            arguments: Vec::new(),
        };
        fs::write(conversion.image(), image).unwrap();
        conversion
    }

    /// Of the image that is put at [`image`](Self::image).
    fn new() -> Self {
        Self::of(&[])
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn image(&self) -> PathBuf {
        self.path("image")
    }

    fn disk(&self) -> PathBuf {
        self.path("disk")
    }

    fn arg(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// With a backing file of this content.
    fn backing(self, name: &str, bytes: &[u8]) -> Self {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        let path = path.to_str().unwrap().to_owned();
        self.arg("--backing").arg(&path)
    }

    /// As the parsers' `options` say.
    fn with(mut self, options: &Options) -> Self {
        if let Some(format) = options.claimed {
            self = self.arg("--image-format").arg(format.name());
        }
        for reason in Reason::ALL {
            if options.allowed.contains(*reason) && reason.may_be_allowed() {
                self = self.arg("--allow").arg(reason.name());
            }
        }
        self
    }

    fn run(&self) -> Finished {
        self.run_as(|vmm| vmm)
    }

    /// The same, after `prepare`.
    fn run_as(&self, prepare: impl FnOnce(Vmm) -> Vmm) -> Finished {
        let finished = prepare(self.vmm()).run();
        self.assert_whole_or_nothing(&finished);
        finished
    }

    /// The command, where there is no disk yet.
    fn vmm(&self) -> Vmm {
        let _ = fs::remove_file(self.disk());
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        Vmm::bare()
            .args(&["convert", "--timeout", "40", "--input"])
            .arg(self.image())
            .arg("--output")
            .arg(self.disk())
            .args(&arguments)
            .with_memory_limit(MOST_MEMORY)
    }

    fn assert_whole_or_nothing(&self, finished: &Finished) {
        // Whatever the built-in guest says is shown to its end.
        assert!(!finished.stderr.contains("\"…"), "{}", finished.stderr);
        // Nothing but a complete disk is ever left behind.
        if finished.code() != Some(0) {
            assert!(!self.disk().exists(), "{}", finished.stderr);
        }
    }

    /// The disk that a good run makes.
    fn convert(&self) -> Vec<u8> {
        let finished = self.run();
        assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
        fs::read(self.disk()).unwrap()
    }
}

/// Compares without printing what differs, which may be long.
fn assert_same(found: &[u8], expected: &[u8], what: &str) {
    let differs = first_difference(found, expected);
    assert_eq!(differs, None, "{what}: the first byte that differs");
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}
