//! Any bytes, and good images with a few bytes changed: no parser panics, and each asks for a
//! bounded number of bytes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failure in a test is to panic"
)]

mod support;

use guest_formats::{Error, Image, Options, Reason, inspect};
use proptest::prelude::*;
use support::Counting;
use support::exercise::{FORMATS, exercise};
use support::mutate::{images, place, seal};

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
            static IMAGES: Vec<Vec<u8>> = images(true);
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
    for (index, bytes) in images(true).iter().enumerate() {
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
