//! Disks of several images, snapshots, and what an image may ask for.

use super::*;

/// An image of clusters of 4 KiB over one of 64 KiB, all compressed: only parts of most of those are
/// needed, of others all.
#[test]
fn of_a_compressed_cluster_of_a_backing_file_any_part_is_enough() {
    let mut base = Qcow2::new(16, &[Compressed; 6]).shorter(1000);
    base.disk = support::pattern(3, base.disk.len());
    for length in [base.disk.len(), 3 << 16] {
        // Compressed data of which only a hundredth is left, too, so that fetches are short.
        base.disk[..length].fill_with({
            let mut at = 0_u32;
            move || {
                at += 1;
                (at / 96 % 253) as u8 + 1
            }
        });
        for (index, starts) in [
            &[Zero][..],
            &[Data],
            &[Hole, Hole, Hole, Data, Hole, Zero],
            &[Hole; 1],
        ]
        .iter()
        .enumerate()
        {
            let mut puts = starts.to_vec();
            // The third and the fourth cluster begin in the image before it, and the last one begins or
            // ends there, or neither.
            puts.resize(32, Hole);
            puts.extend([Data, Data]);
            puts.resize(48, Hole);
            puts.push(Zero);
            puts.resize(96, Hole);
            if let Some(place) = [Some(95), Some(80), Some(95), None][index] {
                puts[place] = Data;
            }
            let mut top = Qcow2::new(12, &puts).shorter(1000);
            top.backing = Some("base");
            let (top, base_bytes) = (top.build().bytes, base.build().bytes);
            let options = support::allowing(&[Reason::BackingFile]);
            let mut image = support::open_with(&top, &options).unwrap();
            let expected = support::contents(&mut image, &top, Some(&base.disk)).unwrap();
            check(
                &[&top, &base_bytes],
                &expected,
                &format!("{index} of {length}"),
            );
        }
    }
}

#[test]
fn a_snapshot_is_read_if_there_is_one_of_its_name_and_nothing_else_if_not() {
    let mut image = Qcow2::new(12, &[Data, Hole, Compressed]);
    image.snapshots = vec![("7", "before")];
    let bytes = image.build().bytes;
    for name in [&b"7"[..], b"before"] {
        let setup = Setup {
            snapshot: name,
            ..Setup::default()
        };
        let run = setup.run(&[&bytes], |_| {});
        assert_eq!(run.outcome.result, Ok(Some(digest_of(&image.disk))));
    }
    let raw = support::pattern(1, 5000);
    for image in [&bytes, &raw] {
        let setup = Setup {
            snapshot: b"after",
            ..Setup::default()
        };
        let failure = setup.run(&[image], |_| {}).outcome.result.unwrap_err();
        assert_eq!((failure.op, failure.device), (Op::Refused, "input"));
        assert_eq!(failure.remedies, [""; 0]);
    }
    // It is the input's, whatever the backing file has.
    let mut top = Qcow2::new(12, &[Hole; 3]);
    top.backing = Some("base");
    top.snapshots = vec![("8", "later")];
    let setup = Setup {
        snapshot: b"later",
        ..Setup::default()
    };
    let run = setup.run(&[&top.build().bytes, &bytes], |_| {});
    assert_eq!(run.outcome.result, Ok(Some(digest_of(&image.disk))));
}

#[test]
fn all_that_has_to_be_allowed_is_named_at_once_and_nothing_that_does_not_help() {
    let mut image = Qcow2::new(12, &[Data]);
    image.backing = Some("base");
    image.incompatible = 1;
    let bytes = image.build().bytes;
    let remedies = |bytes: &[u8], allowed: &[Reason]| {
        let all = allowed
            .iter()
            .fold(ReasonSet::EMPTY, |set, reason| set.with(*reason));
        let setup = Setup {
            allowed: all,
            ..Setup::default()
        };
        setup
            .run(&[bytes], |_| {})
            .outcome
            .result
            .map_err(|failure| {
                assert_eq!((failure.op, failure.device), (Op::Refused, "input"));
                let mut names = failure.remedies;
                names.sort_unstable();
                names
            })
    };
    let both = ["backing-file", "marked-dirty"];
    assert_eq!(remedies(&bytes, &[]), Err(both.to_vec()));
    assert_eq!(
        remedies(&bytes, &[Reason::BackingFile]),
        Err(both[1..].to_vec())
    );
    assert_eq!(
        remedies(&bytes, &[Reason::DirtyBit]),
        Err(both[..1].to_vec())
    );
    // Nothing helps an image that has something else besides.
    let mut encrypted = bytes.clone();
    encrypted[35] = 1;
    assert_eq!(remedies(&encrypted, &[]), Err(Vec::new()));
    // What is found first may have nothing to do with what can be allowed.
    let mut unknown = bytes;
    unknown[72] = 0x80;
    assert_eq!(remedies(&unknown, &[]), Err(Vec::new()));
}

#[test]
fn a_backing_file_has_the_format_that_the_image_says() {
    let mut top = Qcow2::new(12, &[Hole, Data]);
    top.backing = Some("base");
    let mut bytes = top.build().bytes;
    // The name moves behind an extension with the format.
    let base = support::pattern(5, 4096);
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(8, &144_u64.to_be_bytes());
    put(112, &0xe279_2aca_u32.to_be_bytes());
    put(136, &[0; 8]);
    put(144, b"base");
    let mut told = |format: &str, base: &[u8]| {
        bytes[116..120].copy_from_slice(&(format.len() as u32).to_be_bytes());
        bytes[120..136].fill(0);
        bytes[120..120 + format.len()].copy_from_slice(format.as_bytes());
        let setup = Setup {
            allowed: ReasonSet::EMPTY,
            ..Setup::default()
        };
        setup.run(&[&bytes, base], |_| {}).outcome.result
    };
    // A guest can write the header of an image into its own raw disk.
    let disguised = Qcow2::new(12, &[Data]).build().bytes;
    assert!(told("qcow2", &disguised).is_ok());
    for format in ["raw", "file", "host_device"] {
        assert!(told(format, &base).is_ok(), "{format}");
        let failure = told(format, &disguised).unwrap_err();
        let refused = (failure.op, failure.device, &*failure.remedies);
        assert_eq!(
            refused,
            (Op::Refused, "backing", &["other-format"][..]),
            "{format}"
        );
    }
    // Such bytes may be anything if nothing is said of them.
    for (format, device) in [("qcow2", "backing"), ("", "input"), ("nbd", "input")] {
        let failure = told(format, &base).unwrap_err();
        let refused = (failure.op, failure.device);
        assert_eq!(refused, (Op::Refused, device), "{format}");
    }
}

#[test]
fn a_vmdk_is_read_over_the_parent_whose_content_id_it_names_and_over_no_other() {
    let base = Vmdk::new(false, &[Data, Data], 65536, 131_072);
    let mut top = Vmdk::new(false, &[Hole, Data], 65536, 131_072);
    top.descriptor = top.descriptor.replace("=ffffffff", "=FFFFFFFE");
    top.descriptor.push_str("parentFileNameHint=\"base\"\n");
    let expected = [&base.disk[..65536], &top.disk[65536..]].concat();
    let top = top.build();
    check_raw(&[&top, &base.build()], &expected, "its parent");
    let mut changed = Vmdk::new(false, &[Data, Data], 65536, 131_072);
    changed.descriptor = changed.descriptor.replace("CID=fffffffe", "CID=1");
    let mut unnamed = Vmdk::new(false, &[Data, Data], 65536, 131_072);
    unnamed.descriptor = unnamed.descriptor.replace("\nCID=fffffffe", "");
    for other in [changed.build(), unnamed.build(), base.disk] {
        let failure = run(&[&top, &other], true, 1, |_| {});
        let failure = failure.outcome.result.unwrap_err();
        assert_eq!((failure.op, failure.device), (Op::Refused, "backing"));
        assert!(failure.detail.contains("parentCID"), "{failure:?}");
    }
}

#[test]
fn a_backing_file_that_nothing_refers_to_is_told() {
    let image = Qcow2::new(12, &[Data]).build().bytes;
    let failure = run(&[&image, &image], true, 1, |_| {})
        .outcome
        .result
        .unwrap_err();
    assert_eq!((failure.op, failure.device), (Op::Refused, "input"));
}

/// The cluster is inflated once for all of its pieces, and counts as read once.
#[test]
fn a_compressed_cluster_may_be_needed_in_any_number_of_pieces() {
    let mut base = Qcow2::new(19, &[Compressed]);
    base.disk[..1 << 18].copy_from_slice(&support::pattern(4, 1 << 18));
    let base_bytes = base.build().bytes;
    let mut top = Qcow2::new(9, &[Data, Hole].repeat(512));
    top.backing = Some("base");
    let top_bytes = top.build().bytes;
    // What would be read if each of the pieces counted is more than may be.
    assert!(512 * (1 << 18) > 8 * base_bytes.len());
    let mut expected = base.disk;
    for start in (0..1 << 19).step_by(1024) {
        expected[start..start + 512].copy_from_slice(&top.disk[start..start + 512]);
    }
    check_raw(&[&top_bytes, &base_bytes], &expected, "pieces");
}

/// A few bytes that are to be a whole disk: the work that they ask for has a limit, also if only
/// pieces of a cluster are needed.
#[test]
fn an_image_may_show_the_same_bytes_at_some_places_and_not_at_any_number() {
    let mut top = Qcow2::new(9, &[Hole, Hole, Zero, Hole].repeat(1024));
    top.backing = Some("base");
    let top = top.build().bytes;
    for (put, in_pieces) in [(Data, false), (Compressed, false), (Compressed, true)] {
        let mut puts = vec![Hole; 512];
        puts[0] = put;
        let image = Qcow2::new(12, &puts);
        let built = image.build();
        let shown = |times: usize| {
            let mut bytes = built.bytes.clone();
            let entry = built.first_l2..built.first_l2 + 8;
            for index in 1..times {
                bytes.copy_within(entry.clone(), entry.start + 8 * index);
            }
            let files: &[&[u8]] = if in_pieces {
                &[&top, &bytes]
            } else {
                &[&bytes]
            };
            run(files, true, 1, |_| {}).outcome.result
        };
        let mut expected = image.disk[..4096].to_vec();
        if in_pieces {
            expected
                .chunks_exact_mut(2048)
                .for_each(|chunk| chunk[1024..1536].fill(0));
        }
        let mut expected = expected.repeat(250);
        expected.resize(image.disk.len(), 0);
        assert_eq!(shown(250), Ok(Some(digest_of(&expected))));
        let failure = shown(270).unwrap_err();
        let device = if in_pieces { "backing" } else { "input" };
        assert_eq!((failure.op, failure.device), (Op::Refused, device));
        assert!(failure.detail.contains("work"), "{failure:?}");
        assert_eq!(failure.remedies, [""; 0]);
    }
}
