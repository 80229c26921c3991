//! docs/images.md names every format, every reason and every field.

use std::collections::BTreeSet;
use std::fs;

use guest_formats::{Class, Format, Reason};
use serde_json::Value;

use crate::common::{needs_kvm, test};
use crate::object;
use crate::support::Put::Data;
use crate::support::bytes::be16;
use crate::support::qcow2::Qcow2;

const DOCUMENT: &str = include_str!("../../docs/images.md");

/// What is in backticks in the lines of the section of that title.
fn words(title: &str) -> BTreeSet<&'static str> {
    let lines = DOCUMENT.lines().skip_while(|line| *line != title).skip(1);
    let lines = lines.take_while(|line| !line.starts_with("## "));
    lines
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .collect()
}

#[test]
fn every_format_is_in_the_table() {
    let words = words("## Formats");
    for format in Format::ALL {
        assert!(words.contains(format.name()), "{}", format.name());
    }
}

#[test]
fn every_reason_is_in_the_table_with_its_class_and_meaning() {
    for reason in Reason::ALL {
        let class = match reason.class() {
            Class::Refused => "refused",
            Class::Broken => "broken",
        };
        let allowed = if reason.may_be_allowed() { "yes" } else { "no" };
        let meaning = reason.message().trim_end_matches('.');
        let row = format!("| `{}` | {class} | {allowed} | {meaning} |", reason.name());
        assert!(DOCUMENT.lines().any(|line| line == row), "{row}");
    }
}

#[test]
fn every_field_of_an_answer_is_documented() {
    needs_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let mut image = Qcow2::new(16, &[Data]);
    image.snapshots = vec![("1", "a")];
    image.backing = Some("base");
    let built = image.build();
    let mut bytes = built.bytes;
    be16(&mut bytes, built.first_block, 0);
    fs::write(&path, bytes).unwrap();
    let (answer, _) = object("check", &path, &[]);
    assert!(answer["check"]["problems"][0].is_object() && answer["snapshots"][0].is_object());
    let words = words("## JSON");
    let mut fields = BTreeSet::new();
    collect(&answer, &mut fields);
    // What features are called is their own names.
    for field in fields {
        let known = words.contains(field.as_str()) || field == "incompatible";
        assert!(known, "{field}");
    }
}

fn collect(value: &Value, fields: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                fields.insert(name.clone());
                collect(value, fields);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, fields)),
        _ => {}
    }
}
