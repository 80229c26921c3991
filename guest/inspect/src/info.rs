//! Reports what the headers of an image say.

use alloc::string::String;
use alloc::vec::Vec;

use guest_formats::qcow2::{Qcow2, Snapshot};
use guest_formats::{Error, Feature, FeatureKind, Image, Info, Options, ReadAt};
use guest_kit::hardware::Ports;
use guest_protocol::{FeatureMessage, ImageMessage, Payload, ReferenceMessage, SnapshotMessage};

use crate::report::Reporter;

/// The most snapshots that are reported one by one. An image may have 65,536.
pub const MOST_SNAPSHOTS_TOLD: u32 = 256;

/// Reports all that the headers say of the image, and what speaks against using it.
///
/// # Errors
///
/// [`Error::Read`] if the image could not be read.
pub fn report<P: Ports>(
    info: &Info,
    image: Option<&Image>,
    source: &mut dyn ReadAt,
    options: &Options,
    reporter: &mut Reporter<'_, P>,
) -> Result<(), Error> {
    reporter.say(Payload::Image(message(info)));
    for reference in &info.references {
        reporter.say(Payload::Reference(ReferenceMessage {
            kind: reference.kind.name().into(),
            name: reference.name.clone(),
        }));
    }
    if let Some(Image::Qcow2(image)) = image {
        snapshots(image, source, reporter)?;
    }
    for finding in info.findings.iter() {
        let allowed = info.findings.overrides(finding, options.allowed);
        reporter.finding(finding, allowed);
    }
    Ok(())
}

/// Reports the first snapshots, up to the one at which their list is wrong, if it is.
fn snapshots<P: Ports>(
    image: &Qcow2,
    source: &mut dyn ReadAt,
    reporter: &mut Reporter<'_, P>,
) -> Result<(), Error> {
    let mut left = MOST_SNAPSHOTS_TOLD;
    let walked = image.snapshots(source, &mut |snapshot| {
        if left > 0 {
            left -= 1;
            reporter.say(Payload::Snapshot(told(snapshot)));
        }
    });
    match walked {
        // What is wrong is among the findings.
        Err(Error::Refused(_)) => Ok(()),
        other => other,
    }
}

fn told(snapshot: Snapshot) -> SnapshotMessage {
    SnapshotMessage {
        id: snapshot.id,
        name: snapshot.name,
        seconds: snapshot.seconds,
        vm_state_size: snapshot.vm_state_size,
        disk_size: snapshot.disk_size,
    }
}

fn message(info: &Info) -> ImageMessage {
    ImageMessage {
        format: info.format.name().into(),
        fitting: info
            .fitting
            .iter()
            .map(|format| format.name().into())
            .collect(),
        variant: word(info.variant),
        version: info.version,
        virtual_size: info.virtual_size,
        cluster_size: info.cluster_size,
        compression: word(info.compression),
        refcount_bits: info.refcount_bits,
        features: info.features.iter().map(feature).collect::<Vec<_>>(),
        encryption: word(info.encryption),
        snapshots: info.snapshots,
        log_replayed: info.log_replayed,
        partitions: word(info.partitions.map(|table| table.name())),
        file_system: word(info.file_system.map(|system| system.name())),
    }
}

fn feature(feature: &Feature) -> FeatureMessage {
    FeatureMessage {
        kind: match feature.kind {
            FeatureKind::Incompatible => guest_protocol::FeatureKind::Incompatible,
            FeatureKind::Compatible => guest_protocol::FeatureKind::Compatible,
            FeatureKind::Autoclear => guest_protocol::FeatureKind::Autoclear,
        }
        .into(),
        bit: feature.bit,
        name: word(feature.name),
    }
}

fn word(word: Option<&'static str>) -> String {
    word.unwrap_or_default().into()
}
