//! Compressed data that lies, through the whole machine: the codecs are written in C, and run in the
//! guest alone. Whatever a stream says, the conversion is refused or its disk is right, in bounded time
//! and memory, and the VMM ends as it always does.

use guest_formats::Options;

use crate::common::{Finished, needs_kvm, test};
use crate::support::Put::{Compressed, Data, Hole};
use crate::support::bytes::{be64, le32, put};
use crate::support::qcow2::Qcow2;
use crate::support::vmdk::Vmdk;
use crate::support::{disk, pattern, zstd};
use crate::{Conversion, assert_same, read};

/// The longest that one image may take on processors.
const LONGEST: std::time::Duration = std::time::Duration::from_secs(2);

/// How an image of one codec is made, with the stream of its first cluster in a place of its own at
/// the end of the file.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Deflate,
    Zlib,
    Zstd,
}

const KINDS: [Kind; 3] = [Kind::Deflate, Kind::Zlib, Kind::Zstd];

/// An image whose only cluster or grain, of `1 << bits` bytes, is this stream.
fn image(kind: Kind, bits: u32, stream: &[u8]) -> Vec<u8> {
    let size = 1_usize << bits;
    if let Kind::Zlib = kind {
        let mut bytes = Vmdk::new(true, &[Data, Hole], size, 2 * size).build();
        // The first grain, and behind it all that the writer has put there.
        let grain = 128 * 512;
        let room = stream.len().max(size * 2) + 512;
        let tail = bytes.split_off(grain);
        let old = u32::from_le_bytes(tail[8..12].try_into().unwrap()) as usize;
        let behind = (12 + old).next_multiple_of(512);
        let shift = room.next_multiple_of(512) - behind;
        bytes.extend(&tail[..12]);
        le32(&mut bytes, grain + 8, stream.len() as u32);
        bytes.extend(stream);
        bytes.resize(grain + behind + shift, 0);
        bytes.extend(&tail[behind..]);
        // The tables have moved, and the grain has not: the directory's entry, and the footer's.
        let sectors = (shift / 512) as u32;
        let footer = bytes.len() - 1024;
        let directory = u64::from_le_bytes(bytes[footer + 56..footer + 64].try_into().unwrap());
        let moved = directory as u32 + sectors;
        le32(&mut bytes, footer + 56, moved);
        let at = moved as usize * 512;
        let table = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        le32(&mut bytes, at, table + sectors);
        return bytes;
    }
    let mut image = Qcow2::new(bits, &[Compressed, Hole]);
    image.zstd = matches!(kind, Kind::Zstd);
    let built = image.build();
    let mut bytes = built.bytes;
    let at = bytes.len().next_multiple_of(512);
    put(&mut bytes, at, stream);
    bytes.resize(bytes.len().next_multiple_of(512) + 512, 0);
    // "Compressed Clusters Descriptor" in qcow2.txt: the offset, and sectors behind the first.
    let shift = 62 - (bits - 8);
    let most = (1_u64 << (bits - 8)) - 1;
    let sectors = (stream.len() as u64)
        .div_ceil(512)
        .saturating_sub(1)
        .min(most);
    be64(
        &mut bytes,
        built.first_l2,
        1 << 62 | sectors << shift | at as u64,
    );
    bytes
}

/// A stream that inflates to `data`.
fn compress(kind: Kind, data: &[u8]) -> Vec<u8> {
    match kind {
        Kind::Deflate => miniz_oxide::deflate::compress_to_vec(data, 6),
        Kind::Zlib => miniz_oxide::deflate::compress_to_vec_zlib(data, 6),
        Kind::Zstd => zstd(data),
    }
}

/// Text and noise: what compresses, though not to nothing.
fn content(len: usize) -> Vec<u8> {
    let noise = pattern(7, len);
    (0..len)
        .map(|at| {
            if at / 64 % 3 == 0 {
                noise[at]
            } else {
                (at / 64) as u8
            }
        })
        .collect()
}

/// Converts the image: its disk begins with `expected` if there is one, or it is refused as broken.
/// What is neither is a fault of ours.
fn judge(name: &str, bytes: &[u8], expected: Option<&[u8]>) -> Finished {
    let conversion = Conversion::of(bytes);
    let finished = conversion.run();
    assert!(finished.cpu < LONGEST, "{name}: {:?}", finished.cpu);
    match finished.code() {
        Some(0) => {
            let disk = read(&conversion.disk());
            if let Some(expected) = expected {
                assert_same(&disk[..expected.len()], expected, name);
            }
        }
        code => {
            assert_eq!(code, Some(6), "{name}: {}", finished.stderr);
            let known = ["bad-compressed-data: ", "bad-marker: "];
            let said = &finished.stderr;
            assert!(
                known.iter().any(|known| said.contains(known)),
                "{name}: {said}"
            );
            assert_eq!(said.lines().count(), 1, "{name}: {said}");
        }
    }
    finished
}

/// Both ways to inflate: at once, and what is too large for that in pieces.
const SIZES: [u32; 3] = [12, 16, 21];

#[test]
fn streams_that_are_whole_are_inflated() {
    needs_kvm!();
    for kind in KINDS {
        for bits in SIZES {
            let data = content(1 << bits);
            let name = format!("{kind:?}, {bits} bits");
            let bytes = image(kind, bits, &compress(kind, &data));
            let finished = judge(&name, &bytes, Some(&data));
            assert_eq!(finished.code(), Some(0), "{name}: {}", finished.stderr);
        }
    }
}

#[test]
fn streams_that_are_cut_or_make_too_little_are_refused() {
    needs_kvm!();
    for kind in KINDS {
        for bits in SIZES {
            let data = content(1 << bits);
            let stream = compress(kind, &data);
            for length in [1, 2, 5, stream.len() / 2, stream.len() - 600] {
                let name = format!("{kind:?}, {bits} bits, cut to {length}");
                let finished = judge(&name, &image(kind, bits, &stream[..length]), None);
                assert_eq!(finished.code(), Some(6), "{name}");
            }
            for length in [1, data.len() / 2, data.len() - 1] {
                let name = format!("{kind:?}, {bits} bits, of {length} bytes");
                let less = compress(kind, &data[..length]);
                assert_eq!(
                    judge(&name, &image(kind, bits, &less), None).code(),
                    Some(6),
                    "{name}"
                );
            }
        }
    }
}

/// What would make 64 MiB of a cluster of 4 KiB: it ends where the cluster does.
#[test]
fn bombs_end_with_their_cluster() {
    needs_kvm!();
    let bomb = vec![b'A'; 64 << 20];
    // An RLE block makes 128 KiB of four bytes (RFC 8878, section 3.1.1.2), and a window may be said
    // to have 2^41 bytes (section 3.1.1.1.2).
    let mut blocks = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8];
    for _ in 0..512 {
        blocks.extend([0x02, 0x00, 0x10, b'A']);
    }
    // A content size of 2^63 bytes, and a frame that is to be skipped and has 4 GiB.
    let mut claim = vec![0x28, 0xb5, 0x2f, 0xfd, 0xe0];
    claim.extend((1_u64 << 63).to_le_bytes());
    claim.extend([0x03, 0x00, 0x10, b'A']);
    let mut skipped = vec![0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff];
    skipped.extend([0; 600]);
    // As many empty frames as there is room for.
    let empty = [0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x00, 0x01, 0x00, 0x00].repeat(400);
    for bits in [12, 16] {
        for (name, kind, stream) in [
            ("a bomb", Kind::Deflate, compress(Kind::Deflate, &bomb)),
            ("a bomb", Kind::Zlib, compress(Kind::Zlib, &bomb)),
            ("blocks that repeat a byte", Kind::Zstd, blocks.clone()),
            ("a size of 2^63", Kind::Zstd, claim.clone()),
            ("a frame to be skipped", Kind::Zstd, skipped.clone()),
            ("empty frames", Kind::Zstd, empty.clone()),
        ] {
            let name = format!("{kind:?}, {bits} bits: {name}");
            let finished = judge(&name, &image(kind, bits, &stream), None);
            assert_eq!(finished.code(), Some(6), "{name}: {}", finished.stderr);
        }
    }
}

#[test]
fn checksums_and_dictionaries_that_do_not_fit_are_refused() {
    needs_kvm!();
    let data = content(65536);
    let good = compress(Kind::Zlib, &data);
    // Adler-32 is at the end, the header at the start (RFC 1950): another method, a window that is too
    // large, a dictionary that nobody has.
    let last = good.len() - 1;
    let header = |first: u8, second: u8| {
        let mut stream = good.clone();
        stream[0] = first;
        stream[1] = second - ((u16::from(first) * 256 + u16::from(second)) % 31) as u8;
        stream
    };
    let mut wrong = good.clone();
    wrong[last] ^= 1;
    for (name, stream) in [
        ("a wrong checksum", wrong),
        ("method 9", header(0x79, 0x9f)),
        ("a window of 64 KiB", header(0x88, 0x9f)),
        ("a dictionary", header(0x78, 0xbf)),
    ] {
        let finished = judge(name, &image(Kind::Zlib, 16, &stream), None);
        assert_eq!(finished.code(), Some(6), "{name}: {}", finished.stderr);
    }
    // A frame of Zstandard may name a dictionary, and end with a checksum (RFC 8878, section 3.1.1).
    let mut dictionary = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa1, 77];
    dictionary.extend(65536_u32.to_le_bytes());
    dictionary.extend(&zstd(&data)[9..]);
    let mut checksum = zstd(&data);
    checksum[4] |= 4;
    checksum.extend([1, 2, 3, 4]);
    for (name, stream) in [("a dictionary", dictionary), ("a wrong checksum", checksum)] {
        let finished = judge(name, &image(Kind::Zstd, 16, &stream), None);
        assert_eq!(
            finished.code(),
            Some(6),
            "zstd: {name}: {}",
            finished.stderr
        );
    }
}

#[test]
fn streams_with_a_few_bytes_changed_are_refused_or_inflated_as_others_do_it() {
    needs_kvm!();
    for (number, kind) in KINDS.into_iter().enumerate() {
        let mut whole = 0;
        for bits in [12, 16, 18] {
            let data = content(1 << bits);
            let good = compress(kind, &data);
            for round in 0..12_usize {
                let noise = pattern((number * 1000 + bits as usize * 20 + round) as u64, 32);
                let mut stream = good.clone();
                for change in noise.chunks_exact(8).take(1 + round % 4) {
                    let at = u32::from_le_bytes(change[..4].try_into().unwrap()) as usize;
                    // Headers and the first table decide the most.
                    let within = if round % 2 == 0 { 64 } else { stream.len() };
                    stream[at % within] ^= change[4] | 1;
                }
                let name = format!("{kind:?}, {bits} bits, round {round}");
                let bytes = image(kind, bits, &stream);
                // What other decoders make of it, in Rust: miniz_oxide and ruzstd.
                let expected = disk(&bytes, &Options::default()).ok();
                let finished = judge(&name, &bytes, expected.as_deref());
                let is_whole = finished.code() == Some(0);
                // ruzstd takes frames that libzstd refuses.
                let is_stricter = matches!(kind, Kind::Zstd) && !is_whole;
                let agree = is_whole == expected.is_some() || is_stricter;
                assert!(agree, "{name}: {finished:?}");
                whole += u32::from(is_whole);
            }
        }
        // The checksum of zlib tells every change.
        let some = matches!(kind, Kind::Zlib) || whole > 0;
        assert!(some, "{kind:?}: none of 36 streams is whole all the same");
    }
}
