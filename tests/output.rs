//! What a program reads: with `--format json` all that a run says is objects on standard output.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{Files, needs_kvm, test};
use serde_json::Value;

fn main() -> std::process::ExitCode {
    common::harness::main()
}

#[test]
fn a_program_gets_an_object_for_each_line_that_a_person_gets() {
    needs_kvm!();
    let files = Files::random(50 * 512);
    let lines = files.vmm().succeed();
    let objects = files.vmm().args(&["--format", "json"]).succeed();
    assert_eq!(objects.stderr, "");
    let objects: Vec<Value> = objects
        .lines()
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let said: Vec<_> = objects
        .iter()
        .filter(|object| object["type"] != "result")
        .collect();
    assert_eq!(said.len(), lines.lines().len());
    for (object, line) in said.iter().zip(lines.lines()) {
        let kind = object["type"].as_str().unwrap();
        assert!(line.contains(&format!("] {kind} ")), "{object} for {line}");
    }
    let complete = said.last().unwrap();
    assert_eq!(complete["count"], 50);
    assert_eq!(complete["success"], true);
}
