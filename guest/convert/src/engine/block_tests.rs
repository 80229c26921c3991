//! How blocks and fetches are counted and told apart.
#![allow(clippy::unwrap_used)]

use guest_formats::{Codec, Marker};
use guest_kit::testing::memory::leak;

use super::*;
use crate::pool::{PAGE, Pool};

fn cluster(offset: u64, length: u64) -> Compressed {
    Compressed {
        offset,
        length,
        codec: Codec::Deflate,
        least: 4096,
        size: 4096,
        skip: 0,
        marker: Marker::None,
    }
}

fn item(fetch: usize, offset: u64) -> Item {
    Item {
        source: 0,
        cluster: cluster(offset, 300),
        fetch,
        block: 0,
        at: 0,
    }
}

#[test]
fn there_are_as_many_blocks_as_numbers_for_them() {
    let mut pool = Pool::new(leak(MOST_BLOCKS * PAGE));
    let mut blocks = Blocks::default();
    assert!(blocks.is_empty() && blocks.first().is_none());
    for start in 0..MOST_BLOCKS as u64 {
        assert!(blocks.has_room());
        let index = blocks.begin(start, pool.take(PAGE).unwrap());
        assert_eq!(blocks.open(), Some(index));
        blocks.get(index).open = false;
    }
    assert!(!blocks.has_room());
    let starts = (0..MOST_BLOCKS).map(|index| blocks.get(index).start);
    assert!(starts.eq(0..MOST_BLOCKS as u64), "each has its own number");
    // The memory of one in the middle is free before its number is.
    for index in [7, 0] {
        assert_eq!(blocks.first().unwrap().start, 0);
        blocks.get(index).state = State::Written;
        assert!(blocks.release(false).is_some());
    }
    assert!(blocks.release(false).is_none());
    assert_eq!(blocks.first().unwrap().start, 1);
    assert!(blocks.has_room());
}

#[test]
fn a_fetch_takes_clusters_that_continue_it_as_far_as_its_memory_goes() {
    let mut pool = Pool::new(leak(4 * PAGE));
    let mut fetches = Fetches::default();
    let place = pool.take(PAGE).unwrap();
    let fetch = fetches.begin(1, 1024..2048, place);
    assert_eq!(
        (fetches.open(), fetches.source(fetch)),
        (Some(fetch), Some(1))
    );
    assert!(!fetches.extend(fetch, 0, &(2048..4096)), "another disk");
    assert!(!fetches.extend(fetch, 1, &(512..2048)), "it begins before");
    assert!(!fetches.extend(fetch, 1, &(2560..4096)), "there is a gap");
    assert!(fetches.extend(fetch, 1, &(1536..2048)), "it has it");
    assert!(fetches.extend(fetch, 1, &(2048..4096)));
    let full = 1024 + PAGE as u64;
    assert!(!fetches.extend(fetch, 1, &(4096..full + 512)));
    assert!(fetches.extend(fetch, 1, &(4096..full)));
    assert_eq!(fetches.ask(fetch).map(|fetch| fetch.end), Some(full));
    assert_eq!(fetches.open(), None);
}

#[test]
fn a_fetch_is_there_until_its_last_cluster_is_inflated() {
    let mut pool = Pool::new(leak(MOST_FETCHES * PAGE));
    let mut fetches = Fetches::default();
    for number in 0..MOST_FETCHES as u64 {
        assert!(fetches.has_room());
        let bytes = number * 4096..number * 4096 + 1024;
        fetches.begin(0, bytes, pool.take(PAGE).unwrap());
    }
    assert!(!fetches.has_room());
    assert!(!fetches.has_items() && !fetches.is_busy());
    fetches.add(item(2, 8192 + 10));
    fetches.add(item(2, 8192 + 310));
    assert!(fetches.has_items() && !fetches.is_busy());
    let place = fetches.ask(2).unwrap().place;
    assert!(fetches.is_busy());
    assert!(fetches.next_item().is_none(), "it is not there yet");
    fetches.arrive(2);
    let first = fetches.next_item().unwrap();
    let start = place.offset() + 10;
    assert_eq!(fetches.place_of(&first), start..start + 300);
    assert_eq!(fetches.finish_item(2), None);
    assert!(fetches.is_busy() && !fetches.has_room());
    assert_eq!(fetches.next_item().unwrap().cluster.offset, 8192 + 310);
    assert_eq!(fetches.finish_item(2), Some(place));
    assert!(!fetches.has_items() && !fetches.is_busy());
    assert!(fetches.has_room());
}
