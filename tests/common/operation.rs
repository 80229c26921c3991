//! What the product can be asked to do, for tests of what holds whatever that is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Files, Finished, Vmm};

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A copy.
    Copy,
    /// One with a digest that is read back.
    Verified,
    /// A conversion.
    Convert,
    /// A look at an image.
    Info,
    /// A look at its tables.
    Check,
}

impl Operation {
    pub(crate) const ALL: [Self; 5] = [
        Self::Copy,
        Self::Verified,
        Self::Convert,
        Self::Info,
        Self::Check,
    ];

    /// Those that write an output.
    pub(crate) const WRITING: [Self; 3] = [Self::Copy, Self::Verified, Self::Convert];

    /// Files for any of them: an input, an image with that disk, and an old output.
    pub(crate) fn files() -> Files {
        Files::random(200 * 512)
            .with_image()
            .with_old_output(b"what was there before")
    }

    pub(crate) fn writes(self) -> bool {
        Self::WRITING.contains(&self)
    }

    /// The arguments for a run over `files`.
    pub(crate) fn arguments(self, files: &Files) -> Vec<OsString> {
        self.arguments_of(&self.source(files), &files.output())
    }

    /// What it reads of `files`.
    fn source(self, files: &Files) -> PathBuf {
        match self {
            Self::Copy | Self::Verified => files.input(),
            Self::Convert | Self::Info | Self::Check => files.image(),
        }
    }

    /// The arguments for a run that reads `source` and, if it writes, writes `output`.
    pub(crate) fn arguments_of(self, source: &Path, output: &Path) -> Vec<OsString> {
        let options: &[&str] = match self {
            Self::Copy => &[],
            Self::Verified => &["--digest", "sha256", "--verify"],
            Self::Convert => &["convert"],
            Self::Info => &["info"],
            Self::Check => &["check"],
        };
        let mut arguments: Vec<OsString> = options.iter().map(Into::into).collect();
        if self.writes() {
            arguments.push("--input".into());
        }
        arguments.push(source.into());
        if self.writes() {
            arguments.extend(["--output".into(), output.into()]);
        }
        arguments
    }

    /// The product, to do this with `files`.
    pub(crate) fn vmm(self, files: &Files) -> Vmm {
        self.vmm_of(&self.source(files), &files.output())
    }

    /// The product, to read `source` and, if this writes, to write `output`.
    pub(crate) fn vmm_of(self, source: &Path, output: &Path) -> Vmm {
        let arguments = self.arguments_of(source, output);
        arguments.into_iter().fold(Vmm::bare(), Vmm::arg)
    }

    /// Fails unless `files` are as this leaves them when it succeeds.
    #[track_caller]
    pub(crate) fn assert_done(self, files: &Files) {
        if self.writes() {
            files.assert_copied();
            files.restore_output();
        }
        files.assert_untouched();
    }

    /// Fails unless the run has succeeded and all is done, or it has failed with `status`, one line
    /// and nothing changed. Returns whether it has succeeded.
    #[track_caller]
    pub(crate) fn assert_done_or_failed(
        self,
        what: &str,
        files: &Files,
        finished: &Finished,
        status: i32,
    ) -> bool {
        if finished.code() == Some(0) {
            self.assert_done(files);
            return true;
        }
        let what = format!("{self:?}: {what}: {finished:?}");
        assert_eq!(finished.code(), Some(status), "{what}");
        let said = |line: &&str| *line != "vmm: warning: the sandbox is off";
        let lines: Vec<_> = finished.stderr.lines().filter(said).collect();
        assert!(lines.len() == 1 && lines[0].starts_with("vmm: "), "{what}");
        files.assert_untouched();
        false
    }
}
