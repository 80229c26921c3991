//! Which pieces of a large cluster are read.
#![allow(clippy::unwrap_used)]

use guest_formats::{Codec, Marker};
use guest_kit::testing::memory::leak;

use super::*;

#[test]
fn a_cluster_is_read_in_pieces_of_whole_sectors_and_nothing_behind_it() {
    let cluster = Compressed {
        offset: 700,
        length: 300_000,
        codec: Codec::Deflate,
        least: 1 << 20,
        size: 1 << 20,
        skip: 0,
        marker: Marker::None,
    };
    let mut pool = Pool::new(leak(2 << 20));
    let mut large = Large::default();
    assert!(large.is_quiet() && large.next_read(&mut pool).is_none());
    assert!(large.begin(3, &cluster, 0).unwrap());
    assert!(!large.begin(3, &cluster, 0).unwrap(), "it has begun");
    let mut next = 512;
    for number in 0..MOST_READS {
        let wanted = large.next_read(&mut pool).unwrap();
        assert_eq!(
            (wanted.start, wanted.len, wanted.number),
            (next, PIECE, number)
        );
        next += to_u64(PIECE);
    }
    assert!(
        large.next_read(&mut pool).is_none(),
        "as many as there may be"
    );
    assert!(!large.is_quiet());
    // As if they had been inflated.
    let mut rest = Vec::new();
    while next < 301_056 {
        let stream = large.stream.as_mut().unwrap();
        stream.reads.front_mut().unwrap().there = true;
        pool.give(stream.take().unwrap().place);
        let wanted = large.next_read(&mut pool).unwrap();
        assert_eq!(wanted.start, next);
        next += to_u64(wanted.len);
        rest.push(wanted.len);
    }
    // The last byte is number 300,699.
    assert_eq!((next, rest), (301_056, vec![PIECE, 300_544 - 4 * PIECE]));
    let stream = large.stream.as_mut().unwrap();
    stream.reads.front_mut().unwrap().there = true;
    pool.give(stream.take().unwrap().place);
    assert!(
        large.next_read(&mut pool).is_none(),
        "there is no more of it"
    );
}
