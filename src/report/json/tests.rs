#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use guest_protocol::{
    capacity_message, complete_message, error_message, init_message, progress_message,
};
use serde_json::Value;

use super::*;
use crate::machine::ExitCounts;
use crate::operations::stats::Stats;
use crate::virtio::block::BlockCounters;

const DOCUMENTATION: &str = include_str!("../../../docs/json.md");

fn result() -> RunResult {
    RunResult {
        outcome: RunEnd::GuestError,
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
        outcome: RunEnd::Success,
        status: 0,
        error: None,
        digest: Some("sha256:00".to_owned()),
        ..result()
    }
}

fn stats() -> Stats {
    let disks = ["input", "output"].map(|name| (name, BlockCounters::default()));
    let exits = ExitCounts::default();
    Stats::new(
        true,
        512,
        0,
        std::time::Duration::from_secs(1),
        &exits,
        &disks,
    )
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
        host_check_object(true, 0),
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

#[test]
fn an_error_has_the_status_of_its_request_if_it_is_about_one() {
    for (status, shown) in [(1, Value::from(1)), (NO_STATUS, Value::Null)] {
        let message = error_message("read", "input", 5, status, "why");
        let object: Value = serde_json::from_str(&message_object(&message).unwrap()).unwrap();
        assert_eq!(object["status"], shown);
        assert_eq!(object["sector"], 5);
    }
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
        RunEnd::Success,
        RunEnd::Usage,
        RunEnd::HostError,
        RunEnd::GuestError,
        RunEnd::ImageRefused,
        RunEnd::TimedOut,
        RunEnd::Interrupted,
    ];
    for outcome in all {
        // One that is new does not compile here, and has to be put into the list above.
        match outcome {
            RunEnd::Success
            | RunEnd::Usage
            | RunEnd::HostError
            | RunEnd::GuestError
            | RunEnd::ImageRefused
            | RunEnd::TimedOut
            | RunEnd::Interrupted => {}
        }
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
