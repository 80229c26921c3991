//! Where a file may have data (lseek(2), SEEK_DATA and SEEK_HOLE), as a coarse list of bounded
//! length: what is not in it is a hole, which reads as zeros. A file system that does not tell, or
//! a device, is data from end to end.

use std::ops::Range;
use std::os::fd::BorrowedFd;

use guest_protocol::{DATA_UNIT, DataList, MAX_DATA_RANGES};
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::system::{pread, seek};

/// Most extents that are looked at. Each takes two system calls, so that this is a tenth of a second or
/// two on a local file system; on one that answers slowly the time limit and signals end the run.
const MAX_EXTENTS: usize = 65_536;

/// How many bytes of what was a hole are read at once.
const LOOKED_AT: usize = 64 << 10;

/// How long a list may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListBounds {
    /// Holes that are shorter are not listed, in bytes.
    smallest_hole: u64,
    ranges: usize,
    /// What the list takes.
    bytes: usize,
}

impl ListBounds {
    /// For the guest's configuration, which has 4096 bytes and comes through a serial port: to read a
    /// hole of less than 64 KiB costs less than to tell of it.
    pub const MESSAGE: Self = Self {
        smallest_hole: 64 << 10,
        ranges: 512,
        bytes: 3072,
    };
    /// For the guest's memory, where a range costs next to nothing.
    pub const MEMORY: Self = Self {
        smallest_hole: DATA_UNIT,
        ranges: MAX_DATA_RANGES,
        bytes: 512 << 10,
    };

    /// For a message that has room for no more than so many bytes of a list.
    #[must_use]
    pub const fn in_message(bytes: usize) -> Self {
        Self {
            bytes,
            ..Self::MESSAGE
        }
    }
}

/// From here on Linux finds no data in files in memory, where it rounds the end of a page up to more than
/// an offset can be (`mapping_seek_hole_data()`): so much of a file can lie in its last page.
const NEVER_A_HOLE: u64 = (1 << 63) - (2 << 20);

/// What is known of a file's holes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holes {
    /// Where the file may have data.
    pub list: DataList<'static>,
    /// Whether there are holes that are not listed, as they are too small or too many.
    pub coarse: bool,
}

/// The holes of the first `length` bytes of `file`, in a list within `bounds`.
pub(super) fn find_holes(file: BorrowedFd<'_>, length: u64, bounds: ListBounds) -> Holes {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let mut coarse = false;
    // Whether a hole before it is left out.
    let mut add = |start: u64, end: u64| {
        let before = ranges.last().map_or(0, |last| last.end);
        if start.saturating_sub(before) >= bounds.smallest_hole && has_unit(before, start) {
            ranges.push(start..end);
            return false;
        }
        match ranges.last_mut() {
            Some(last) => last.end = end,
            None => ranges.push(0..end),
        }
        start > before
    };
    let mut at = 0;
    for looked_at in 0.. {
        let (start, end) = match next_data(file, at, length) {
            Ok(Some(range)) if looked_at < MAX_EXTENTS => (range.start, range.end),
            Ok(None) => break,
            // It does not tell, or there are too many to ask for: the rest is data.
            Ok(Some(range)) => {
                coarse = true;
                (range.start, length)
            }
            Err(_) => (at, length),
        };
        coarse |= add(start, end);
        at = end;
        if at >= length {
            break;
        }
    }
    if length > NEVER_A_HOLE {
        coarse |= add(NEVER_A_HOLE, length);
    }
    if matches!(ranges.as_slice(), [all] if *all == (0..length)) {
        let list = DataList::everything();
        return Holes { list, coarse };
    }
    let mut most = bounds.ranges;
    loop {
        coarse |= ranges.len() > most;
        join(&mut ranges, most);
        let list = DataList::new(&ranges);
        if list.encoded_len() <= bounds.bytes || most <= 1 {
            return Holes { list, coarse };
        }
        most = most * 3 / 4;
    }
}

/// Whether there is anything from `start` up to `end` that a list can tell.
fn has_unit(start: u64, end: u64) -> bool {
    start.next_multiple_of(DATA_UNIT) < end - end % DATA_UNIT
}

/// The first data from `at` up, below `length`.
fn next_data(file: BorrowedFd<'_>, at: u64, length: u64) -> Result<Option<Range<u64>>, Errno> {
    let start = match seek(file, SeekFrom::Data(at)) {
        // A file system that answers with a place before would be asked for ever.
        Ok(start) if start < at => return Err(Errno::IO),
        Ok(start) if start < length => start,
        Ok(_) | Err(Errno::NXIO) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let end = match seek(file, SeekFrom::Hole(start)) {
        Ok(end) => end.min(length),
        // Only in a file that has been cut short there is no end of a hole at this place.
        Err(Errno::NXIO) => length,
        Err(errno) => return Err(errno),
    };
    // Data that ends where it starts would be asked for for ever.
    Ok(Some(start..end.max(start + 1)))
}

/// Whether the file system tells of any hole in the first `length` bytes of `file`.
pub(super) fn has_hole(file: BorrowedFd<'_>, length: u64) -> bool {
    seek(file, SeekFrom::Hole(0)).is_ok_and(|hole| hole < length)
}

/// Joins ranges over the smallest gaps until there are no more than `most`.
fn join(ranges: &mut Vec<Range<u64>>, most: usize) {
    let Some(surplus) = ranges
        .len()
        .checked_sub(most)
        .filter(|surplus| *surplus > 0)
    else {
        return;
    };
    let mut gaps: Vec<(u64, usize)> = ranges
        .windows(2)
        .enumerate()
        .map(|(index, pair)| (pair[1].start - pair[0].end, index + 1))
        .collect();
    gaps.sort_unstable();
    let mut closed = vec![false; ranges.len()];
    for (_, index) in gaps.iter().take(surplus) {
        closed[*index] = true;
    }
    let mut joined: Vec<Range<u64>> = Vec::with_capacity(most);
    for (range, closed) in ranges.drain(..).zip(closed) {
        match joined.last_mut() {
            Some(last) if closed => last.end = range.end,
            _ => joined.push(range),
        }
    }
    *ranges = joined;
}

/// Why it is not known whether there is data where a hole was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LookError<E> {
    /// The system's reason, and where it gave it.
    System {
        /// In bytes.
        offset: u64,
        source: Errno,
    },
    /// The look was ended.
    Ended(E),
}

/// The first byte that is not zero in `file` now, within its first `length` bytes, where `list` says
/// that there is a hole. This can take long: `each` is called before each step, and may end it.
///
/// What is no hole any more need not have been written. Room that was allocated and never written is a
/// hole only as long as it is not in the page cache (ext4, XFS), and whoever reads near it, even the
/// copy itself, brings it there.
pub(super) fn data_in_holes<E>(
    file: BorrowedFd<'_>,
    length: u64,
    list: &DataList<'_>,
    mut each: impl FnMut() -> Result<(), E>,
) -> Result<Option<u64>, LookError<E>> {
    let mut buffer = Vec::new();
    for hole in list.holes(length) {
        let mut at = hole.start;
        while at < hole.end {
            // They are found before any of them is read, since reading can make more of them.
            let mut found = Vec::new();
            while found.len() < MAX_EXTENTS && at < hole.end {
                each().map_err(LookError::Ended)?;
                let data = next_data(file, at, hole.end);
                match data.map_err(|source| LookError::System { offset: at, source })? {
                    Some(range) => {
                        at = range.end;
                        found.push(range);
                    }
                    None => at = hole.end,
                }
            }
            for range in found {
                buffer.resize(LOOKED_AT, 0);
                if let Some(offset) = first_not_zero(file, range, &mut buffer, &mut each)? {
                    return Ok(Some(offset));
                }
            }
        }
    }
    Ok(None)
}

/// The first byte in `range` of `file` that is not zero. Behind the end of the file there is none.
fn first_not_zero<E>(
    file: BorrowedFd<'_>,
    range: Range<u64>,
    buffer: &mut [u8],
    each: &mut impl FnMut() -> Result<(), E>,
) -> Result<Option<u64>, LookError<E>> {
    let mut at = range.start;
    while at < range.end {
        each().map_err(LookError::Ended)?;
        let wanted = usize::try_from(range.end - at).unwrap_or(usize::MAX);
        let wanted = wanted.min(buffer.len());
        let len = pread(file, &mut buffer[..wanted], at);
        let len = len.map_err(|source| LookError::System { offset: at, source })?;
        if len == 0 {
            break;
        }
        if let Some(index) = buffer[..len].iter().position(|byte| *byte != 0) {
            return Ok(Some(at + index as u64));
        }
        at += len as u64;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    #![allow(clippy::single_range_in_vec_init, reason = "lists of ranges are meant")]

    use std::convert::Infallible;
    use std::fs::File;
    use std::os::fd::{AsFd, AsRawFd};
    use std::os::unix::fs::FileExt;

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    const MIB: u64 = 1 << 20;

    /// A file with 4096 bytes of data at each of these places.
    fn file(length: u64, data: impl IntoIterator<Item = u64>) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(length).unwrap();
        for at in data {
            file.write_all_at(&[1; 4096], at).unwrap();
        }
        file
    }

    fn ranges(file: &File, length: u64) -> (Vec<Range<u64>>, bool) {
        let holes = find_holes(file.as_fd(), length, ListBounds::MESSAGE);
        (holes.list.ranges(length).collect(), holes.coarse)
    }

    /// The same for a list in the guest's memory.
    fn fine(file: &File, length: u64) -> (Vec<Range<u64>>, bool) {
        let holes = find_holes(file.as_fd(), length, ListBounds::MEMORY);
        (holes.list.ranges(length).collect(), holes.coarse)
    }

    #[test]
    fn data_and_holes_are_told_apart() {
        let length = 100 * MIB;
        let file = file(length, [10 * MIB, 50 * MIB, length - 4096]);
        let at = |start| start..start + 4096;
        let expected = [at(10 * MIB), at(50 * MIB), at(length - 4096)];
        assert_eq!(ranges(&file, length), (expected.to_vec(), false));
    }

    #[test]
    fn a_file_without_data_and_one_without_holes_are_told_apart() {
        assert_eq!(ranges(&file(MIB, []), MIB), (vec![], false));
        let full = file(0, []);
        full.write_all_at(&[7; 10_000], 0).unwrap();
        assert_eq!(ranges(&full, 10_000), (vec![0..10_000], false));
        assert_eq!(
            find_holes(full.as_fd(), 10_000, ListBounds::MESSAGE).list,
            DataList::everything()
        );
        assert_eq!(ranges(&file(0, []), 0), (vec![], false));
    }

    /// The look at the holes, to its end.
    fn look(
        file: &File,
        length: u64,
        list: &DataList<'_>,
    ) -> Result<Option<u64>, LookError<Infallible>> {
        data_in_holes(file.as_fd(), length, list, || Ok(()))
    }

    #[test]
    fn small_holes_are_read_and_that_is_told() {
        let file = file(MIB, [0, 8192, 40_000]);
        let (ranges, coarse) = ranges(&file, MIB);
        assert!(coarse && ranges.len() == 1);
        assert!(ranges[0].start == 0 && ranges[0].end >= 44_096);
    }

    #[test]
    fn a_small_hole_far_from_the_start_is_no_larger_for_that() {
        let file = file(2 * MIB, [MIB, MIB + 8192]);
        let (ranges, coarse) = ranges(&file, 2 * MIB);
        assert_eq!(ranges, [MIB..MIB + 12_288]);
        assert!(coarse);
    }

    #[test]
    fn data_behind_the_length_is_not_there() {
        for at in [MIB, MIB + 4096] {
            assert_eq!(ranges(&file(2 * MIB, [at]), MIB), (vec![], false));
        }
    }

    #[test]
    fn of_two_gaps_the_smaller_one_is_closed() {
        let mut ranges = vec![0..50, 60..61, 1000..1001, 1005..1006];
        join(&mut ranges, 3);
        assert_eq!(ranges, [0..50, 60..61, 1000..1006]);
    }

    #[test]
    fn a_list_with_room_for_its_ranges_but_not_for_its_numbers_gets_shorter() {
        // Nothing but a file in memory can be so large.
        let file = File::from(memfd_create("large", MemfdFlags::CLOEXEC).unwrap());
        let length = 600 << 41;
        file.set_len(length).unwrap();
        for n in 0..600 {
            file.write_all_at(&[1], n << 41).unwrap();
        }
        let holes = find_holes(file.as_fd(), length, ListBounds::MESSAGE);
        assert!(holes.coarse && holes.list.encoded_len() <= 3072);
        assert_eq!(look(&file, length, &holes.list), Ok(None));
        let listed = holes.list.ranges(length).count();
        assert!(listed > 200, "{listed}");
    }

    #[test]
    fn the_last_page_of_the_largest_file_in_memory_is_no_hole() {
        let file = File::from(memfd_create("largest", MemfdFlags::CLOEXEC).unwrap());
        let length = i64::MAX.cast_unsigned();
        file.set_len(length).unwrap();
        for data in [None, Some(MIB), Some(length - 1)] {
            if let Some(at) = data {
                file.write_all_at(&[1], at).unwrap();
            }
            let (ranges, _) = fine(&file, length);
            assert_eq!(ranges.last(), Some(&(NEVER_A_HOLE..length)), "{data:?}");
            assert!(ranges.len() <= 2, "{ranges:?}");
        }
    }

    #[test]
    fn a_list_in_memory_tells_each_block() {
        let at = |n: u64| n * 12_288..n * 12_288 + 4096;
        let length = 5000 * 12_288;
        let file = file(length, (0..5000).map(|n| at(n).start));
        assert_eq!(fine(&file, length), ((0..5000).map(at).collect(), false));
    }

    #[test]
    fn a_hole_without_a_whole_unit_is_read() {
        for (start, end, told) in [
            (0, 4096, true),
            (1, 4096, false),
            (1, 8191, false),
            (1, 8192, true),
        ] {
            assert_eq!(has_unit(start, end), told, "{start}..{end}");
        }
        assert!(!has_unit(5000, 5001));
    }

    #[test]
    fn very_many_ranges_are_joined_over_the_smallest_gaps_and_fit_a_frame() {
        let mut ranges: Vec<_> = (0..2000).map(|n| n * MIB..n * MIB + 4096).collect();
        ranges.push(1 << 50..(1 << 50) + 1);
        join(&mut ranges, 512);
        assert_eq!(ranges.len(), 512);
        assert_eq!(ranges.last(), Some(&(1 << 50..(1 << 50) + 1)));
        let length = 3000 * MIB;
        let file = file(length, (0..1000).map(|n| 3 * n * MIB + MIB));
        let holes = find_holes(file.as_fd(), length, ListBounds::MESSAGE);
        assert!(holes.coarse && holes.list.encoded_len() <= 3072);
        let listed: Vec<_> = holes.list.ranges(length).collect();
        assert!(listed.len() > 200, "{}", listed.len());
        for n in 0..1000 {
            let at = 3 * n * MIB + MIB;
            assert!(
                listed
                    .iter()
                    .any(|range| range.start <= at && at + 4096 <= range.end)
            );
        }
    }

    #[test]
    fn a_list_that_lies_is_found_out() {
        let file = file(MIB, [MIB / 2]);
        let honest = find_holes(file.as_fd(), MIB, ListBounds::MEMORY).list;
        assert_eq!(look(&file, MIB, &honest), Ok(None));
        for lie in [DataList::new(&[]), DataList::from_message(&[0, 1, 1, 1])] {
            assert_eq!(look(&file, MIB, &lie), Ok(Some(MIB / 2)));
        }
        let all = DataList::everything();
        assert_eq!(look(&file, MIB, &all), Ok(None));
    }

    #[test]
    fn room_that_was_never_written_is_a_hole_though_the_page_cache_has_it() {
        use rustix::fs::{FallocateFlags, fallocate};

        let length = 4 * MIB;
        let file = file(length, [0]);
        // A file system without the call has holes there, which read as zeros too.
        let _ = fallocate(&file, FallocateFlags::empty(), 0, length);
        let list = find_holes(file.as_fd(), length, ListBounds::MEMORY).list;
        let mut all = vec![0; 4 << 20];
        file.read_exact_at(&mut all, 0).unwrap();
        assert_eq!(look(&file, length, &list), Ok(None));
        let Some(hole) = list.holes(length).last() else {
            return;
        };
        file.write_all_at(b"x", hole.end - 1).unwrap();
        assert_eq!(look(&file, length, &list), Ok(Some(hole.end - 1)));
    }

    #[test]
    fn what_cannot_be_looked_at_is_told_with_its_place() {
        let written = file(MIB, [MIB / 2]);
        let path = format!("/proc/self/fd/{}", written.as_fd().as_raw_fd());
        // It tells where there is data, and cannot be read.
        let unreadable = File::options().write(true).open(path).unwrap();
        let failed = look(&unreadable, MIB, &DataList::new(&[]));
        let (offset, source) = (MIB / 2, Errno::BADF);
        assert_eq!(failed, Err(LookError::System { offset, source }));
    }

    #[test]
    fn a_look_can_be_ended_at_each_hole_and_at_each_piece_of_data() {
        let holes = file(MIB, (0..10).map(|n| n * 16_384));
        let list = find_holes(holes.as_fd(), MIB, ListBounds::MEMORY).list;
        let one_piece = file(MIB, [MIB / 2]);
        let lie = DataList::new(&[]);
        for (file, list, steps) in [(&holes, &list, 10), (&one_piece, &lie, 2)] {
            for last in 1..=steps {
                let mut step = 0;
                let each = || {
                    step += 1;
                    if step == last { Err(last) } else { Ok(()) }
                };
                let ended = data_in_holes(file.as_fd(), MIB, list, each);
                assert_eq!(ended, Err(LookError::Ended(last)));
            }
        }
    }
}
