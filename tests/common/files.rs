//! A temporary folder with an input in it and a place for the output, and what must hold of it
//! after a run: the copy is exact, or nothing has changed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::Vmm;
use super::image::qcow2;
use super::program::Program;

const INPUT: &str = "input.img";
const OUTPUT: &str = "output.img";
const IMAGE: &str = "image.qcow2";

/// One run's files.
pub(crate) struct Files {
    folder: TempDir,
    content: Vec<u8>,
    old_output: Option<Vec<u8>>,
    /// Names of the files that the test has put there.
    names: BTreeSet<String>,
}

impl Files {
    /// A folder with an input of this content and no output.
    pub(crate) fn new(content: &[u8]) -> Self {
        Self::within(&std::env::temp_dir(), content)
    }

    /// The same in a folder of `parent`.
    pub(crate) fn within(parent: &Path, content: &[u8]) -> Self {
        let mut files = Self {
            folder: tempfile::tempdir_in(parent).unwrap(),
            content: content.to_vec(),
            old_output: None,
            names: BTreeSet::new(),
        };
        files.add(INPUT, content);
        files
    }

    /// A folder with an input of `len` random bytes.
    pub(crate) fn random(len: usize) -> Self {
        Self::new(&random(len, len as u64))
    }

    /// Adds an image with the input's content as its disk, of as many bytes as whole sectors have.
    pub(crate) fn with_image(mut self) -> Self {
        self.add(IMAGE, &qcow2(&self.content.clone()));
        self
    }

    /// The image.
    pub(crate) fn image(&self) -> PathBuf {
        self.path(IMAGE)
    }

    /// Puts a file where the output will go.
    pub(crate) fn with_old_output(mut self, content: &[u8]) -> Self {
        self.add(OUTPUT, content);
        self.old_output = Some(content.to_vec());
        self
    }

    /// Undoes what a run has done to the output.
    pub(crate) fn restore_output(&self) {
        match &self.old_output {
            Some(old) => fs::write(self.output(), old).unwrap(),
            None => drop(fs::remove_file(self.output())),
        }
    }

    /// Adds a file, such as a guest.
    pub(crate) fn add(&mut self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        self.names.insert(name.to_owned());
        path
    }

    /// Says that the test has put `name` into the folder by itself.
    pub(crate) fn expect(&mut self, name: &str) -> PathBuf {
        self.names.insert(name.to_owned());
        self.path(name)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn input(&self) -> PathBuf {
        self.path(INPUT)
    }

    pub(crate) fn output(&self) -> PathBuf {
        self.path(OUTPUT)
    }

    /// The VMM, to copy the input to the output.
    pub(crate) fn vmm(&self) -> Vmm {
        Vmm::copying(&self.input(), &self.output())
    }

    /// Fails unless the output is the input, byte for byte, and nothing else has appeared.
    #[track_caller]
    pub(crate) fn assert_copied(&self) {
        assert_same(&self.input(), &self.content);
        assert_same(&self.output(), &self.content);
        let mut expected = self.names.clone();
        expected.insert(OUTPUT.to_owned());
        assert_eq!(self.found(), expected, "files in the folder");
    }

    /// Fails unless input and output are as they were before the run, and nothing has appeared.
    #[track_caller]
    pub(crate) fn assert_untouched(&self) {
        assert_same(&self.input(), &self.content);
        match &self.old_output {
            Some(old) => assert_same(&self.output(), old),
            None => assert!(!self.output().exists(), "there is an output"),
        }
        assert_eq!(self.found(), self.names, "files in the folder");
    }

    /// Fails unless the output is what it was or a complete copy; returns whether it is a copy.
    /// Of other files only the hidden ones of a killed run may be there.
    #[track_caller]
    pub(crate) fn assert_old_or_copied(&self) -> bool {
        let strangers: Vec<_> = self
            .found()
            .into_iter()
            .filter(|name| !self.names.contains(name) && name != OUTPUT && !is_leftover(name))
            .collect();
        assert!(strangers.is_empty(), "{strangers:?} appeared");
        match (fs::read(self.output()), &self.old_output) {
            (Ok(found), Some(old)) if found == *old => false,
            (Ok(found), _) => {
                assert_eq!(
                    first_difference(&found, &self.content),
                    None,
                    "a partial output"
                );
                true
            }
            (Err(_), None) => false,
            (Err(error), Some(_)) => panic!("the old output is gone: {error}"),
        }
    }

    fn found(&self) -> BTreeSet<String> {
        fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect()
    }
}

/// Files, and the VMM to copy them with a guest that never ends.
pub(crate) fn spinning() -> (Files, Vmm) {
    let mut files = Files::random(5000).with_old_output(b"what was there before");
    let guest = files.add("guest", &Program::new().spin_forever().build());
    let vmm = files.vmm().arg(guest);
    (files, vmm)
}

/// Whether `name` has the form that the documentation gives for what a killed run leaves.
fn is_leftover(name: &str) -> bool {
    name.starts_with(".vmm-") && name.ends_with(".tmp")
}

/// Bytes that look random and are the same for the same `seed` (xorshift64*).
pub(crate) fn random(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Fails unless the file at `path` holds exactly `expected`.
#[track_caller]
pub(crate) fn assert_same(path: &Path, expected: &[u8]) {
    let found = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(
        first_difference(&found, expected),
        None,
        "{}: first difference",
        path.display()
    );
}

/// Where two byte strings begin to differ: comparing them with `assert_eq` would print megabytes.
pub(crate) fn first_difference(found: &[u8], expected: &[u8]) -> Option<usize> {
    // Quick where there is none, which is what is expected.
    if found == expected {
        return None;
    }
    let common = found.iter().zip(expected).position(|(a, b)| a != b);
    common.or_else(|| (found.len() != expected.len()).then(|| found.len().min(expected.len())))
}

/// Fails unless two files that are too large for memory are equal.
#[track_caller]
pub(crate) fn assert_same_large(left: &Path, right: &Path) {
    let (left, right) = (File::open(left).unwrap(), File::open(right).unwrap());
    let len = left.metadata().unwrap().len();
    assert_eq!(right.metadata().unwrap().len(), len, "length");
    let mut buffers = [vec![0; 1 << 20], vec![0; 1 << 20]];
    let mut offset = 0;
    while offset < len {
        let part = usize::try_from((len - offset).min(1 << 20)).unwrap();
        let [a, b] = &mut buffers;
        left.read_exact_at(&mut a[..part], offset).unwrap();
        right.read_exact_at(&mut b[..part], offset).unwrap();
        assert!(a[..part] == b[..part], "a difference after {offset}");
        offset += part as u64;
    }
}
