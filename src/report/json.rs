//! What a program reads: one JSON object a line, as `docs/json.md` documents them.
//!
//! Characters that a person could not see are escaped here too: valid JSON is not yet safe to show
//! on a terminal.

use guest_protocol::{GuestMessage, NO_STATUS, Payload};
use serde::Serialize;

use super::quote::is_visible;

/// How a run has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All was done and is in place.
    Success,
    /// The command line is wrong.
    Usage,
    /// A file, KVM or another part of the host failed.
    HostError,
    /// The guest failed, faulted or broke the protocol.
    GuestError,
    /// The time limit ended the run.
    TimedOut,
    /// A signal ended the run.
    Interrupted,
}

/// Exits of the vCPU to user space, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Exits {
    /// Reads of a port.
    pub pio_in: u64,
    /// Writes to a port.
    pub pio_out: u64,
    /// Reads of a device's registers.
    pub mmio_read: u64,
    /// Writes to a device's registers.
    pub mmio_write: u64,
    /// Reads of the idle port.
    pub idle: u64,
    /// Anything else, such as a kick that asks the guest to look again.
    pub other: u64,
    /// All of them.
    pub total: u64,
}

/// A run that has ended, for a program.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunResult {
    /// How it ended.
    pub outcome: Outcome,
    /// The exit status of the process.
    pub status: u8,
    /// Why it failed, in one line; `None` if it did not.
    pub error: Option<String>,
    /// What was done, in bytes: of a run that failed, what had been written.
    pub bytes: u64,
    /// The same in sectors of the input disk.
    pub sectors: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What it cost in exits.
    pub exits: Exits,
    /// The digest of what was read, as `algorithm:hex digits`, if the operation makes one.
    pub digest: Option<String>,
}

/// Everything that is said, as it is written.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Object<'a> {
    Init {
        stage: &'a str,
        device: &'a str,
        address: u64,
    },
    Capacity {
        device: &'a str,
        sectors: u64,
        bytes: u64,
    },
    Progress {
        op: &'a str,
        current: u64,
        total: u64,
        percent: u32,
    },
    Error {
        op: &'a str,
        device: &'a str,
        sector: u64,
        status: Option<u32>,
        detail: &'a str,
    },
    Complete {
        op: &'a str,
        count: u64,
        success: bool,
    },
    Text {
        text: &'a str,
    },
    Debug {
        text: &'a str,
    },
    Warning {
        text: &'a str,
    },
    Finding {
        what: &'a str,
        state: &'a str,
        text: &'a str,
    },
    Check {
        would_run: bool,
        status: u8,
    },
    Result(&'a RunResult),
}

impl Object<'_> {
    /// As one line, with its line break.
    fn line(&self) -> String {
        let mut line = one_line(self);
        line.push('\n');
        line
    }
}

/// `value` as one line of visible characters, without its line break.
#[must_use]
pub fn one_line(value: &impl Serialize) -> String {
    // Strings and numbers cannot fail to be written.
    escape_invisible(serde_json::to_string(value).unwrap_or_default())
}

/// The object for `message`; `None` for a message without content.
#[must_use]
pub fn message_object(message: &GuestMessage) -> Option<String> {
    let object = match message.payload.as_ref()? {
        Payload::Init(init) => Object::Init {
            stage: &init.stage,
            device: &init.device,
            address: init.address,
        },
        Payload::Capacity(capacity) => Object::Capacity {
            device: &capacity.device,
            sectors: capacity.sectors,
            bytes: capacity.bytes,
        },
        Payload::Progress(progress) => Object::Progress {
            op: &progress.op,
            current: progress.current,
            total: progress.total,
            percent: progress.percent,
        },
        Payload::Error(error) => Object::Error {
            op: &error.op,
            device: &error.device,
            sector: error.sector,
            status: (error.status != NO_STATUS).then_some(error.status),
            detail: &error.detail,
        },
        Payload::Complete(complete) => Object::Complete {
            op: &complete.op,
            count: complete.count,
            success: complete.success,
        },
        // What is said of an image is not an object but a part of an answer.
        Payload::Image(_)
        | Payload::Reference(_)
        | Payload::Snapshot(_)
        | Payload::Finding(_)
        | Payload::Problem(_)
        | Payload::Check(_) => return None,
    };
    Some(object.line())
}

/// The object for a line of a guest that speaks plain text.
#[must_use]
pub fn text_object(text: &str) -> String {
    Object::Text { text }.line()
}

/// The object for a line of the guest's debug text.
#[must_use]
pub fn debug_object(text: &str) -> String {
    Object::Debug { text }.line()
}

/// The object for a warning.
#[must_use]
pub fn warning_object(text: &str) -> String {
    Object::Warning { text }.line()
}

/// The object for something that `--check` has looked at.
#[must_use]
pub fn finding_object(what: &str, state: &str, text: &str) -> String {
    Object::Finding { what, state, text }.line()
}

/// The last object of `--check`.
#[must_use]
pub fn check_object(would_run: bool, status: u8) -> String {
    Object::Check { would_run, status }.line()
}

/// The last object of a run.
#[must_use]
pub fn result_object(result: &RunResult) -> String {
    Object::Result(result).line()
}

/// `json` with all that cannot be seen as `\u202e`. Outside of strings JSON has only visible
/// characters, and in strings this is how JSON writes any character.
fn escape_invisible(json: String) -> String {
    // As nearly all of it is.
    if json.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return json;
    }
    let mut shown = String::with_capacity(json.len());
    for c in json.chars() {
        if is_visible(c) {
            shown.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                shown += &format!("\\u{unit:04x}");
            }
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::collections::BTreeMap;

    use guest_protocol::{
        capacity_message, complete_message, error_message, init_message, progress_message,
    };
    use serde_json::Value;

    use super::*;
    use crate::machine::ExitCounts;
    use crate::stats::Stats;
    use crate::virtio::block::BlockCounters;

    const DOCUMENTATION: &str = include_str!("../../docs/json.md");

    fn result() -> RunResult {
        RunResult {
            outcome: Outcome::GuestError,
            status: 4,
            error: Some("the copy failed".to_owned()),
            bytes: 512,
            sectors: 1,
            seconds: 0.25,
            exits: Exits::default(),
            digest: None,
        }
    }

    fn success() -> RunResult {
        RunResult {
            outcome: Outcome::Success,
            status: 0,
            error: None,
            digest: Some("sha256:00".to_owned()),
            ..result()
        }
    }

    fn stats() -> Stats {
        let disks = ["input", "output"].map(|name| (name, BlockCounters::default()));
        let exits = ExitCounts::default();
        Stats::new(true, 512, std::time::Duration::from_secs(1), &exits, disks)
    }

    /// Every kind of object, with each of its values at least once null and once not.
    fn objects() -> Vec<Value> {
        let message = |message| message_object(&message).unwrap();
        let lines = [
            message(init_message("probe", "input", 0x1000_0000)),
            message(capacity_message("input", 50, 25_600)),
            message(progress_message("copy", 11, 50, 22)),
            message(error_message("read", "input", 5, 1, "why")),
            message(error_message("read", "input", 5, NO_STATUS, "")),
            message(complete_message("copy", 50, true)),
            text_object("Progress: 1/50"),
            debug_object("copy begins"),
            warning_object("the sandbox is off"),
            finding_object("/dev/kvm", "ok", "version 12"),
            check_object(true, 0),
            stats().to_object() + "\n",
            result_object(&result()),
            result_object(&success()),
        ];
        let parse = |line: &String| {
            assert_eq!(line.find('\n'), Some(line.len() - 1), "{line:?}");
            serde_json::from_str(line).unwrap()
        };
        lines.iter().map(parse).collect()
    }

    /// The tables of the documentation: for each type, the type of each of its fields.
    fn documented() -> BTreeMap<String, BTreeMap<String, String>> {
        let mut tables = BTreeMap::<String, BTreeMap<String, String>>::new();
        let mut current = None;
        for line in DOCUMENTATION.lines() {
            if let Some(heading) = line.strip_prefix("### ") {
                current = heading.split('`').nth(1).map(str::to_owned);
                continue;
            }
            let (Some(table), Some(row)) = (&current, line.strip_prefix("| `")) else {
                continue;
            };
            let mut cells = row.split('|').map(|cell| cell.trim().trim_end_matches('`'));
            let (name, kind) = (cells.next().unwrap(), cells.next().unwrap());
            tables
                .entry(table.clone())
                .or_default()
                .insert(name.to_owned(), kind.to_owned());
        }
        tables
    }

    fn is_of(value: &Value, kind: &str) -> bool {
        kind.split(" or ").any(|kind| match kind {
            "string" => value.is_string(),
            "integer" => value.is_u64(),
            "number" => value.is_f64(),
            "boolean" => value.is_boolean(),
            "object" => value.is_object(),
            "array" => value.is_array(),
            "null" => value.is_null(),
            _ => panic!("the documentation has an unknown type {kind:?}"),
        })
    }

    /// Holds the fields of `object` against the table `name`.
    fn compare(name: &str, object: &Value, tables: &BTreeMap<String, BTreeMap<String, String>>) {
        let table = tables
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not documented"));
        let fields = object.as_object().unwrap();
        let mut found: Vec<_> = fields.keys().filter(|field| *field != "type").collect();
        found.sort();
        assert_eq!(found, table.keys().collect::<Vec<_>>(), "fields of {name}");
        for (field, kind) in table {
            assert!(is_of(&fields[field], kind), "{name}.{field}: {object}");
        }
    }

    #[test]
    fn every_object_has_the_fields_that_the_documentation_lists_and_no_other() {
        let tables = documented();
        let mut seen = vec!["exits".to_owned()];
        for object in objects() {
            let kind = object["type"].as_str().unwrap();
            compare(kind, &object, &tables);
            if object.get("exits").is_some() {
                compare("exits", &object["exits"], &tables);
            }
            seen.push(kind.to_owned());
        }
        let missing: Vec<_> = tables.keys().filter(|name| !seen.contains(name)).collect();
        assert!(
            missing.is_empty(),
            "documented, but never written: {missing:?}"
        );
    }

    #[test]
    fn the_examples_of_the_documentation_are_what_is_written() {
        let written: Vec<String> = objects()
            .iter()
            .map(|object| object["type"].to_string())
            .collect();
        let tables = documented();
        let examples: Vec<_> = DOCUMENTATION
            .lines()
            .filter(|line| line.starts_with('{'))
            .collect();
        assert!(examples.len() >= 5);
        for example in examples {
            let object: Value = serde_json::from_str(example).unwrap();
            assert!(written.contains(&object["type"].to_string()), "{example}");
            compare(object["type"].as_str().unwrap(), &object, &tables);
        }
    }

    #[test]
    fn every_outcome_is_documented() {
        let all = [
            Outcome::Success,
            Outcome::Usage,
            Outcome::HostError,
            Outcome::GuestError,
            Outcome::TimedOut,
            Outcome::Interrupted,
        ];
        for outcome in all {
            let name = serde_json::to_string(&outcome).unwrap();
            let row = format!("| `{}` |", name.trim_matches('"'));
            assert!(DOCUMENTATION.contains(&row), "{row}");
        }
    }

    #[test]
    fn a_guests_strings_stay_one_string_on_one_line_and_hide_nothing() {
        let said = "a\"b\\c\n\u{1b}[2J\u{7f}\u{202e}\u{e0041} größe";
        let line = message_object(&error_message(said, "input", 0, 1, said)).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["op"], said);
        assert!(line.trim_end().chars().all(is_visible), "{line}");
        assert!(
            line.contains(r"\u001b[2J\u007f\u202e\udb40\udc41 größe"),
            "{line}"
        );
    }
}
