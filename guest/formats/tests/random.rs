//! Any bytes, and good images with a few bytes changed: no parser panics, and each asks for a
//! bounded number of bytes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failure in a test is to panic"
)]

mod support;

use guest_formats::{Error, Format, Image, Options, Reason, inspect};
use proptest::prelude::*;
use support::Put::{Compressed, Data, Hole, Zero, ZeroAllocated};
use support::exercise::exercise;
use support::vhd::Vhd;
use support::vhdx::Vhdx;
use support::vmdk::Vmdk;
use support::{Counting, vdi};

const FORMATS: [Option<Format>; 8] = [
    None,
    Some(Format::Raw),
    Some(Format::Qcow2),
    Some(Format::Vmdk),
    Some(Format::Vhd),
    Some(Format::Vhdx),
    Some(Format::Vdi),
    Some(Format::Qed),
];

/// Good images, each with the places that are worth changing.
fn images() -> Vec<Vec<u8>> {
    let puts = [Data, Compressed, Hole, Zero, ZeroAllocated, Data];
    let qcow2 = |bits, extended: bool| {
        let mut image = support::qcow2::Qcow2::new(bits, &puts);
        image.extended = extended;
        image.snapshots = vec![("1", "one")];
        image.backing = Some("base");
        image.build().bytes
    };
    let mut log = Vhdx::new(&[Data, Hole], 1 << 20, 2 << 20);
    log.bat_in_log = true;
    vec![
        qcow2(9, false),
        qcow2(12, false),
        qcow2(14, true),
        Vhd::new(false, &[Data, Hole, Data], 4096, 12_288).build(),
        Vhd::new(true, &[Data], 4096, 4096).build(),
        vdi::build(false, &[Data, Zero, Hole], 4096, 12_288),
        Vmdk::new(false, &[Data, Hole, Zero], 4096, 12_288).build(),
        Vmdk::new(true, &[Data, Hole, Zero], 4096, 12_288).build(),
        Vhdx::new(&[Data, Hole], 1 << 20, 2 << 20).build(),
        log.build(),
    ]
}

/// A place in an image: mostly one where a table or a header is.
fn place(at: u32, kind: u8, length: usize) -> usize {
    const TABLES: [usize; 9] = [
        0,
        1 << 16,
        192 << 10,
        1 << 20,
        (1 << 20) + 8192,
        2 << 20,
        (2 << 20) + (64 << 10),
        3 << 20,
        4096,
    ];
    let at = at as usize;
    match kind % 12 {
        table @ 0..=8 => (TABLES[usize::from(table)] + at % 256) % length,
        9 => length - 1 - at % length.min(1536),
        10 => at % length.min(8192),
        _ => at % length,
    }
}

/// Makes the checksums right again, so that the change is seen.
fn seal(bytes: &mut Vec<u8>) {
    if bytes.starts_with(b"vhdxfile") {
        for (at, length) in [(64 << 10, 4096), (128 << 10, 4096), (192 << 10, 64 << 10)] {
            support::vhdx::seal(bytes, at, length);
        }
        for at in [1 << 20, (1 << 20) + 8192] {
            if bytes[at..].starts_with(b"loge") {
                support::vhdx::seal(bytes, at, 8192);
            }
        }
    }
    let end = bytes.len() - 512;
    for at in [0, end] {
        if bytes[at..].starts_with(b"conectix") {
            let mut footer = bytes[at..at + 512].to_vec();
            support::vhd::seal(&mut footer, 64);
            bytes[at..at + 512].copy_from_slice(&footer);
        }
    }
    if bytes
        .get(512..)
        .is_some_and(|rest| rest.starts_with(b"cxsparse"))
    {
        let mut header = bytes[512..1536].to_vec();
        support::vhd::seal(&mut header, 36);
        bytes[512..1536].copy_from_slice(&header);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_bytes_behind_any_signature_are_taken_for_no_more_than_they_are(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..6000),
        magic in 0..6_usize,
        claimed in 0..FORMATS.len(),
        small in any::<bool>(),
    ) {
        let magic: &[u8] = [
            &b""[..], b"QFI\xfb\0\0\0\x03", b"KDMV\x01\0\0\0", b"conectix", b"vhdxfile",
            b"# Disk DescriptorFile\n",
        ][magic];
        if small {
            // Small numbers get further than large ones.
            bytes.iter_mut().for_each(|byte| *byte &= 0x11);
        }
        let length = magic.len().min(bytes.len());
        bytes[..length].copy_from_slice(&magic[..length]);
        exercise(&bytes, FORMATS[claimed]);
    }

    #[test]
    fn good_images_with_a_few_bytes_changed_are_read_or_refused(
        image in 0..10_usize,
        changes in proptest::collection::vec((any::<u32>(), any::<u8>(), any::<u8>()), 1..8),
        sealed in any::<bool>(),
        cut in proptest::option::weighted(0.1, any::<u32>()),
    ) {
        thread_local! {
            static IMAGES: Vec<Vec<u8>> = images();
        }
        let mut bytes = IMAGES.with(|images| images[image].clone());
        for (at, kind, value) in changes {
            let at = place(at, kind, bytes.len());
            bytes[at] = value;
        }
        if sealed {
            seal(&mut bytes);
        }
        if let Some(cut) = cut {
            bytes.truncate(cut as usize % bytes.len());
        }
        exercise(&bytes, None);
    }
}

#[test]
fn good_images_are_read_without_a_word() {
    for (index, bytes) in images().iter().enumerate() {
        let mut source = Counting::new(bytes);
        let options = support::allowing(&[Reason::BackingFile]);
        assert!(Image::open(&mut source, &options).is_ok(), "image {index}");
        exercise(bytes, None);
    }
}

#[test]
fn a_source_that_fails_is_no_fault_of_the_image() {
    use guest_formats::{ReadAt, ReadError};
    struct Failing;
    impl ReadAt for Failing {
        fn size(&self) -> u64 {
            1 << 20
        }
        fn read_at(&mut self, _: u64, _: &mut [u8]) -> Result<(), ReadError> {
            Err(ReadError)
        }
    }
    let result = inspect(&mut Failing, &Options::default());
    assert_eq!(result, Err(Error::Read { offset: 0 }));
}
