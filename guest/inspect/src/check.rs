//! Whether the tables of an image are sound.
//!
//! A qcow2 image has refcounts, which are compared with how often its tables use each cluster. Of
//! every other format each table entry is looked at, and no two entries may take the same part of
//! the file. Checksums and copies of headers were compared before, when the image was opened. Both
//! checks make as many passes as the memory makes necessary.

use core::ops::RangeInclusive;

use guest_formats::qcow2::{Check, CheckOptions, Problem, Qcow2};
use guest_formats::{
    Class, Contents, Error, Finding, Image, Info, LOAD, Options, ReadAt, Reason, Survey,
};
use guest_kit::hardware::Ports;
use guest_protocol::{CheckMessage, Payload, ProblemMessage};

use crate::report::Reporter;

/// How many clusters one pass counts. Each takes 5 bytes, so that they take most of the heap. With
/// clusters of 64 KiB one pass is enough for 32 GiB.
const WINDOW: u32 = 512 * 1024;
/// How many units of the file (sectors, mebibytes or blocks) one pass counts in other formats. Each
/// takes a bit. They are 8 GiB of a VMDK or a VHD, and all that a VHDX or a VDI can have.
const UNITS: u32 = 16 << 20;
/// How many table entries and refcounts of any qcow2 image are looked at before the check gives up,
/// at the least and at the most. To read a piece of them counts as 2,000. That takes at the worst, if
/// nothing is done but to read, some 1.5 s, and some 40 s.
const ENTRIES: RangeInclusive<u64> = 1 << 25..=1 << 30;
/// The same for the table entries of other formats.
const OTHER_ENTRIES: RangeInclusive<u64> = 1 << 25..=1 << 32;
/// For each so many bytes of a VHD's file one entry is looked at, however many these are: its blocks are
/// read as data is, each of them once.
const BYTES_AN_ENTRY: u64 = 16;
/// How many of those are looked at in one step of a survey.
const AT_ONCE: u64 = 1 << 14;
/// For how many snapshots the limit on the work allows to look at all tables once more. A snapshot
/// shares most of its tables with the disk, and on a disk with little data they are most of the file.
const MOST_SNAPSHOTS: u64 = 64;

/// Checks the image, and reports what was found. Does nothing if there is nothing to check.
///
/// # Errors
///
/// [`Error::Read`] if the image could not be read, and [`Error::Refused`] with
/// [`Reason::TooMuchWork`] if the check gave up.
pub fn report<P: Ports>(
    info: &Info,
    image: Option<Image>,
    source: &mut dyn ReadAt,
    options: &Options,
    reporter: &mut Reporter<'_, P>,
) -> Result<(), Error> {
    if !can_be_checked(info, options) {
        return Ok(());
    }
    match image {
        None | Some(Image::Raw(_)) => Ok(()),
        Some(Image::Qcow2(image)) => refcounts(&image, info.snapshots, source, reporter),
        Some(mut image) => mapping(&mut image, source, reporter),
    }
}

/// Whether the headers say enough for the tables to be read.
fn can_be_checked(info: &Info, options: &Options) -> bool {
    let stands_in_the_way = |finding: &Finding| {
        let harmless = matches!(
            finding.reason,
            // These reasons say nothing against the tables themselves.
            Reason::BackingFile
                | Reason::BackingFormat
                | Reason::BackingOptions
                | Reason::Differencing
                | Reason::Encrypted
                | Reason::CorruptBit
                | Reason::DirtyBit
        );
        let allowed = info.findings.overrides(finding, options.allowed);
        finding.reason.class() == Class::Refused && !harmless && !allowed
    };
    !info.findings.iter().any(stands_in_the_way)
}

fn refcounts<P: Ports>(
    image: &Qcow2,
    snapshots: u32,
    source: &mut dyn ReadAt,
    reporter: &mut Reporter<'_, P>,
) -> Result<(), Error> {
    let options = CheckOptions {
        window: WINDOW,
        most_entries: most_entries(source.size(), image.cluster_size(), snapshots),
    };
    let mut check = Check::new(image, source, &options);
    while !check.step(source)? {}
    let found = check.report();
    found
        .problems
        .iter()
        .for_each(|problem| say(problem, reporter));
    reporter.say(Payload::Check(CheckMessage {
        leaks: found.leaks,
        image_end: found.image_end,
        ..told(found.errors, &found.contents)
    }));
    Ok(())
}

/// How many entries are looked at of a qcow2 image whose file has `length` bytes. In a sound image
/// each pass meets each table once, and once more for each snapshot. Small writes here
/// and there leave a table and a cluster of data behind it, so that every second cluster may be a
/// table that has to be read by itself. An image that uses tables many times over would take more,
/// and its check gives up.
fn most_entries(length: u64, cluster: u64, snapshots: u32) -> u64 {
    let passes = 1 + length / cluster / u64::from(WINDOW);
    let snapshots = u64::from(snapshots).min(MOST_SNAPSHOTS);
    let walks = passes * (1 + snapshots);
    let once = (length / 8).saturating_add((length / cluster / 2).saturating_mul(LOAD));
    within(once.saturating_mul(walks), ENTRIES)
}

/// The same for the other formats. An entry has four bytes, and is met twice: files that take more
/// than one pass are so large that the bound is the limit. Markers of compressed grains are read once,
/// and lie in the order of the disk: to read one, with all that are less than 8 KiB behind it, counts
/// as 2,000 entries.
///
/// A VHD `has_bitmaps`. They and the sectors that they call never written are read in pieces of 64 KiB,
/// each of which counts as much: one for each 33 bytes if all sectors are read, and two for the
/// bitmap and the end of each block, which has 512 KiB or 2 MiB. There is no limit to that but the
/// length of the file.
fn most_units(length: u64, has_bitmaps: bool) -> u64 {
    let most = match has_bitmaps {
        true => (length / BYTES_AN_ENTRY).max(*OTHER_ENTRIES.end()),
        false => *OTHER_ENTRIES.end(),
    };
    within(length / 4 * 2, *OTHER_ENTRIES.start()..=most)
}

fn within(number: u64, bounds: RangeInclusive<u64>) -> u64 {
    number.clamp(*bounds.start(), *bounds.end())
}

fn say<P: Ports>(problem: &Problem, reporter: &mut Reporter<'_, P>) {
    let is_refcount = !matches!(problem.kind, guest_formats::qcow2::ProblemKind::Entry(_));
    reporter.say(Payload::Problem(ProblemMessage {
        name: problem.kind.name().into(),
        at: problem.at,
        found: problem.found,
        expected: is_refcount.then_some(problem.expected),
    }));
}

fn mapping<P: Ports>(
    image: &mut Image,
    source: &mut dyn ReadAt,
    reporter: &mut Reporter<'_, P>,
) -> Result<(), Error> {
    let mut survey = Survey::new(image, source, UNITS);
    let most = most_units(source.size(), matches!(image, Image::Vhd(_)));
    while !survey.step(image, source, AT_ONCE)? {
        if survey.entries > most {
            return Err(Error::Refused(Finding {
                reason: Reason::TooMuchWork,
                at: 0,
                value: survey.entries,
            }));
        }
    }
    for finding in &survey.findings {
        reporter.say(Payload::Problem(ProblemMessage {
            name: finding.reason.name().into(),
            at: finding.at,
            found: finding.value,
            expected: None,
        }));
    }
    reporter.say(Payload::Check(told(survey.faults, &survey.contents)));
    Ok(())
}

/// The message of so many errors, and of what the disk consists of.
fn told(errors: u64, contents: &Contents) -> CheckMessage {
    CheckMessage {
        errors,
        data: contents.data,
        compressed: contents.compressed,
        zero: contents.zero,
        backing: contents.backing,
        lost: contents.lost,
        ..CheckMessage::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_honest_image_may_take_grows_with_its_file_and_has_bounds() {
        let cluster = 65536;
        assert_eq!(most_entries(0, cluster, 0), 1 << 25);
        // An eighth of the bytes, and 2,000 for each two clusters.
        let once = (1 << 27) + (2000 << 13);
        assert_eq!(most_entries(1 << 30, cluster, 0), once);
        assert_eq!(most_entries(1 << 30, cluster, 1), once * 2);
        assert_eq!(most_entries(1 << 26, cluster, 6), once / 16 * 7);
        assert_eq!(most_entries(1 << 26, cluster, 65_535), once / 16 * 65);
        assert_eq!(
            most_entries(200 << 20, 4096, 0),
            (25 << 20) + 2000 * (25 << 10)
        );
        // As many clusters as take two passes.
        assert_eq!(most_entries(1 << 28, 512, 0), 1 << 30);
        assert_eq!(most_entries(1 << 40, cluster, 0), 1 << 30);
        assert_eq!(most_entries(u64::MAX, 512, u32::MAX), 1 << 30);
        for has_bitmaps in [false, true] {
            assert_eq!(most_units(0, has_bitmaps), 1 << 25);
            assert_eq!(most_units(1 << 30, has_bitmaps), 1 << 29);
            assert_eq!(most_units(1 << 36, has_bitmaps), 1 << 32);
        }
        assert_eq!(most_units(u64::MAX, false), 1 << 32);
        assert_eq!(most_units(u64::MAX, true), u64::MAX / 16);
        // The largest VHD, with the smallest blocks that are usual.
        let (largest, block) = (2_u64 << 40, (512 << 10) + 512);
        let pieces = largest / block * (block / 65536 + 2);
        assert!(most_units(largest, true) > LOAD * pieces + largest / block);
    }
}
