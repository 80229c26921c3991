#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::os::fd::AsFd;

use super::*;

/// A call that moves at most `most` bytes, and is interrupted before each time that it does.
fn stingy(
    most: usize,
    seen: &mut Vec<(usize, u64)>,
) -> impl FnMut(&[iovec], u64) -> io::Result<usize> {
    let mut interrupted = false;
    move |pieces, offset| {
        interrupted = !interrupted;
        if interrupted {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let size: usize = pieces.iter().map(|piece| piece.iov_len).sum();
        seen.push((size, offset));
        Ok(size.min(most))
    }
}

fn slices(memory: &mut [u8], size: usize) -> Vec<VolatileSlice<'_>> {
    memory.chunks_mut(size).map(VolatileSlice::from).collect()
}

#[test]
fn a_short_or_interrupted_transfer_goes_on_where_it_stopped() {
    let mut memory = [0; 1000];
    let buffers = slices(&mut memory, 100);
    let mut seen = Vec::new();
    let span = Span {
        buffers: &buffers,
        offset: 5000,
        from: 0,
        to: 950,
    };
    transfer(
        span,
        &Cancel::new(),
        io::ErrorKind::WriteZero,
        stingy(300, &mut seen),
    )
    .unwrap();
    assert_eq!(seen, [(950, 5000), (650, 5300), (350, 5600), (50, 5900)]);
}

#[test]
fn a_piece_ends_with_its_buffer_wherever_it_begins() {
    let mut memory = [0; 100];
    let start = memory.as_ptr().addr();
    let buffer = VolatileSlice::from(&mut memory[..]);
    for (skip, left, size) in [
        (0, 1000, 100),
        (30, 1000, 70),
        (30, 20, 20),
        (100, 1000, 0),
        (u64::MAX, u64::MAX, 0),
    ] {
        let piece = piece(&buffer, skip, left);
        assert_eq!(piece.iov_len, size, "{skip} {left}");
        assert_eq!(
            end_of(&piece).addr().min(start + 100),
            end_of(&piece).addr()
        );
    }
}

#[test]
fn an_error_after_a_short_transfer_tells_how_far_it_came() {
    let mut memory = [0; 1000];
    let buffers = slices(&mut memory, 100);
    let mut calls = 0;
    let span = Span {
        buffers: &buffers,
        offset: 0,
        from: 0,
        to: 1000,
    };
    let partial = transfer(span, &Cancel::new(), io::ErrorKind::WriteZero, |_, _| {
        calls += 1;
        if calls == 1 {
            Ok(512)
        } else {
            Err(io::Error::from_raw_os_error(libc::EIO))
        }
    })
    .unwrap_err();
    assert_eq!(partial.done, 512);
    assert_eq!(partial.source.raw_os_error(), Some(libc::EIO));
}

#[test]
fn a_transfer_that_moves_nothing_is_an_error_and_not_a_loop() {
    let mut memory = [0; 10];
    let buffers = slices(&mut memory, 10);
    let span = Span {
        buffers: &buffers,
        offset: 0,
        from: 0,
        to: 10,
    };
    let partial =
        transfer(span, &Cancel::new(), io::ErrorKind::WriteZero, |_, _| Ok(0)).unwrap_err();
    assert_eq!(partial.source.kind(), io::ErrorKind::WriteZero);
}

#[test]
fn a_transfer_that_is_interrupted_after_the_end_of_the_run_ends() {
    let mut memory = [0; 10];
    let buffers = slices(&mut memory, 10);
    let span = Span {
        buffers: &buffers,
        offset: 0,
        from: 0,
        to: 10,
    };
    let (cancel, mut calls) = (Cancel::new(), 0);
    let partial = transfer(span, &cancel, io::ErrorKind::UnexpectedEof, |_, _| {
        calls += 1;
        if calls == 3 {
            cancel.cancel();
        }
        Err(io::ErrorKind::Interrupted.into())
    })
    .unwrap_err();
    assert_eq!(partial.source.kind(), io::ErrorKind::Interrupted);
    assert_eq!((partial.done, calls), (0, 3));
    // No other call is made from then on.
    let partial = transfer(span, &cancel, io::ErrorKind::UnexpectedEof, |_, _| {
        calls += 1;
        Ok(1)
    })
    .unwrap_err();
    assert_eq!(partial.source.kind(), io::ErrorKind::Interrupted);
    assert_eq!(calls, 3);
}

#[test]
fn neighbours_in_memory_become_one_piece() {
    let mut memory = [0; 4096];
    let buffers = slices(&mut memory, 16);
    let mut pieces = [EMPTY; MAX_PIECES];
    let span = Span {
        buffers: &buffers,
        offset: 0,
        from: 0,
        to: 4000,
    };
    assert_eq!(gather(&mut pieces, span), 1);
    assert_eq!(pieces[0].iov_len, 4000);
}

#[test]
fn more_pieces_than_one_call_takes_are_read_and_written_in_order() {
    let file = tempfile::tempfile().unwrap();
    let mut source: Vec<u8> = (0..4000_u32).map(|byte| (byte % 251) as u8).collect();
    // Every second byte only, so that no two pieces are neighbours.
    let buffers: Vec<_> = source
        .chunks_mut(2)
        .map(|pair| VolatileSlice::from(&mut pair[..1]))
        .collect();
    let span = Span {
        buffers: &buffers,
        offset: 7,
        from: 0,
        to: 2000,
    };
    write(file.as_fd(), span, &Cancel::new()).unwrap();
    let mut target = vec![0; 4000];
    let buffers: Vec<_> = target
        .chunks_mut(2)
        .map(|pair| VolatileSlice::from(&mut pair[..1]))
        .collect();
    read(
        file.as_fd(),
        Span {
            buffers: &buffers,
            ..span
        },
        &Cancel::new(),
    )
    .unwrap();
    for (index, byte) in target.iter().enumerate().step_by(2) {
        assert_eq!(*byte, source[index]);
    }
}

#[test]
fn the_end_of_the_file_is_told_from_other_failures() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(100).unwrap();
    let mut memory = [1; 200];
    let buffers = slices(&mut memory, 200);
    let span = Span {
        buffers: &buffers,
        offset: 0,
        from: 0,
        to: 200,
    };
    let partial = read(file.as_fd(), span, &Cancel::new()).unwrap_err();
    assert_eq!(
        (partial.done, partial.source.kind()),
        (100, io::ErrorKind::UnexpectedEof)
    );
}

#[test]
fn an_offset_beyond_what_a_file_can_have_is_an_error() {
    let file = tempfile::tempfile().unwrap();
    let mut memory = [1; 1];
    let buffers = slices(&mut memory, 1);
    let span = Span {
        buffers: &buffers,
        offset: u64::MAX,
        from: 0,
        to: 1,
    };
    let partial = write(file.as_fd(), span, &Cancel::new()).unwrap_err();
    assert_eq!(partial.source.raw_os_error(), Some(libc::EINVAL));
}
