//! What is on its way: blocks of the disk that are being made, and frames of compressed clusters.

use alloc::collections::VecDeque;
use core::ops::Range;

use guest_formats::Compressed;

use crate::pool::Place;
use crate::{to_u64, to_usize};

/// Most blocks at once: as many as the pool has pages.
const MOST_BLOCKS: usize = 64;
/// Most frames at once.
const MOST_FRAMES: usize = 8;

/// How far a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not all of it is there.
    Making,
    /// All of it is there.
    Complete,
    /// Being written.
    Writing,
    /// Written.
    Written,
    /// Written, and its memory given back.
    Gone,
}

/// A part of the disk that is written by one request.
#[derive(Debug)]
pub(super) struct Block {
    /// Where on the disk, in bytes.
    pub(super) start: u64,
    pub(super) place: Place,
    /// Bytes that it has so far.
    pub(super) len: usize,
    /// How many of its pieces are not there yet.
    pub(super) waiting: u32,
    /// Whether more may be added.
    pub(super) open: bool,
    pub(super) state: State,
    pub(super) digested: bool,
}

/// The blocks under way, in the order of the disk.
#[derive(Debug)]
pub(super) struct Blocks {
    /// By the slot that they have on the output.
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

    /// The first on the disk.
    pub(super) fn first(&self) -> Option<&Block> {
        self.all[*self.order.front()?].as_ref()
    }

    /// Whether there is room for one more.
    pub(super) fn has_room(&self) -> bool {
        self.order.len() < MOST_BLOCKS
    }

    /// Begins a block, and returns its number. There is room.
    pub(super) fn begin(&mut self, start: u64, place: Place) -> usize {
        let free = self.all.iter().position(Option::is_none).unwrap_or(0);
        self.all[free] = Some(Block {
            start,
            place,
            len: 0,
            waiting: 0,
            open: true,
            state: State::Making,
            digested: false,
        });
        self.order.push_back(free);
        free
    }

    /// The block with this number.
    ///
    /// # Panics
    ///
    /// If there is none: a mistake of this program, or a device that answers what was not asked.
    #[allow(clippy::expect_used)] // Whatever the image says, no number but these is used.
    pub(super) fn get(&mut self, index: usize) -> &mut Block {
        self.all[index].as_mut().expect("a block under way")
    }

    /// The block that is being added to, which is the last on the disk.
    pub(super) fn open(&self) -> Option<usize> {
        let last = *self.order.back()?;
        let open = self.all[last].as_ref().is_some_and(|block| block.open);
        open.then_some(last)
    }

    /// The first block that is not in the digest, if all of it is there.
    pub(super) fn next_undigested(&mut self) -> Option<&mut Block> {
        let waits = |block: &Option<Block>| block.as_ref().is_some_and(|block| !block.digested);
        let index = *self.order.iter().find(|&&index| waits(&self.all[index]))?;
        let complete = |block: &&mut Block| block.state != State::Making;
        self.all[index].as_mut().filter(complete)
    }

    /// The first block that is not on its way to the output, if all of it is there.
    pub(super) fn next_unplaced(&self) -> Option<usize> {
        let state = |index: usize| self.all[index].as_ref().map(|block| block.state);
        let waits =
            |index: &&usize| matches!(state(**index), Some(State::Making | State::Complete));
        let first = *self.order.iter().find(waits)?;
        (state(first) == Some(State::Complete)).then_some(first)
    }

    /// The memory of a block that nobody needs any more, if there is one.
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

/// A cluster that is to be inflated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub(super) source: usize,
    pub(super) cluster: Compressed,
    pub(super) frame: usize,
    /// The block that it is for, and where in it.
    pub(super) block: usize,
    pub(super) at: usize,
}

/// A stretch of an image's file with compressed clusters.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) source: usize,
    /// Where in the file, in bytes and whole sectors.
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) place: Place,
    /// How many items need it.
    users: u32,
    /// Whether it has been asked for, and whether it is there.
    asked: bool,
    there: bool,
}

/// The frames under way, and what is to be inflated from them, in order.
#[derive(Debug, Default)]
pub(super) struct Frames {
    all: [Option<Frame>; MOST_FRAMES],
    items: VecDeque<Item>,
}

impl Frames {
    /// Whether something is to be inflated.
    pub(super) fn has_items(&self) -> bool {
        !self.items.is_empty()
    }

    /// The number of the frame that has not been asked for, if there is one.
    pub(super) fn open(&self) -> Option<usize> {
        let open = |frame: &Option<Frame>| frame.as_ref().is_some_and(|frame| !frame.asked);
        self.all.iter().position(open)
    }

    /// Whether a frame has been asked for and is not done with.
    pub(super) fn is_busy(&self) -> bool {
        self.all.iter().flatten().any(|frame| frame.asked)
    }

    /// Whether there is room for one more.
    pub(super) fn has_room(&self) -> bool {
        self.all.iter().any(Option::is_none)
    }

    /// Begins a frame, and returns its number. There is room.
    pub(super) fn begin(&mut self, source: usize, bytes: Range<u64>, place: Place) -> usize {
        let free = self.all.iter().position(Option::is_none).unwrap_or(0);
        self.all[free] = Some(Frame {
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

    /// Lets the frame reach to the end of `bytes`, if these continue it or lie in it, and it has the
    /// memory. True if it does.
    pub(super) fn extend(&mut self, index: usize, source: usize, bytes: &Range<u64>) -> bool {
        let Some(frame) = &mut self.all[index] else {
            return false;
        };
        let end = frame.end.max(bytes.end);
        let fits = frame.source == source
            && (frame.start..=frame.end).contains(&bytes.start)
            && end - frame.start <= to_u64(frame.place.size());
        if fits {
            frame.end = end;
        }
        fits
    }

    /// The disk that the frame is on.
    pub(super) fn source(&self, index: usize) -> Option<usize> {
        self.all[index].as_ref().map(|frame| frame.source)
    }

    /// Adds something to inflate from a frame.
    pub(super) fn add(&mut self, item: Item) {
        if let Some(frame) = &mut self.all[item.frame] {
            frame.users += 1;
        }
        self.items.push_back(item);
    }

    /// What to read for the frame: it is being asked for from now on.
    pub(super) fn ask(&mut self, index: usize) -> Option<&Frame> {
        let frame = self.all[index].as_mut()?;
        frame.asked = true;
        Some(frame)
    }

    /// The frame's bytes are there.
    pub(super) fn arrive(&mut self, index: usize) {
        if let Some(frame) = &mut self.all[index] {
            frame.there = true;
        }
    }

    /// The next thing to inflate, if its bytes are there.
    pub(super) fn next_item(&mut self) -> Option<Item> {
        let item = self.items.front()?;
        let there = self.all[item.frame]
            .as_ref()
            .is_some_and(|frame| frame.there);
        if there { self.items.pop_front() } else { None }
    }

    /// Where in the pool the compressed bytes of an item are.
    pub(super) fn place_of(&self, item: &Item) -> Range<usize> {
        let Some(frame) = &self.all[item.frame] else {
            return 0..0;
        };
        let start = frame.place.offset() + to_usize(item.cluster.offset - frame.start);
        start..start + to_usize(item.cluster.length)
    }

    /// An item of the frame is done. Returns its memory if it was the last.
    pub(super) fn finish_item(&mut self, index: usize) -> Option<Place> {
        let frame = self.all[index].as_mut()?;
        frame.users -= 1;
        if frame.users > 0 {
            return None;
        }
        let place = frame.place;
        self.all[index] = None;
        Some(place)
    }
}
