//! Reading and writing guest memory at an offset of a file, many pieces to a system call (`preadv`,
//! `pwritev`). A transfer that the system cuts short is continued, and one that is interrupted as
//! long as the run goes on; no call allocates. The pointers that cross into the system here are
//! this folder's one use of raw memory.

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

/// Repeats `call` until the span is moved, or the run has ended. `stuck` is the error if it moves nothing.
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
        let call = || call(pieces, span.offset.saturating_add(done));
        match cancel.check().and_then(|()| cancel.repeat(call)) {
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
mod tests;
