//! Zeros that are declared and not written, and the length of the output.

use super::devices::LoopDevice;
use super::*;

const MIB: u64 = 1 << 20;

/// An output of `length` bytes that is an unnamed or a hidden file until it is complete.
fn output(length: u64, naming: Naming) -> (Setup, OutputFile) {
    let mut setup = Setup::new(0);
    let input = setup.path("long input");
    fs::File::create(&input).unwrap().set_len(length).unwrap();
    setup.input = InputFile::open(&input, false).unwrap();
    fs::remove_file(input).unwrap();
    let output = setup.create_named("copy", naming);
    (setup, output)
}

#[test]
fn a_new_file_of_zeros_has_its_length_and_takes_no_room() {
    for naming in BOTH {
        let (setup, output) = output(8 << 40, naming);
        output.write_zeroes(0, 8 << 40, true).unwrap();
        assert_eq!(output.bytes_written(), 8 << 40);
        output.commit().unwrap();
        let stored = fs::metadata(setup.path("copy")).unwrap();
        assert_eq!((stored.len(), stored.blocks()), (8 << 40, 0));
    }
}

#[test]
fn zeros_count_as_written_in_any_order_and_nothing_else_does() {
    let (_setup, output) = output(MIB + 100, Naming::Unnamed);
    output.write_zeroes(4096, 512, true).unwrap();
    write(&output, 0, &[7; 4096]).unwrap();
    let error = output.commit().unwrap_err();
    assert!(
        matches!(error, FileError::Incomplete { offset: 4608, .. }),
        "{error}"
    );

    let (setup, output) = self::output(MIB + 100, Naming::Unnamed);
    output.write_zeroes(512 << 10, 2 * MIB, true).unwrap();
    write(&output, 0, &[7; 4096]).unwrap();
    output.write_zeroes(4096, 512 << 10, true).unwrap();
    output.commit().unwrap();
    let stored = fs::read(setup.path("copy")).unwrap();
    assert_eq!(stored.len() as u64, MIB + 100);
    assert!(stored[..4096].iter().all(|byte| *byte == 7));
    assert!(stored[4096..].iter().all(|byte| *byte == 0));
}

#[test]
fn what_was_written_before_becomes_zero() {
    for unmap in [false, true] {
        let (setup, output) = output(MIB, Naming::Unnamed);
        write(&output, 0, &vec![7; 1 << 20]).unwrap();
        output.write_zeroes(1000, 100_000, unmap).unwrap();
        output.commit().unwrap();
        let stored = fs::read(setup.path("copy")).unwrap();
        for (at, byte) in stored.iter().enumerate() {
            let expected = if (1000..101_000).contains(&at) { 0 } else { 7 };
            assert_eq!(*byte, expected, "byte {at}");
        }
    }
}

#[test]
fn what_a_failed_write_may_have_stored_becomes_zero() {
    let (setup, output) = output(MIB, Naming::Unnamed);
    // A write that fails need not tell of all that it has stored.
    let stored = rustix::io::pwrite(&output.file, &[7; 8192], 4096).unwrap();
    assert_eq!(stored, 8192);
    output.length.store(u64::MAX, Ordering::SeqCst);
    write(&output, 1 << 63, &[7; 512]).unwrap_err();
    output.declare_length(MIB).unwrap();
    output.write_zeroes(0, MIB, true).unwrap();
    output.commit().unwrap();
    let stored = fs::read(setup.path("copy")).unwrap();
    assert!(stored.iter().all(|byte| *byte == 0));
}

#[test]
fn a_discard_counts_as_nothing() {
    let (_setup, output) = output(MIB, Naming::Unnamed);
    Storage::discard(&output, 0, MIB).unwrap();
    assert_eq!(output.bytes_written(), 0);
    assert!(output.commit().is_err());
}

#[test]
fn what_is_discarded_after_it_was_written_has_to_be_written_again() {
    // Whole blocks, whose room is given back, and what is none, which stays there.
    for (offset, length) in [(4096, 8192), (512, 512), (0, MIB)] {
        let discarded = || {
            let (setup, output) = output(MIB, Naming::Unnamed);
            write(&output, 0, &vec![7; 1 << 20]).unwrap();
            Storage::discard(&output, offset, length).unwrap();
            assert_eq!(output.bytes_written(), MIB - length);
            (setup, output)
        };
        let (_setup, output) = discarded();
        let error = output.commit().unwrap_err();
        assert!(
            matches!(error, FileError::Incomplete { offset: missing, .. } if missing == offset),
            "{error}"
        );
        // Zeros that are declared there are zeros, whatever the discard has left.
        let (setup, output) = discarded();
        output.write_zeroes(offset, length, true).unwrap();
        output.commit().unwrap();
        for (at, byte) in (0..).zip(fs::read(setup.path("copy")).unwrap()) {
            let expected = if (offset..offset + length).contains(&at) {
                0
            } else {
                7
            };
            assert_eq!(byte, expected, "byte {at}");
        }
    }
}

#[test]
fn a_discard_gives_back_the_room_of_what_was_written() {
    let (_setup, output) = output(1 << 20, Naming::Unnamed);
    write(&output, 0, &vec![7; 1 << 20]).unwrap();
    let blocks = || fstat(&output.file).unwrap().st_blocks;
    assert!(blocks() >= 2048);
    Storage::discard(&output, 0, 1 << 20).unwrap();
    assert_eq!(blocks(), 0);
}

#[test]
fn what_is_in_place_takes_neither_zeros_nor_discards() {
    let (_setup, output) = output(4096, Naming::Unnamed);
    output.write_zeroes(0, 4096, true).unwrap();
    output.commit().unwrap();
    assert!(output.write_zeroes(0, 512, true).is_err());
    assert!(Storage::discard(&output, 0, 512).is_err());
}

#[test]
fn a_block_device_gets_zeros_where_they_were_declared_and_nowhere_else() {
    for (start, end) in [(0, 65_536), (512, 5000), (4096, 40_000), (1000, 1001)] {
        for unmap in [false, true] {
            let setup = Setup::new(60_000);
            let Some(device) = LoopDevice::new(&[0xaa; 65_536]) else {
                return;
            };
            let options = OutputOptions::default();
            let output = OutputFile::create(&device.path, &setup.input, options).unwrap();
            output.write_zeroes(start, end - start, unmap).unwrap();
            drop(output);
            // Past the end of the input the device is not touched.
            let zeroed = start..end.min(60_000);
            for (at, byte) in (0_u64..).zip(fs::read(&device.path).unwrap()) {
                let expected = if zeroed.contains(&at) { 0 } else { 0xaa };
                assert_eq!(byte, expected, "byte {at}");
            }
        }
    }
}

#[test]
fn a_block_device_in_use_is_refused_unless_that_is_forced() {
    let setup = Setup::new(1000);
    let Some(device) = LoopDevice::new(&[0; 4096]) else {
        return;
    };
    let options = OutputOptions::default();
    let first = OutputFile::create(&device.path, &setup.input, options).unwrap();
    let error = OutputFile::create(&device.path, &setup.input, options).unwrap_err();
    assert!(error.to_string().contains("--force"), "{error}");
    let forced = OutputOptions {
        force: true,
        ..options
    };
    OutputFile::create(&device.path, &setup.input, forced).unwrap();
    drop(first);
}

#[test]
fn a_length_is_checked_against_the_limit_and_the_device() {
    let setup = Setup::new(5000);
    let limited = |most, open_ended| OutputOptions {
        max_length: Some(most),
        open_ended,
        ..OutputOptions::default()
    };
    let create = |most, open_ended| {
        OutputFile::create(&setup.path("copy"), &setup.input, limited(most, open_ended))
    };
    let too_long = create(4999, false).unwrap_err().to_string();
    assert!(
        too_long.contains("5000 bytes, more than the 4999"),
        "{too_long}"
    );
    assert!(setup.names().is_empty());

    let output = create(9000, true).unwrap();
    assert!(output.declare_length(9001).is_err());
    output.declare_length(9000).unwrap();
    output.declare_length(700).unwrap();
    write(&output, 0, &[7; 1024]).unwrap();
    output.commit().unwrap();
    assert_eq!(fs::read(setup.path("copy")).unwrap(), [7; 700]);

    if let Some(device) = LoopDevice::new(&[0; 8192]) {
        let output = OutputFile::create(&device.path, &setup.input, limited(9000, true)).unwrap();
        output.declare_length(8192).unwrap();
        assert!(output.declare_length(8193).is_err());
    }
}
