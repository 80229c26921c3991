//! Both ways to inflate, with whole streams and with ones that lie.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use guest_formats::{Compressed, Marker};
use miniz_oxide::deflate::{compress_to_vec, compress_to_vec_zlib};

use super::*;

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * i / 300 % 251) as u8).collect()
}

fn compress(codec: Codec, bytes: &[u8]) -> Vec<u8> {
    match codec {
        Codec::Deflate => compress_to_vec(bytes, 6),
        Codec::Zlib => compress_to_vec_zlib(bytes, 6),
        Codec::Zstd => {
            let mut out = vec![0; zstd_safe::compress_bound(bytes.len())];
            let len = zstd_safe::compress(&mut out[..], bytes, 3).unwrap();
            out.truncate(len);
            out
        }
    }
}

fn cluster(codec: Codec, size: usize) -> Compressed {
    Compressed {
        offset: 0,
        length: 0,
        codec,
        least: size as u32,
        size: size as u32,
        skip: 0,
        marker: Marker::None,
    }
}

fn at_once(codec: Codec, input: &[u8], size: usize) -> Result<Vec<u8>, Fault> {
    let mut output = vec![0; size];
    let made = Inflater::default().inflate(&cluster(codec, size), input, &mut output)?;
    output.truncate(made);
    Ok(output)
}

fn in_pieces(codec: Codec, input: &[u8], size: usize, piece: usize) -> Result<Vec<u8>, Fault> {
    let mut pieces = Pieces::new(codec)?;
    let mut output = vec![0; size];
    let mut parts = input.chunks(piece).peekable();
    while let Some(part) = parts.next() {
        if pieces.take(part, &mut output, parts.peek().is_some())? {
            break;
        }
    }
    output.truncate(pieces.made());
    Ok(output)
}

const CODECS: [Codec; 3] = [Codec::Deflate, Codec::Zlib, Codec::Zstd];

#[test]
fn what_was_compressed_comes_out_whatever_follows_it() {
    for codec in CODECS {
        for size in [512, 65536, 2 << 20] {
            let bytes = content(size);
            let mut input = compress(codec, &bytes);
            input.extend([0xa5; 700]);
            assert!(at_once(codec, &input, size).unwrap() == bytes);
            for piece in [100, 65536] {
                assert!(in_pieces(codec, &input, size, piece).unwrap() == bytes);
            }
        }
    }
}

#[test]
fn more_or_less_than_a_cluster_is_a_fault() {
    for codec in CODECS {
        for (made, size) in [(4095, 4096), (4097, 4096), (1, 512), (9000, 512)] {
            let input = compress(codec, &content(made));
            assert_eq!(at_once(codec, &input, size), Err(Fault::Data));
            let pieces = in_pieces(codec, &input, size, 64);
            assert!(pieces.is_err() || pieces.is_ok_and(|out| out.len() < size) && made < size);
        }
    }
}

#[test]
fn the_last_grain_of_a_disk_may_be_shorter() {
    let input = compress(Codec::Zlib, &content(1000));
    let mut output = vec![0; 4096];
    let grain = Compressed {
        least: 1000,
        ..cluster(Codec::Zlib, 4096)
    };
    assert_eq!(
        Inflater::default().inflate(&grain, &input, &mut output),
        Ok(1000)
    );
}

#[test]
fn streams_that_are_cut_or_changed_never_do_harm() {
    for codec in CODECS {
        let bytes = content(2000);
        let whole = compress(codec, &bytes);
        for len in 0..whole.len() {
            assert!(at_once(codec, &whole[..len], 2000).is_err());
        }
        for at in 0..whole.len() {
            for bit in [0, 3, 7] {
                let mut changed = whole.clone();
                changed[at] ^= 1 << bit;
                for result in [
                    at_once(codec, &changed, 2000),
                    in_pieces(codec, &changed, 2000, 100),
                ] {
                    assert!(result.is_err() || result.is_ok_and(|out| out.len() <= 2000));
                }
            }
        }
    }
}

#[test]
fn several_zstd_frames_make_a_cluster() {
    let bytes = content(4096);
    let mut input = compress(Codec::Zstd, &bytes[..1000]);
    input.extend(compress(Codec::Zstd, &bytes[1000..]));
    assert_eq!(at_once(Codec::Zstd, &input, 4096).unwrap(), bytes);
    assert_eq!(in_pieces(Codec::Zstd, &input, 4096, 7).unwrap(), bytes);
}

/// The last piece that is needed may end right behind the last byte that the frame makes.
#[test]
fn a_zstd_frame_is_whole_wherever_its_pieces_end() {
    let bytes = content(300_000);
    let mut context = zstd_safe::CCtx::create();
    let checksum = zstd_safe::CParameter::ChecksumFlag(true);
    context.set_parameter(checksum).unwrap();
    let mut good = vec![0; zstd_safe::compress_bound(bytes.len())];
    let len = context.compress2(&mut good[..], &bytes).unwrap();
    good.truncate(len);
    let mut wrong = good.clone();
    *wrong.last_mut().unwrap() ^= 1;
    for piece in good.len() - 12..=good.len() {
        let inflate = |input| in_pieces(Codec::Zstd, input, bytes.len(), piece);
        assert!(inflate(&good).unwrap() == bytes);
        assert_eq!(inflate(&wrong), Err(Fault::Data), "{piece}");
        let cut = &good[..good.len() - 1];
        assert_eq!(inflate(cut), Err(Fault::Data), "{piece}");
        // The frame has more than fits.
        let small = in_pieces(Codec::Zstd, &good, bytes.len() - 1, piece);
        assert_eq!(small, Err(Fault::Data), "{piece}");
    }
}

#[test]
fn a_stream_that_ends_before_its_cluster_is_full_is_a_fault() {
    for codec in CODECS {
        let whole = compress(codec, &content(2000));
        let cut = &whole[..whole.len() - 9];
        for input in [cut, &[]] {
            let mut pieces = Pieces::new(codec).unwrap();
            let mut output = [0; 2000];
            assert_eq!(pieces.take(input, &mut output, true), Ok(false));
            assert_eq!(pieces.take(&[], &mut output, false), Err(Fault::Data));
        }
    }
}

#[test]
fn a_library_that_lacks_memory_does_not_blame_the_image() {
    let error = |number: zstd_safe::zstd_sys::ZSTD_ErrorCode| (number as usize).wrapping_neg();
    use zstd_safe::zstd_sys::ZSTD_ErrorCode::{
        ZSTD_error_corruption_detected, ZSTD_error_memory_allocation,
    };
    let fault = |number| super::zstd::fault(error(number));
    assert_eq!(fault(ZSTD_error_memory_allocation), Fault::Memory);
    assert_eq!(fault(ZSTD_error_corruption_detected), Fault::Data);
}
