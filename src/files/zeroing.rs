//! Parts of an open file or device that become zero without data (fallocate(2)): punched out, so
//! that they take no room, or zeroed where they are. What cannot do either is written zeros. A block
//! device takes the same calls as a file does (Linux 4.9).

use std::io;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use vm_memory::VolatileSlice;

use super::descriptor::Descriptor;
use super::sync::is_unsupported;
use super::vectored::Partial;

/// The ends of a part that are no whole blocks are written: what else is in the block stays.
const BLOCK: u64 = 4096;
/// The most that one call zeroes, in bytes, so that a run that is over need not wait for long.
const AT_ONCE: u64 = 1 << 30;
/// How many blocks of zeros lie in memory at the most.
const BLOCKS: usize = 64;
/// How many times one call writes them at the most, so that it writes 4 MiB.
const TIMES: usize = 16;

const PUNCH: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);
const ZERO: FallocateFlags = FallocateFlags::ZERO_RANGE.union(FallocateFlags::KEEP_SIZE);

/// A block of memory, aligned for direct transfers.
#[derive(Clone)]
#[repr(align(4096))]
struct Block([u8; 4096]);

/// Makes the bytes from `start` up to, not including, `end` zero; with `unmap` they need not take
/// room any more. On failure, says how many of them are.
pub(super) fn make_zero(
    file: &Descriptor,
    start: u64,
    end: u64,
    unmap: bool,
) -> Result<(), Partial> {
    let counted = |from: u64, partial: Partial| Partial {
        done: from - start + partial.done,
        ..partial
    };
    let first = start.next_multiple_of(BLOCK).min(end);
    let last = (end - end % BLOCK).max(first);
    let ways: &[FallocateFlags] = if unmap { &[PUNCH, ZERO] } else { &[ZERO] };
    let mut ways = ways.iter().copied();
    write_zeros(file, start, first)?;
    let mut at = first;
    let mut way = ways.next();
    while at < last {
        let size = (last - at).min(AT_ONCE);
        let Some(flags) = way else {
            write_zeros(file, at, last).map_err(|partial| counted(at, partial))?;
            break;
        };
        let cancel = file.cancel();
        let zeroed = || cancel.repeat(|| fallocate(file, flags, at, size));
        match cancel.check().and_then(|()| zeroed()) {
            Ok(()) => at += size,
            Err(error) if is_refusal(&error) => way = ways.next(),
            Err(source) => return Err(counted(at, Partial { done: 0, source })),
        }
    }
    write_zeros(file, last, end).map_err(|partial| counted(last, partial))
}

/// Gives back the room of the whole blocks from `start` up to `end`, if that is possible at all.
pub(super) fn free(file: &Descriptor, start: u64, end: u64) -> io::Result<()> {
    let first = start.next_multiple_of(BLOCK);
    let last = end - end % BLOCK;
    let mut at = first;
    while at < last && !file.cancel().is_cancelled() {
        let size = (last - at).min(AT_ONCE);
        match file.cancel().repeat(|| fallocate(file, PUNCH, at, size)) {
            Ok(()) => at += size,
            Err(error) if is_refusal(&error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether the file knows no such call, which is not to say that it failed.
fn is_refusal(error: &io::Error) -> bool {
    // ENODEV and ESPIPE: neither a file nor a block device. EPERM: sealed, or append-only.
    Errno::from_io_error(error).is_some_and(|errno| {
        is_unsupported(errno) || matches!(errno, Errno::NODEV | Errno::SPIPE | Errno::PERM)
    })
}

fn write_zeros(file: &Descriptor, start: u64, end: u64) -> Result<(), Partial> {
    if start >= end {
        return Ok(());
    }
    let wanted = usize::try_from((end - start).div_ceil(BLOCK)).unwrap_or(usize::MAX);
    let mut blocks = vec![Block([0; 4096]); wanted.min(BLOCKS)];
    let slices: Vec<_> = blocks
        .iter_mut()
        .map(|block| VolatileSlice::from(&mut block.0[..]))
        .collect();
    let slices = slices.repeat(wanted.div_ceil(BLOCKS).min(TIMES));
    let room = slices.len() as u64 * BLOCK;
    let mut at = start;
    while at < end {
        let size = (end - at).min(room);
        let written = file.write(at, &slices, size);
        written.map_err(|partial| Partial {
            done: at - start + partial.done,
            ..partial
        })?;
        at += size;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::File;
    use std::os::unix::fs::{FileExt, MetadataExt};

    use rustix::fs::{MemfdFlags, OFlags, SealFlags, fcntl_add_seals, memfd_create};

    use super::*;
    use crate::storage::Cancel;

    fn descriptor(file: &File, cancel: &Cancel) -> Descriptor {
        let file = file.try_clone().unwrap();
        Descriptor::new(file.into(), false, OFlags::RDWR, cancel.clone())
    }

    fn full(length: usize) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![7; length], 0).unwrap();
        file
    }

    #[test]
    fn exactly_the_part_becomes_zero_whatever_its_ends() {
        for unmap in [false, true] {
            for (start, end) in [
                (0, 40_000),
                (1, 2),
                (4095, 4097),
                (4096, 8192),
                (5000, 39_999),
                (100, 100),
                (4096, 5000),
                (3000, 4096),
            ] {
                let file = full(40_000);
                make_zero(&descriptor(&file, &Cancel::new()), start, end, unmap).unwrap();
                let mut bytes = vec![1; 40_000];
                file.read_exact_at(&mut bytes, 0).unwrap();
                for (at, byte) in (0_u64..).zip(bytes) {
                    let expected = if (start..end).contains(&at) { 0 } else { 7 };
                    assert_eq!(byte, expected, "{at} of {start}..{end}");
                }
            }
        }
    }

    #[test]
    fn what_is_punched_takes_no_room() {
        let file = full(1 << 20);
        make_zero(&descriptor(&file, &Cancel::new()), 0, 1 << 20, true).unwrap();
        assert_eq!(file.metadata().unwrap().blocks(), 0);
        let file = full(1 << 20);
        free(&descriptor(&file, &Cancel::new()), 100, 1 << 20).unwrap();
        assert!(file.metadata().unwrap().blocks() <= 8);
    }

    #[test]
    fn giving_back_room_touches_whole_blocks_within_the_part_alone() {
        let bytes_after = |cancel: &Cancel| {
            let file = full(40_000);
            free(&descriptor(&file, cancel), 100, 10_000).unwrap();
            let mut bytes = vec![1; 40_000];
            file.read_exact_at(&mut bytes, 0).unwrap();
            bytes
        };
        let expected = [vec![7; 4096], vec![0; 4096], vec![7; 40_000 - 8192]].concat();
        assert!(bytes_after(&Cancel::new()) == expected);
        let over = Cancel::new();
        over.cancel();
        assert!(bytes_after(&over) == [7; 40_000], "the run is over");
    }

    /// A file of so many bytes that cannot grow.
    fn sealed(length: u64) -> File {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(memfd_create("sealed", flags).unwrap());
        file.set_len(length).unwrap();
        fcntl_add_seals(&file, SealFlags::GROW).unwrap();
        file
    }

    #[test]
    fn what_fails_tells_how_much_had_become_zero_before() {
        // The last part, which is no whole block, is written behind the end of the file.
        let file = descriptor(&sealed(10_000), &Cancel::new());
        let partial = make_zero(&file, 5000, 20_000, true).unwrap_err();
        assert_eq!(partial.done, 16_384 - 5000);
        let file = descriptor(&sealed(512 << 10), &Cancel::new());
        let partial = write_zeros(&file, 4096, 1 << 20).unwrap_err();
        assert_eq!(partial.done, (512 << 10) - 4096);
        // In memory nothing is made zero but by writes, and the second of them fails.
        let file = descriptor(&sealed(512 << 10), &Cancel::new());
        let partial = make_zero(&file, 5000, 1 << 20, false).unwrap_err();
        assert_eq!(partial.done, (512 << 10) - 5000);
    }

    /// A character device, which knows no fallocate.
    fn character_device(path: &str) -> File {
        File::options().read(true).write(true).open(path).unwrap()
    }

    #[test]
    fn what_takes_no_such_calls_is_written() {
        let null = descriptor(&character_device("/dev/null"), &Cancel::new());
        make_zero(&null, 10, 10 << 20, true).unwrap();
        free(&null, 0, 1 << 20).unwrap();
        // This one fails each write, so that there must have been one.
        for (start, end) in [(0, 4096), (4096, 10 << 20)] {
            let full = descriptor(&character_device("/dev/full"), &Cancel::new());
            let partial = make_zero(&full, start, end, true).unwrap_err();
            assert_eq!(partial.source.kind(), io::ErrorKind::StorageFull);
            assert_eq!(partial.done, 0);
        }
        // In memory only holes are punched, so that what is to keep its room is written, in several calls.
        let file = File::from(memfd_create("in memory", MemfdFlags::CLOEXEC).unwrap());
        file.write_all_at(&vec![7; 10 << 20], 0).unwrap();
        let (start, end) = (5000, 9_000_001);
        make_zero(&descriptor(&file, &Cancel::new()), start, end, false).unwrap();
        let mut bytes = vec![1; 10 << 20];
        file.read_exact_at(&mut bytes, 0).unwrap();
        for (at, byte) in (0_u64..).zip(bytes) {
            let expected = if (start..end).contains(&at) { 0 } else { 7 };
            assert_eq!(byte, expected, "{at}");
        }
    }

    #[test]
    fn only_a_call_that_is_not_known_has_another_in_its_place() {
        for (errno, refused) in [
            (Errno::OPNOTSUPP, true),
            (Errno::NODEV, true),
            (Errno::SPIPE, true),
            (Errno::PERM, true),
            (Errno::NOSPC, false),
            (Errno::IO, false),
            (Errno::INTR, false),
        ] {
            assert_eq!(is_refusal(&errno.into()), refused, "{errno}");
        }
    }

    #[test]
    fn a_run_that_is_over_ends_the_zeroing() {
        let cancel = Cancel::new();
        cancel.cancel();
        for file in [full(1 << 20), character_device("/dev/null")] {
            let partial = make_zero(&descriptor(&file, &cancel), 0, 1 << 40, true).unwrap_err();
            assert_eq!(partial.source.kind(), io::ErrorKind::Interrupted);
            assert_eq!(partial.done, 0);
        }
    }
}
