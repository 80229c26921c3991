//! What the tables of one image are asked for, and what reading it costs.
#![allow(clippy::unwrap_used)]

use guest_formats::{Codec, Format, Marker, Options};

use super::*;

/// A layer over a raw file, for what does not depend on its tables.
fn layer() -> Layer {
    let options = Options {
        claimed: Some(Format::Raw),
        ..Options::default()
    };
    let file = [0; 512];
    let (image, _) = Image::open(&mut &file[..], &options).unwrap();
    Layer::new(image, 512)
}

fn cluster(offset: u64, length: u64, skip: u32) -> Compressed {
    Compressed {
        offset,
        length,
        codec: Codec::Deflate,
        least: 65536,
        size: 65536,
        skip,
        marker: Marker::None,
    }
}

#[test]
fn a_compressed_cluster_costs_what_its_bytes_are_and_at_another_place_what_they_make() {
    let mut layer = layer();
    // Also one that lies far behind.
    for offset in [61_000, 10 << 20] {
        let mut cost = |begins| layer.cost(&cluster(offset, 2000, 0), begins);
        assert_eq!(cost(65536), 2000 - 1024);
        assert_eq!(cost(65536), 2000 - 1024, "once more at the same place");
        assert_eq!(cost(131_072), 65536);
        assert_eq!(cost(196_608), 65536);
    }
    let large = Compressed {
        size: 2 << 20,
        ..cluster(5 << 20, 600, 0)
    };
    assert_eq!(layer.cost(&large, 0), 64, "no codec makes it from fewer");
}

#[test]
fn clusters_that_lie_near_each_other_are_remembered_side_by_side() {
    let mut layer = layer();
    let near = [61_000, 61_061, 61_000 + 2560];
    for (at, offset) in (1..).zip(near) {
        assert_eq!(layer.cost(&cluster(offset, 2000, 0), at * 65536), 976);
    }
    for offset in near {
        assert_eq!(layer.cost(&cluster(offset, 2000, 0), 0), 65536);
    }
    // One that is remembered in the place of another is none that was shown before.
    let other = 61_000 + 61 * 256;
    assert_eq!(layer.cost(&cluster(other, 2000, 0), 65536), 976);
}

#[test]
fn the_tables_are_asked_once_for_a_long_answer() {
    let mut layer = layer();
    let file = [0; 512];
    let whole = layer.map(&mut &file[..], 100).unwrap();
    assert_eq!(whole.length, 412);
    let entries = layer.entries;
    let part = layer.map(&mut &file[..], 300).unwrap();
    assert_eq!(whole.behind(200), Some(part));
    assert_eq!(layer.entries, entries);
    // What is before it is none of it.
    assert_eq!(layer.map(&mut &file[..], 0).unwrap().length, 512);
    assert!(layer.entries < entries);
}

#[test]
fn work_is_done_as_long_as_there_is_any_left_of_what_may_be() {
    let mut left = 100;
    assert!(spend(&mut left, 60, 5).is_ok() && spend(&mut left, 40, 6).is_ok());
    assert!(spend(&mut left, 0, 7).is_ok());
    let error = spend(&mut left, 1, 8).unwrap_err();
    let finding = Finding {
        reason: Reason::TooMuchWork,
        at: 8,
        value: 1,
    };
    assert!(matches!(error, Error::Refused(found) if found == finding));
    let budgets = |length| {
        let layer = Layer::new(layer().image, length);
        (layer.budget, layer.entries)
    };
    assert_eq!(budgets(512), (1 << 20, 1 << 22));
    assert_eq!(budgets(1 << 30), (8 << 30, 1 << 30));
    assert_eq!(budgets(u64::MAX), (u64::MAX, 1 << 32));
    // Of every two clusters one may be a table that has to be read by itself.
    let entries = |length, cluster| most_entries(length, Some(cluster), false);
    assert_eq!(entries(64 << 20, 512), (64 << 20) + (2000 << 16));
    assert_eq!(entries(u64::MAX, 512), 1 << 32);
    // The largest VHD, with the smallest blocks that are usual, of which each has a bitmap.
    let (largest, block) = (2 << 40, 512 << 10);
    let entries = most_entries(largest, Some(block), true);
    assert!(entries > largest / block * (LOAD + 2), "{entries}");
}
