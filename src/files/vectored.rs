//! Reading and writing guest memory at an offset of a file, many pieces to a system call
//! (`preadv`, `pwritev`). A transfer that the system cuts short is continued, and one that is
//! interrupted as long as the run goes on; no call allocates. The pointers that cross into the system here are this folder's one use of raw
//! memory.

use std::io;
use std::mem::needs_drop;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::null_mut;

use libc::{c_int, iovec, off_t};
use vm_memory::VolatileSlice;
use vm_memory::volatile_memory::PtrGuardMut;

use crate::storage::Cancel;

/// Most pieces that one system call is given. The kernel takes 1024; an array of that many would
/// cost more to prepare than the calls it saves.
const MAX_PIECES: usize = 256;

const EMPTY: iovec = iovec {
    iov_base: null_mut(),
    iov_len: 0,
};

// A pointer into guest memory is used after its guard is gone. That holds as long as the guard
// does nothing on its way out, which is so without vm-memory's `xen` feature.
const _: () = assert!(!needs_drop::<PtrGuardMut>());

/// How far a transfer came before it failed.
#[derive(Debug)]
pub(super) struct Partial {
    /// Bytes that were transferred, counted from the start of the request.
    pub(super) done: u64,
    /// Why it went no further; `UnexpectedEof` if a read met the end of the file, `Interrupted` if
    /// the run is over.
    pub(super) source: io::Error,
}

/// The part of a request's buffers that one transfer moves.
#[derive(Clone, Copy)]
pub(super) struct Span<'a> {
    /// The buffers of the whole request.
    pub(super) buffers: &'a [VolatileSlice<'a>],
    /// The file offset in bytes that belongs to the first byte of the first buffer.
    pub(super) offset: u64,
    /// Bytes of the request that were moved before.
    pub(super) from: u64,
    /// Bytes of the request, counted from its start, after which the transfer ends.
    pub(super) to: u64,
}

/// Fills the span from the file.
pub(super) fn read(file: BorrowedFd<'_>, span: Span<'_>, cancel: &Cancel) -> Result<(), Partial> {
    transfer(
        span,
        cancel,
        io::ErrorKind::UnexpectedEof,
        |pieces, offset| preadv(file, pieces, offset),
    )
}

/// Writes the span to the file.
pub(super) fn write(file: BorrowedFd<'_>, span: Span<'_>, cancel: &Cancel) -> Result<(), Partial> {
    transfer(span, cancel, io::ErrorKind::WriteZero, |pieces, offset| {
        pwritev(file, pieces, offset)
    })
}

/// Repeats `call` until the span is moved. `stuck` is the error if it moves nothing.
fn transfer(
    span: Span<'_>,
    cancel: &Cancel,
    stuck: io::ErrorKind,
    mut call: impl FnMut(&[iovec], u64) -> io::Result<usize>,
) -> Result<(), Partial> {
    let mut pieces = [EMPTY; MAX_PIECES];
    let mut done = span.from;
    while done < span.to {
        let count = gather(&mut pieces, Span { from: done, ..span });
        let pieces = &pieces[..count];
        match cancel.repeat(|| call(pieces, span.offset.saturating_add(done))) {
            Ok(0) => {
                return Err(Partial {
                    done,
                    source: stuck.into(),
                });
            }
            Ok(moved) => done += moved as u64,
            Err(source) => return Err(Partial { done, source }),
        }
    }
    Ok(())
}

/// Describes as much of the span as fits into `pieces`; returns how many it took. Buffers that are
/// neighbours in memory become one piece, which spares the kernel work for each small one.
fn gather(pieces: &mut [iovec; MAX_PIECES], span: Span<'_>) -> usize {
    let (mut skip, mut left) = (span.from, span.to - span.from);
    let mut count = 0;
    for buffer in span.buffers {
        let size = buffer.len() as u64;
        if skip >= size {
            skip -= size;
            continue;
        }
        let piece = piece(buffer, skip, left);
        left -= piece.iov_len as u64;
        skip = 0;
        match pieces[..count].last_mut() {
            _ if piece.iov_len == 0 => break,
            Some(last) if end_of(last) == piece.iov_base.cast() => last.iov_len += piece.iov_len,
            _ if count == MAX_PIECES => break,
            _ => {
                pieces[count] = piece;
                count += 1;
            }
        }
    }
    count
}

/// At most `left` bytes of `buffer` from its byte `skip` up, which lies within it.
fn piece(buffer: &VolatileSlice<'_>, skip: u64, left: u64) -> iovec {
    // Both fit: `skip` is below a length in memory, and what is larger than one is cut to it.
    let skip = usize::try_from(skip)
        .unwrap_or(usize::MAX)
        .min(buffer.len());
    let left = usize::try_from(left).unwrap_or(usize::MAX);
    iovec {
        iov_base: buffer.ptr_guard_mut().as_ptr().wrapping_add(skip).cast(),
        iov_len: (buffer.len() - skip).min(left),
    }
}

fn end_of(piece: &iovec) -> *mut u8 {
    piece.iov_base.cast::<u8>().wrapping_add(piece.iov_len)
}

fn preadv(file: BorrowedFd<'_>, pieces: &[iovec], offset: u64) -> io::Result<usize> {
    let (count, offset) = arguments(pieces, offset)?;
    // SAFETY: the pieces lie within volatile slices that outlive the call, which are memory that
    // may be written, and which Rust never takes for memory that nobody else changes.
    moved(unsafe { libc::preadv(file.as_raw_fd(), pieces.as_ptr(), count, offset) })
}

fn pwritev(file: BorrowedFd<'_>, pieces: &[iovec], offset: u64) -> io::Result<usize> {
    let (count, offset) = arguments(pieces, offset)?;
    // SAFETY: the pieces lie within volatile slices that outlive the call; the system only reads
    // them.
    moved(unsafe { libc::pwritev(file.as_raw_fd(), pieces.as_ptr(), count, offset) })
}

fn arguments(pieces: &[iovec], offset: u64) -> io::Result<(c_int, off_t)> {
    let count = c_int::try_from(pieces.len());
    match (count, off_t::try_from(offset)) {
        (Ok(count), Ok(offset)) => Ok((count, offset)),
        _ => Err(io::Error::from_raw_os_error(libc::EINVAL)),
    }
}

/// The result of a call that returns a number of bytes, or -1 and an error number.
fn moved(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
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
}
