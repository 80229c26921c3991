//! The data on its way: blocks of the disk that are being put together, and fetches, which hold
//! compressed clusters.

use alloc::collections::VecDeque;
use core::ops::Range;

use guest_formats::Compressed;

use crate::pool::Place;
use crate::{to_u64, to_usize};

/// The most blocks at once, fewer than the output has slots. There is memory for fewer; those whose
/// memory was given back count until all before them are written.
const MOST_BLOCKS: usize = 64;
/// The most fetches at once.
const MOST_FETCHES: usize = 8;

/// How far a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Some of its bytes are still to come.
    Making,
    /// All of its bytes are there.
    Complete,
    /// A part of it is being written.
    Writing,
    /// All of it has been written or left out.
    Written,
    /// The same, and its memory was given back.
    Gone,
}

/// A part of the disk that is written by one request.
#[derive(Debug)]
pub(super) struct Block {
    /// Its offset on the disk in bytes.
    pub(super) start: u64,
    pub(super) place: Place,
    /// How many bytes it has so far.
    pub(super) len: usize,
    /// How many of its pieces are still to come.
    pub(super) waiting: u32,
    /// Whether more bytes may be added behind them.
    pub(super) open: bool,
    pub(super) state: State,
    /// How many of its bytes, from the first on, were given to the output.
    pub(super) given: usize,
    pub(super) digested: bool,
}

/// The blocks under way, in the order of the disk.
#[derive(Debug)]
pub(super) struct Blocks {
    /// Each has the index of its slot on the output.
    all: [Option<Block>; MOST_BLOCKS],
    order: VecDeque<usize>,
}

impl Default for Blocks {
    fn default() -> Self {
        Self {
            all: [const { None }; MOST_BLOCKS],
            order: VecDeque::new(),
        }
    }
}

impl Blocks {
    /// No block is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The block that comes first on the disk.
    pub(super) fn first(&self) -> Option<&Block> {
        self.all[*self.order.front()?].as_ref()
    }

    /// Whether another one may be begun.
    pub(super) fn has_room(&self) -> bool {
        self.order.len() < MOST_BLOCKS
    }

    /// Begins a block, and returns its number. The caller has made sure that there is room.
    pub(super) fn begin(&mut self, start: u64, place: Place) -> usize {
        let free = self.all.iter().position(Option::is_none).unwrap_or(0);
        self.all[free] = Some(Block {
            start,
            place,
            len: 0,
            waiting: 0,
            open: true,
            state: State::Making,
            given: 0,
            digested: false,
        });
        self.order.push_back(free);
        free
    }

    /// The block with this number.
    ///
    /// # Panics
    ///
    /// If there is no such block. That would be a mistake in this program.
    #[allow(clippy::expect_used)] // The numbers are this program's own, whatever the image says.
    pub(super) fn get(&mut self, index: usize) -> &mut Block {
        self.all[index].as_mut().expect("a block under way")
    }

    /// The number of the block to which bytes may be added, if there is one. It is the last on the
    /// disk.
    pub(super) fn open(&self) -> Option<usize> {
        let last = *self.order.back()?;
        let open = self.all[last].as_ref().is_some_and(|block| block.open);
        open.then_some(last)
    }

    /// The first block that was not taken into the digest, if all of its bytes are there.
    pub(super) fn next_undigested(&mut self) -> Option<&mut Block> {
        let waits = |block: &Option<Block>| block.as_ref().is_some_and(|block| !block.digested);
        let index = *self.order.iter().find(|&&index| waits(&self.all[index]))?;
        let complete = |block: &&mut Block| block.state != State::Making;
        self.all[index].as_mut().filter(complete)
    }

    /// The number of the first block that has no place on the output yet, if all of its bytes are
    /// there.
    pub(super) fn next_unplaced(&self) -> Option<usize> {
        let state = |index: usize| self.all[index].as_ref().map(|block| block.state);
        let waits =
            |index: &&usize| matches!(state(**index), Some(State::Making | State::Complete));
        let first = *self.order.iter().find(waits)?;
        (state(first) == Some(State::Complete)).then_some(first)
    }

    /// The memory of a block that is not needed any more, if there is one. With `digest` a block is
    /// needed until it was taken into the digest.
    pub(super) fn release(&mut self, digest: bool) -> Option<Place> {
        while let Some(&first) = self.order.front() {
            match &self.all[first] {
                Some(block) if block.state != State::Gone => break,
                _ => {
                    self.all[first] = None;
                    self.order.pop_front();
                }
            }
        }
        let done =
            |block: &&mut Block| block.state == State::Written && (block.digested || !digest);
        let block = self.all.iter_mut().flatten().find(done)?;
        block.state = State::Gone;
        Some(block.place)
    }
}

/// A compressed cluster that is to be inflated into a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub(super) source: usize,
    pub(super) cluster: Compressed,
    pub(super) fetch: usize,
    /// The block that it is for, and where in it.
    pub(super) block: usize,
    pub(super) at: usize,
}

/// A part of an image's file that is read at once and holds compressed clusters.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) source: usize,
    /// Its offset in the file in bytes, a multiple of a sector.
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) place: Place,
    /// How many items are still to be inflated from it.
    users: u32,
    /// Whether it was asked for; the next field says whether it is there.
    asked: bool,
    there: bool,
}

/// The fetches under way, and the items that are to be inflated from them, in their order.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    all: [Option<Fetch>; MOST_FETCHES],
    items: VecDeque<Item>,
}

impl Fetches {
    /// Whether there are items to inflate.
    pub(super) fn has_items(&self) -> bool {
        !self.items.is_empty()
    }

    /// The number of the fetch to which clusters may be added, since it was not asked for yet, if
    /// there is one.
    pub(super) fn open(&self) -> Option<usize> {
        let open = |fetch: &Option<Fetch>| fetch.as_ref().is_some_and(|fetch| !fetch.asked);
        self.all.iter().position(open)
    }

    /// Whether a fetch was asked for and still has items.
    pub(super) fn is_busy(&self) -> bool {
        self.all.iter().flatten().any(|fetch| fetch.asked)
    }

    /// Whether another one may be begun.
    pub(super) fn has_room(&self) -> bool {
        self.all.iter().any(Option::is_none)
    }

    /// Begins a fetch, and returns its number. The caller has made sure that there is room.
    pub(super) fn begin(&mut self, source: usize, bytes: Range<u64>, place: Place) -> usize {
        let free = self.all.iter().position(Option::is_none).unwrap_or(0);
        self.all[free] = Some(Fetch {
            source,
            start: bytes.start,
            end: bytes.end,
            place,
            users: 0,
            asked: false,
            there: false,
        });
        free
    }

    /// Makes the fetch longer, so that it has all of `bytes`. Returns false if they neither lie in
    /// it nor continue it, or if its memory is too small.
    pub(super) fn extend(&mut self, index: usize, source: usize, bytes: &Range<u64>) -> bool {
        let Some(fetch) = &mut self.all[index] else {
            return false;
        };
        let end = fetch.end.max(bytes.end);
        let fits = fetch.source == source
            && (fetch.start..=fetch.end).contains(&bytes.start)
            && end - fetch.start <= to_u64(fetch.place.size());
        if fits {
            fetch.end = end;
        }
        fits
    }

    /// The disk that the fetch is on.
    pub(super) fn source(&self, index: usize) -> Option<usize> {
        self.all[index].as_ref().map(|fetch| fetch.source)
    }

    /// Adds an item to inflate from a fetch.
    pub(super) fn add(&mut self, item: Item) {
        if let Some(fetch) = &mut self.all[item.fetch] {
            fetch.users += 1;
        }
        self.items.push_back(item);
    }

    /// The fetch that is to be read. It counts as asked for from now on.
    pub(super) fn ask(&mut self, index: usize) -> Option<&Fetch> {
        let fetch = self.all[index].as_mut()?;
        fetch.asked = true;
        Some(fetch)
    }

    /// Says that the bytes of the fetch have been read.
    pub(super) fn arrive(&mut self, index: usize) {
        if let Some(fetch) = &mut self.all[index] {
            fetch.there = true;
        }
    }

    /// The next item to inflate, if its bytes are there.
    pub(super) fn next_item(&mut self) -> Option<Item> {
        let item = self.items.front()?;
        let there = self.all[item.fetch]
            .as_ref()
            .is_some_and(|fetch| fetch.there);
        if there { self.items.pop_front() } else { None }
    }

    /// Where the compressed bytes of an item are in the pool.
    pub(super) fn place_of(&self, item: &Item) -> Range<usize> {
        let Some(fetch) = &self.all[item.fetch] else {
            return 0..0;
        };
        let start = fetch.place.offset() + to_usize(item.cluster.offset - fetch.start);
        start..start + to_usize(item.cluster.length)
    }

    /// Says that an item of the fetch was inflated. Returns the memory of the fetch if it was the
    /// last item.
    pub(super) fn finish_item(&mut self, index: usize) -> Option<Place> {
        let fetch = self.all[index].as_mut()?;
        fetch.users -= 1;
        if fetch.users > 0 {
            return None;
        }
        let place = fetch.place;
        self.all[index] = None;
        Some(place)
    }
}

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;
