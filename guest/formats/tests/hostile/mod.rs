//! Images that lie, for several test binaries: the parsers' own, and those of the whole VM. Each has
//! its own `judge`, which holds one image against the reason for which it is to be refused, and
//! `judge_check`, for what only a check of the tables can find.

mod bitmaps;
mod known;
mod overlaps;
mod polyglots;
mod qcow2;
mod qcow2_tables;
mod vdi;
mod vhd;
mod vhdx;
mod vhdx_log;
mod vmdk;

use guest_formats::{Content, Image, Mapping, Options, ReadAt, ReadError, Reason, Survey, inspect};

use super::{judge, judge_check};

/// A change to an image, and the reason for which it is refused then.
type Case = (&'static str, fn(&mut Vec<u8>), Reason);

/// Each case, applied to `good`, is refused; `good` itself is not.
fn judge_all(good: &[u8], cases: &[Case]) {
    judge("the good image", good, &Options::default(), None);
    for (name, change, reason) in cases {
        let bytes = spoilt(good, change);
        judge(name, &bytes, &Options::default(), Some(*reason));
    }
}

/// `bytes` after `change`.
pub(crate) fn spoilt(bytes: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    change(&mut bytes);
    bytes
}

/// A file of any length: some bytes, and the same byte from there on.
struct Endless<'a> {
    start: &'a [u8],
    rest: u8,
    size: u64,
}

impl ReadAt for Endless<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        for (at, byte) in (offset..).zip(buffer) {
            let stored = self.start.get(at as usize);
            *byte = stored.copied().unwrap_or(self.rest);
        }
        Ok(())
    }
}

/// The survey of an image whose headers let it be read.
fn surveyed(source: &mut dyn ReadAt) -> Survey {
    let (mut image, _) = Image::open(source, &Options::default()).unwrap();
    let mut survey = Survey::new(&image, source, 1 << 16);
    while !survey.step(&mut image, source, 1000).unwrap() {}
    survey
}

/// All reasons that the parsers have against an image: those of its headers, and if these let it be
/// read, the first of its tables.
pub(crate) fn reasons(mut bytes: &[u8], options: &Options) -> Vec<Reason> {
    let info = inspect(&mut bytes, options).unwrap();
    let mut reasons: Vec<_> = info.findings.iter().map(|finding| finding.reason).collect();
    let opened = Image::open(&mut bytes, options);
    let counts =
        |reason: &&Reason| !(options.allowed.contains(**reason) && reason.may_be_allowed());
    assert_eq!(
        opened.is_err(),
        reasons.iter().any(|reason| counts(&reason))
    );
    let Ok((mut image, _)) = opened else {
        return reasons;
    };
    let mut at = 0;
    for _ in 0..5000 {
        if at >= image.virtual_size() {
            break;
        }
        let mapped = image.map(&mut bytes, at).and_then(|mapping| {
            if let Content::Unwritten { offset } = mapping.content {
                let end = offset + mapping.length;
                Mapping::unwritten(offset, &bytes[offset as usize..end as usize])?;
            }
            Ok(mapping)
        });
        match mapped {
            Ok(mapping) => {
                assert!(mapping.length > 0);
                at += mapping.length;
            }
            Err(error) => {
                reasons.push(error.reason().unwrap());
                break;
            }
        }
    }
    reasons
}
