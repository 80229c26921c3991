//! The answer as one JSON object, with qemu-img's names for what qemu-img says, too.

use std::collections::BTreeMap;

use guest_protocol::{
    FeatureKind, FindingMessage, ProblemMessage, ReferenceMessage, SnapshotMessage,
};
use serde::Serialize;

use super::answer::{Answer, FileSize};
use super::text;
use crate::config::{ImageConfig, ImageTask};
use crate::report::one_line;

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Object<'a> {
    r#type: &'static str,
    filename: String,
    format: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    virtual_size: Option<u64>,
    file_size: u64,
    actual_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_size: Option<u64>,
    dirty_flag: bool,
    encrypted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    backing_filename: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backing_filename_format: Option<String>,
    snapshots: Vec<Snapshot>,
    format_specific: Specific<'a>,
    fitting: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    encryption: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    partition_table: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    file_system: &'a str,
    log_replayed: bool,
    snapshot_count: u32,
    references: Vec<Reference<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<Check>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uncheckable: Option<&'static str>,
    verdict: &'static str,
    reasons: Vec<Reason<'a>>,
}

/// Of the format alone.
#[derive(Serialize)]
struct Specific<'a> {
    r#type: &'a str,
    data: Data<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Data<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    compat: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    #[serde(skip_serializing_if = "str::is_empty")]
    create_type: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    compression_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    refcount_bits: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_file: Option<String>,
    /// The feature bits: lazy-refcounts, corrupt and so on, and those without a name by number.
    features: BTreeMap<&'static str, Vec<String>>,
    #[serde(flatten)]
    flags: BTreeMap<&'static str, bool>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Snapshot {
    id: String,
    name: String,
    vm_state_size: u64,
    date_sec: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_size: Option<u64>,
}

#[derive(Serialize)]
struct Reference<'a> {
    kind: &'a str,
    name: String,
}

#[derive(Serialize)]
struct Reason<'a> {
    name: &'a str,
    text: &'a str,
    class: &'static str,
    allowed: bool,
    offset: u64,
    value: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Check {
    corruptions: u64,
    leaks: u64,
    data: u64,
    compressed: u64,
    zero: u64,
    backing: u64,
    lost: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_end_offset: Option<u64>,
    problems: Vec<Problem>,
}

#[derive(Serialize)]
struct Problem {
    name: String,
    offset: u64,
    found: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<u64>,
}

/// The object, without a line break.
pub(super) fn object(answer: &Answer, config: &ImageConfig, file: FileSize) -> String {
    let image = &answer.image;
    let checks = config.task == ImageTask::Check;
    let (backing, backing_format) = match image.format.as_str() {
        // What a VMDK lacks is in a parent, which is one, too.
        "vmdk" => {
            let parent = answer.references("parent").next();
            (parent, parent.map(|_| image.format.as_bytes()))
        }
        _ => (
            answer.references("backing").next(),
            // As qemu-img, where there are several; the image is refused then.
            answer.references("backing-format").next_back(),
        ),
    };
    one_line(&Object {
        r#type: if checks { "check" } else { "info" },
        filename: config.image.to_string_lossy().into_owned(),
        format: &image.format,
        virtual_size: image.virtual_size,
        file_size: file.length,
        actual_size: file.allocated,
        cluster_size: image.cluster_size,
        dirty_flag: answer.has("marked-dirty"),
        encrypted: !image.encryption.is_empty(),
        backing_filename: backing.map(lossy),
        backing_filename_format: backing_format.map(lossy),
        snapshots: answer.snapshots.iter().map(snapshot).collect(),
        format_specific: Specific {
            r#type: &image.format,
            data: data(answer),
        },
        fitting: &image.fitting,
        encryption: &image.encryption,
        partition_table: &image.partitions,
        file_system: &image.file_system,
        log_replayed: image.log_replayed,
        snapshot_count: image.snapshots,
        references: answer.references.iter().map(reference).collect(),
        check: check(answer),
        uncheckable: answer.uncheckable().filter(|_| checks),
        verdict: match checks {
            true => text::soundness(answer),
            false => answer.verdict().name(),
        },
        reasons: answer.findings.iter().map(reason).collect(),
    })
}

fn data(answer: &Answer) -> Data<'_> {
    let image = &answer.image;
    let qcow2 = image.format == "qcow2";
    let mut features = BTreeMap::new();
    let mut flags = BTreeMap::new();
    if qcow2 {
        flags.extend(["lazy-refcounts", "corrupt", "extended-l2"].map(|name| (name, false)));
    }
    for feature in &image.features {
        let kind = match feature.kind() {
            FeatureKind::Incompatible => "incompatible",
            FeatureKind::Compatible => "compatible",
            FeatureKind::Autoclear => "autoclear",
        };
        let name = match feature.name.as_str() {
            "" => feature.bit.to_string(),
            name => name.to_owned(),
        };
        if let Some(flag) = flags.get_mut(name.as_str()) {
            *flag = true;
        }
        features.entry(kind).or_insert_with(Vec::new).push(name);
    }
    Data {
        compat: image
            .version
            .filter(|_| qcow2)
            .map(|version| match version {
                2 => "0.10",
                _ => "1.1",
            }),
        version: image.version,
        create_type: &image.variant,
        compression_type: &image.compression,
        refcount_bits: image.refcount_bits,
        data_file: answer.references("data").next().map(lossy),
        features,
        flags,
    }
}

fn snapshot(snapshot: &SnapshotMessage) -> Snapshot {
    Snapshot {
        id: lossy(&snapshot.id),
        name: lossy(&snapshot.name),
        vm_state_size: snapshot.vm_state_size,
        date_sec: snapshot.seconds,
        disk_size: snapshot.disk_size,
    }
}

fn reference(reference: &ReferenceMessage) -> Reference<'_> {
    Reference {
        kind: &reference.kind,
        name: lossy(&reference.name),
    }
}

fn reason(finding: &FindingMessage) -> Reason<'_> {
    Reason {
        name: &finding.name,
        text: &finding.text,
        class: if finding.broken { "broken" } else { "refused" },
        allowed: finding.allowed,
        offset: finding.at,
        value: finding.value,
    }
}

fn check(answer: &Answer) -> Option<Check> {
    let check = answer.check.as_ref()?;
    Some(Check {
        corruptions: check.errors,
        leaks: check.leaks,
        data: check.data,
        compressed: check.compressed,
        zero: check.zero,
        backing: check.backing,
        lost: check.lost,
        // Only refcounts tell where the last cluster ends.
        image_end_offset: (check.image_end > 0).then_some(check.image_end),
        problems: answer.problems.iter().map(problem).collect(),
    })
}

fn problem(problem: &ProblemMessage) -> Problem {
    Problem {
        name: problem.name.clone(),
        offset: problem.at,
        found: problem.found,
        expected: problem.expected,
    }
}

/// A name from the image as text: what is not UTF-8 in it is replaced.
fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
