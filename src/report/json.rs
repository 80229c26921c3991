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
pub enum RunEnd {
    /// All was done and is in place.
    Success,
    /// The command line is wrong.
    Usage,
    /// A file, KVM or another part of the host failed.
    HostError,
    /// The guest failed, faulted or broke the protocol.
    GuestError,
    /// The image is refused, or contradicts itself.
    ImageRefused,
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
    /// Anything else, such as a nudge that interrupts the guest.
    pub other: u64,
    /// All of them.
    pub total: u64,
}

/// A run that has ended, for a program.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunResult {
    /// How it ended.
    pub outcome: RunEnd,
    /// The exit status of the process.
    pub status: u8,
    /// Why it failed, in one line; `None` if it did not.
    pub error: Option<String>,
    /// What was done, in bytes: of a run that failed, what had been written.
    pub bytes: u64,
    /// How many sectors of the input disk that is.
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
    HostCheck {
        would_run: bool,
        status: u8,
    },
    Result(&'a RunResult),
}

impl Object<'_> {
    /// The object as one line, with its line break.
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
pub fn host_check_object(would_run: bool, status: u8) -> String {
    Object::HostCheck { would_run, status }.line()
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
mod tests;
