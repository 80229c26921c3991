//! What is to be measured: the suite from the command line, the rest from the environment.

use std::path::PathBuf;

use crate::figures::{GIB, parse_bytes};

/// 10,000,000 sectors of 512 bytes, the input of the prototypes' documents.
pub(crate) const REFERENCE_BYTES: u64 = 10_000_000 * 512;

/// A group of measurements that is run and written as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suite {
    /// The targets, and time over sector size.
    Bench,
    /// The table of the prototypes' documents.
    Reference,
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("{name}={value} is not valid: give {valid}")]
    Value {
        name: &'static str,
        value: String,
        valid: &'static str,
    },
    #[error("there is no suite '{0}': give bench or reference")]
    Suite(String),
}

/// All settings, checked.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) suite: Suite,
    /// Length of the input in bytes.
    pub(crate) bytes: u64,
    /// How often each command is run.
    pub(crate) runs: u32,
    /// Where input and output are made.
    pub(crate) folder: PathBuf,
    /// Measure the long cases as well.
    pub(crate) full: bool,
    /// Copy the results to where the documentation shows them.
    pub(crate) publish: bool,
    /// The VMM to measure.
    pub(crate) vmm: PathBuf,
}

impl Settings {
    /// Reads the suite's name (none: [`Suite::Bench`]) and the variables that `variable` finds; an
    /// empty variable counts as none. `vmm` is the VMM unless `BENCH_VMM` names another.
    ///
    /// # Errors
    ///
    /// Which setting is wrong and what would be valid.
    pub(crate) fn new(
        suite: Option<&str>,
        variable: impl Fn(&str) -> Option<String>,
        vmm: PathBuf,
    ) -> Result<Self, SettingsError> {
        let suite = match suite {
            None | Some("bench") => Suite::Bench,
            Some("reference") => Suite::Reference,
            Some(other) => return Err(SettingsError::Suite(other.to_owned())),
        };
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let (bytes, runs) = match suite {
            Suite::Bench => (GIB, 5),
            Suite::Reference => (REFERENCE_BYTES, 1),
        };
        Ok(Self {
            suite,
            bytes: parsed(
                "BENCH_BYTES",
                variable("BENCH_BYTES"),
                bytes,
                "a number of bytes such as 256M or 1G",
                parse_bytes,
            )?,
            runs: parsed(
                "BENCH_RUNS",
                variable("BENCH_RUNS"),
                runs,
                "a whole number from 1 up",
                |text| text.parse().ok().filter(|runs| *runs > 0),
            )?,
            folder: variable("BENCH_DIR").map_or_else(|| "target".into(), PathBuf::from),
            full: switch("BENCH_FULL", variable("BENCH_FULL"))?,
            publish: switch("BENCH_PUBLISH", variable("BENCH_PUBLISH"))?,
            vmm: variable("BENCH_VMM").map_or(vmm, PathBuf::from),
        })
    }
}

fn parsed<T>(
    name: &'static str,
    value: Option<String>,
    default: T,
    valid: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, SettingsError> {
    let Some(value) = value else {
        return Ok(default);
    };
    parse(&value).ok_or(SettingsError::Value { name, value, valid })
}

fn switch(name: &'static str, value: Option<String>) -> Result<bool, SettingsError> {
    parsed(name, value, false, "0 or 1", |text| match text {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    })
}
