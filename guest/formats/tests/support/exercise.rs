//! All that can be done with bytes that may be an image, with a bound on every part of it. It serves
//! the tests with random images, and a fuzzer.

use guest_formats::qcow2::{Check, CheckOptions, Qcow2};
use guest_formats::{
    Compressed, Content, Error, Format, Image, Mapping, Options, Reason, ReasonSet, Survey, inspect,
};

use super::Counting;

/// What a user may say that an image is.
pub(crate) const FORMATS: [Option<Format>; 8] = [
    None,
    Some(Format::Raw),
    Some(Format::Qcow2),
    Some(Format::Vmdk),
    Some(Format::Vhd),
    Some(Format::Vhdx),
    Some(Format::Vdi),
    Some(Format::Qed),
];

/// The most reads for the headers, whatever they say; a log of 1 MiB is gone over eight times.
const MOST_HEADER_READS: u64 = 600;
/// The most reads for one answer of a mapping: a table line for each 1,024 entries, and few more.
const MOST_MAP_READS: u64 = 4096 + 8;
/// The most answers that are asked for.
const MOST_ANSWERS: usize = 300;
/// The most work that a survey gets, and the units of the file that it counts at once.
const MOST_ENTRIES: u64 = 100_000;
/// As how many entries it counts to read a piece of a table.
const LOAD: u64 = 2000;
const WINDOW: u32 = 64;

/// The most bytes that are read for the headers.
const MOST_HEADER_BYTES: u64 = 32 << 20;
/// The largest cluster, in bytes: what one piece inflates to at most.
const LARGEST_CLUSTER: u32 = 2 << 20;

/// Looks into `bytes` as each format that is read, maps the disk and checks it; whether there is a
/// disk. The source sees to it that nothing behind the end is read.
pub(crate) fn exercise(bytes: &[u8], claimed: Option<Format>) -> bool {
    let all = Reason::ALL.iter();
    let options = Options {
        claimed,
        allowed: all.fold(ReasonSet::EMPTY, |set, reason| set.with(*reason)),
        ..Options::default()
    };
    let mut source = Counting::new(bytes);
    let info = inspect(&mut source, &options).unwrap();
    assert!(source.reads < MOST_HEADER_READS, "{} reads", source.reads);
    let read = source.read_bytes;
    assert!(read < MOST_HEADER_BYTES, "{read} bytes");
    assert!(info.references.len() <= guest_formats::MOST_REFERENCES);
    for finding in info.findings.iter() {
        assert!(!finding.to_string().contains('\n'));
    }
    let opened = Image::open(&mut source, &options);
    // Nothing is safe that cannot be opened, whatever is allowed.
    let against = info.findings.first_except(options.allowed);
    assert_eq!(opened.is_ok(), against.is_none(), "{against:?}");
    let Ok((mut image, _)) = opened else {
        return false;
    };
    let size = image.virtual_size();
    let mut at = 0;
    for _ in 0..MOST_ANSWERS {
        if at >= size {
            break;
        }
        let before = source.reads;
        match image.map(&mut source, at) {
            Ok(mapping) => {
                assert!(mapping.length > 0 && mapping.length <= size - at);
                look_at(&mapping, bytes);
                at += mapping.length;
            }
            Err(Error::Refused(_)) => at += 65536,
            Err(error) => panic!("{error}"),
        }
        let reads = source.reads - before;
        assert!(reads <= MOST_MAP_READS, "{reads} reads for one answer");
    }
    let mut survey = Survey::new(&image, &source, WINDOW);
    let before = source.reads;
    survey.step(&mut image, &mut source, MOST_ENTRIES).unwrap();
    assert!(survey.seen() <= size);
    // A step ends with the entry that is one too many, whatever that costs.
    let most = MOST_ENTRIES + 8 * LOAD;
    assert!(survey.entries < most, "{}", survey.entries);
    // A piece of a table of a VHDX may have two sectors from its log.
    let reads = source.reads - before;
    assert!(reads <= 3 * (survey.entries / LOAD + 8), "{reads} reads");
    let outside = image.map(&mut source, size);
    assert_eq!(outside, Err(Error::Outside { offset: size }));
    if let Image::Qcow2(image) = image {
        check(&image, &mut source);
    }
    true
}

/// What a mapping names is in the file, and inflates to no more than a cluster.
fn look_at(mapping: &Mapping, bytes: &[u8]) {
    let ends_within = |offset: u64, length: u64| {
        let end = offset.checked_add(length);
        assert!(
            end.is_some_and(|end| end <= bytes.len() as u64),
            "{mapping:?}"
        );
    };
    match mapping.content {
        Content::Data { offset } | Content::Unwritten { offset } => {
            ends_within(offset, mapping.length)
        }
        Content::Zero | Content::Backing => {}
        Content::Compressed(compressed) => {
            let Compressed {
                offset,
                length,
                least,
                size,
                skip,
                ..
            } = compressed;
            ends_within(offset, length);
            assert!(length <= u64::from(size) * 2 + 512, "{mapping:?}");
            assert!(least <= size && size <= LARGEST_CLUSTER, "{mapping:?}");
            assert!(
                u64::from(skip) + mapping.length <= size.into(),
                "{mapping:?}"
            );
            let frame = &bytes[offset as usize..][..length as usize];
            if let Ok(payload) = compressed.payload(frame) {
                assert!(payload.start <= payload.end && payload.end <= frame.len());
            }
        }
    }
}

fn check(image: &Qcow2, source: &mut Counting<'_>) {
    let options = CheckOptions {
        window: 64,
        most_entries: 100_000,
    };
    let before = source.reads;
    let mut check = Check::new(image, source, &options);
    loop {
        match check.step(source) {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) => {
                assert_eq!(error.reason(), Some(Reason::TooMuchWork));
                break;
            }
        }
    }
    assert!(check.report().problems.len() <= 64);
    let reads = source.reads - before;
    let most = check.report().entries / LOAD + 8;
    assert!(reads <= most, "{reads} reads");
    let _ = image.snapshots(source, &mut |_| {});
}
