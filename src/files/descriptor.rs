//! One open file that is read and written through the page cache or, where alignment allows it,
//! past it (O_DIRECT, open(2)). Direct transfers go through a second descriptor that is opened in
//! advance, so that falling back takes no system call that a sandbox would have to allow.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use vm_memory::VolatileSlice;

use super::open::descriptor_path;
use super::system::{openat, statx};
use super::vectored::{self, Partial, Span};
use crate::reason::reason;
use crate::storage::Cancel;

/// The alignment that any file system which does O_DIRECT at all accepts.
const LARGEST_ALIGNMENT: u32 = 4096;

/// Assumed where the system does not tell: the smallest sector that a disk has.
const SMALLEST_ALIGNMENT: u32 = 512;

/// `statx` answers the question for the alignment of direct transfers (STATX_DIOALIGN, Linux 6.1).
const DIRECT_ALIGNMENT: StatxFlags = StatxFlags::from_bits_retain(0x2000);

/// [`vectored::read`] or [`vectored::write`].
type Call = fn(BorrowedFd<'_>, Span<'_>, &Cancel) -> Result<(), Partial>;

/// An open file, with the offsets of its transfers in bytes.
#[derive(Debug)]
pub(super) struct Descriptor {
    cached: OwnedFd,
    /// The run that the transfers belong to.
    cancel: Cancel,
    direct: Option<Direct>,
    /// Why there is no direct descriptor although one was asked for.
    unavailable: Option<String>,
}

/// The second descriptor, with O_DIRECT.
#[derive(Debug)]
struct Direct {
    fd: OwnedFd,
    /// What offsets, lengths and addresses must be a multiple of, in bytes; 0 once the system has
    /// refused a transfer that nothing was wrong with.
    alignment: AtomicU32,
    /// Whether a transfer went through the page cache for want of alignment.
    unaligned: AtomicBool,
}

impl Descriptor {
    /// Takes over an open file; with `direct`, opens it a second time, with `access`, for direct
    /// transfers. If that is not possible the file works without, and [`note`](Self::note) says
    /// why.
    pub(super) fn new(cached: OwnedFd, direct: bool, access: OFlags, cancel: Cancel) -> Self {
        let (direct, unavailable) = match direct.then(|| Direct::open(&cached, access)) {
            None => (None, None),
            Some(Ok(direct)) => (Some(direct), None),
            // A file is opened again by way of /proc/self/fd.
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                (None, Some("there is no /proc".to_owned()))
            }
            Some(Err(error)) => (None, Some(reason(error))),
        };
        Self {
            cached,
            cancel,
            direct,
            unavailable,
        }
    }

    /// Fills the first `length` bytes of `buffers` from `offset` up.
    pub(super) fn read(
        &self,
        offset: u64,
        buffers: &[VolatileSlice<'_>],
        length: u64,
    ) -> Result<(), Partial> {
        self.transfer(offset, buffers, length, vectored::read)
    }

    /// Stores the first `length` bytes of `buffers` from `offset` up.
    pub(super) fn write(
        &self,
        offset: u64,
        buffers: &[VolatileSlice<'_>],
        length: u64,
    ) -> Result<(), Partial> {
        self.transfer(offset, buffers, length, vectored::write)
    }

    fn transfer(
        &self,
        offset: u64,
        buffers: &[VolatileSlice<'_>],
        length: u64,
        call: Call,
    ) -> Result<(), Partial> {
        let span = Span {
            buffers,
            offset,
            from: 0,
            to: length,
        };
        let from = match &self.direct {
            Some(direct) => direct.transfer(span, call, &self.cancel)?,
            None => span.from,
        };
        call(self.cached.as_fd(), Span { from, ..span }, &self.cancel)
    }

    /// The run that the transfers belong to.
    pub(super) fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// What the user should know about direct transfers, if something was not as asked for.
    pub(super) fn note(&self) -> Option<String> {
        match (&self.direct, &self.unavailable) {
            (None, Some(reason)) => Some(format!("direct I/O is not available: {reason}")),
            (Some(direct), _) => direct.note().map(str::to_owned),
            (None, None) => None,
        }
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.cached.as_fd()
    }
}

impl Direct {
    fn open(file: &OwnedFd, access: OFlags) -> io::Result<Self> {
        // Through /proc, so that it is the same file even if its name has changed or it has none.
        let fd = openat(
            CWD,
            &descriptor_path(file),
            access | OFlags::DIRECT | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let alignment = AtomicU32::new(alignment(&fd));
        Ok(Self {
            fd,
            alignment,
            unaligned: AtomicBool::new(false),
        })
    }

    /// Moves what can be moved directly; returns up to where that was. What does not fill a block
    /// of the disk (the end of most files) is always left.
    fn transfer(&self, span: Span<'_>, call: Call, cancel: &Cancel) -> Result<u64, Partial> {
        let alignment = self.alignment.load(Ordering::Relaxed);
        if alignment == 0 {
            return Ok(span.from);
        }
        let to = span.to - span.to % u64::from(alignment);
        if !is_aligned(span, alignment) {
            self.unaligned.store(true, Ordering::Relaxed);
            return Ok(span.from);
        }
        match call(self.fd.as_fd(), Span { to, ..span }, cancel) {
            Ok(()) => Ok(to),
            Err(partial) if partial.source.raw_os_error() == Some(libc::EINVAL) => {
                self.learn(alignment);
                Ok(partial.done)
            }
            Err(partial) => Err(partial),
        }
    }

    /// The system has refused a transfer that was aligned to `alignment`: ask for more of the next
    /// ones, and give up if that was the largest there is.
    fn learn(&self, alignment: u32) {
        let next = if alignment < LARGEST_ALIGNMENT {
            LARGEST_ALIGNMENT
        } else {
            0
        };
        self.alignment.store(next, Ordering::Relaxed);
    }

    fn note(&self) -> Option<&'static str> {
        if self.alignment.load(Ordering::Relaxed) == 0 {
            Some("direct I/O was refused by the file system; the rest went through the page cache")
        } else if self.unaligned.load(Ordering::Relaxed) {
            Some("some requests were not aligned for direct I/O and went through the page cache")
        } else {
            None
        }
    }
}

/// What the system says that direct transfers must be aligned to, or else a first guess.
fn alignment(file: &OwnedFd) -> u32 {
    match statx(file, "", AtFlags::EMPTY_PATH, DIRECT_ALIGNMENT) {
        Ok(answer) if answer.stx_dio_offset_align != 0 => {
            answer.stx_dio_offset_align.max(answer.stx_dio_mem_align)
        }
        _ => SMALLEST_ALIGNMENT,
    }
}

fn is_aligned(span: Span<'_>, alignment: u32) -> bool {
    let multiple = |value: u64| value.is_multiple_of(u64::from(alignment));
    multiple(span.offset)
        && span.buffers.iter().all(|buffer| {
            let address = buffer.ptr_guard().as_ptr().addr() as u64;
            multiple(address) && multiple(buffer.len() as u64)
        })
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::print_stderr,
        clippy::cast_possible_truncation
    )]

    use std::cell::RefCell;
    use std::fs::OpenOptions;
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    use rustix::fs::fcntl_getfl;
    use rustix::io::{FdFlags, fcntl_getfd};

    use super::*;

    /// 4096-aligned memory.
    #[repr(align(4096))]
    struct Pages([u8; 16384]);

    fn open(path: &Path) -> (std::fs::File, Descriptor) {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .unwrap();
        let descriptor = Descriptor::new(
            file.try_clone().unwrap().into(),
            true,
            OFlags::RDWR,
            Cancel::new(),
        );
        (file, descriptor)
    }

    #[test]
    fn an_unaligned_tail_is_exact_with_direct_transfers() {
        let folder = tempfile::tempdir().unwrap();
        let (file, descriptor) = open(&folder.path().join("file"));
        let mut pages = Pages([7; 16384]);
        let buffers = [VolatileSlice::from(&mut pages.0[..])];
        descriptor.write(0, &buffers, 12801).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 12801);
        let mut pages = Pages([0; 16384]);
        let buffers = [VolatileSlice::from(&mut pages.0[..])];
        descriptor.read(0, &buffers, 12801).unwrap();
        assert!(pages.0[..12801].iter().all(|byte| *byte == 7));
        assert!(pages.0[12801..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn requests_in_unaligned_memory_are_exact_and_noted() {
        let folder = tempfile::tempdir().unwrap();
        let (file, descriptor) = open(&folder.path().join("file"));
        if let Some(note) = descriptor.note() {
            eprintln!("skipped: {note}");
            return;
        }
        let mut pages = Pages(std::array::from_fn(|index| (index % 251) as u8));
        let buffers = [VolatileSlice::from(&mut pages.0[1..4097])];
        descriptor.write(512, &buffers, 4096).unwrap();
        let mut stored = [0; 4096];
        file.read_exact_at(&mut stored, 512).unwrap();
        assert_eq!(stored[..], pages.0[1..4097]);
        assert!(descriptor.note().unwrap().contains("not aligned"));
    }

    thread_local! {
        /// The parts that [`note_part`] was called for.
        static PARTS: RefCell<Vec<(u64, u64)>> = const { RefCell::new(Vec::new()) };
    }

    /// A file whose name has been removed, and a descriptor of it; nothing where the file system has no
    /// direct transfers.
    fn open_direct() -> Option<(std::fs::File, Descriptor)> {
        let folder = tempfile::tempdir().unwrap();
        let (file, descriptor) = open(&folder.path().join("file"));
        if descriptor.direct.is_none() {
            eprintln!("skipped: {:?}", descriptor.note());
            return None;
        }
        Some((file, descriptor))
    }

    fn note_part(_: BorrowedFd<'_>, span: Span<'_>, _: &Cancel) -> Result<(), Partial> {
        PARTS.with_borrow_mut(|parts| parts.push((span.from, span.to)));
        Ok(())
    }

    #[test]
    fn whole_blocks_are_moved_directly_and_the_rest_through_the_page_cache() {
        let Some((_file, descriptor)) = open_direct() else {
            return;
        };
        let direct = descriptor.direct.as_ref().unwrap();
        direct.alignment.store(512, Ordering::Relaxed);
        let mut pages = Pages([0; 16384]);
        let buffers = [VolatileSlice::from(&mut pages.0[..])];
        for (length, parts) in [
            (12_801, [(0, 12_800), (12_800, 12_801)]),
            (16_384, [(0, 16_384), (16_384, 16_384)]),
        ] {
            descriptor.transfer(0, &buffers, length, note_part).unwrap();
            assert_eq!(PARTS.take(), parts);
        }
        assert_eq!(descriptor.note(), None);
    }

    #[test]
    fn direct_transfers_have_a_descriptor_of_their_own_and_an_alignment() {
        let Some((_file, descriptor)) = open_direct() else {
            return;
        };
        let direct = descriptor.direct.as_ref().unwrap();
        assert!(fcntl_getfl(&direct.fd).unwrap().contains(OFlags::DIRECT));
        assert!(fcntl_getfd(&direct.fd).unwrap().contains(FdFlags::CLOEXEC));
        let alignment = direct.alignment.load(Ordering::Relaxed);
        assert!(alignment.is_power_of_two(), "{alignment}");
    }

    #[test]
    fn an_error_that_is_no_refusal_ends_the_transfer_and_teaches_nothing() {
        let Some((_file, descriptor)) = open_direct() else {
            return;
        };
        let direct = descriptor.direct.as_ref().unwrap();
        direct.alignment.store(512, Ordering::Relaxed);
        let mut pages = Pages([0; 16384]);
        let buffers = [VolatileSlice::from(&mut pages.0[..])];
        let fail: Call = |_, _, _| {
            Err(Partial {
                done: 512,
                source: io::Error::from_raw_os_error(libc::EIO),
            })
        };
        let partial = descriptor.transfer(0, &buffers, 4096, fail).unwrap_err();
        assert_eq!(partial.source.raw_os_error(), Some(libc::EIO));
        assert_eq!(partial.done, 512);
        assert_eq!(direct.alignment.load(Ordering::Relaxed), 512);
    }

    #[test]
    fn refusals_raise_the_alignment_and_then_end_direct_transfers() {
        let Some((_file, descriptor)) = open_direct() else {
            return;
        };
        let direct = descriptor.direct.as_ref().unwrap();
        direct.alignment.store(512, Ordering::Relaxed);
        let mut pages = Pages([0; 16384]);
        let buffers = [VolatileSlice::from(&mut pages.0[..])];
        let span = Span {
            buffers: &buffers,
            offset: 0,
            from: 0,
            to: 16384,
        };
        let refuse = |_: BorrowedFd<'_>, _: Span<'_>, _: &Cancel| {
            Err(Partial {
                done: 0,
                source: io::Error::from_raw_os_error(libc::EINVAL),
            })
        };
        assert_eq!(direct.transfer(span, refuse, &Cancel::new()).unwrap(), 0);
        assert_eq!(direct.alignment.load(Ordering::Relaxed), LARGEST_ALIGNMENT);
        assert_eq!(direct.transfer(span, refuse, &Cancel::new()).unwrap(), 0);
        assert_eq!(
            direct
                .transfer(span, |_, _, _| unreachable!(), &Cancel::new())
                .unwrap(),
            0
        );
        assert!(descriptor.note().unwrap().contains("refused"));
    }

    #[test]
    fn a_file_without_direct_transfers_works_and_says_why() {
        // A pipe cannot be opened with O_DIRECT in this way; a memory file on some kernels can.
        let Ok(fd) = rustix::fs::memfd_create("plain", rustix::fs::MemfdFlags::CLOEXEC) else {
            return;
        };
        let mut descriptor = Descriptor::new(fd, true, OFlags::RDWR, Cancel::new());
        if descriptor.direct.take().is_some() {
            descriptor.unavailable = Some("removed".to_owned());
        }
        assert!(
            descriptor
                .note()
                .unwrap()
                .starts_with("direct I/O is not available")
        );
        let mut memory = [3; 100];
        descriptor
            .write(0, &[VolatileSlice::from(&mut memory[..])], 100)
            .unwrap();
    }
}
