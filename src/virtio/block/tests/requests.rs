//! What the device does for a driver that keeps to the rules, and how it answers requests that
//! cannot succeed (virtio 1.2, section 5.2.6).

use event_manager::{EventManager, SubscriberOps};

use super::super::NewBlockError;
use super::*;
use crate::virtio::testing::{
    AVAIL_RING, DATA, EVENT_IDX, HEADERS, INDIRECT, INDIRECT_DESC, MEMORY_SIZE, NEXT,
};

/// A descriptor: address, length, flags.
type Part = (u64, u32, u16);

#[test]
fn the_device_says_what_it_is_and_what_it_offers() {
    let rig = Rig::with(512, true);
    assert_eq!(rig.driver.read(8), 2, "a block device");
    assert_eq!(rig.driver.read(0xfc), 0, "its configuration never changes");
    let offered = rig.block.device_features();
    assert_eq!(offered, config(512, true).features());
    let (low, high) = (rig.driver.read(0x100), rig.driver.read(0x104));
    assert_eq!((u64::from(low), high), (CAPACITY / 512, 0));
}

#[test]
#[cfg_attr(miri, ignore = "Miri knows no limits of a process")]
fn a_host_without_another_descriptor_is_told_with_what_to_raise() {
    let source = io::Error::from_raw_os_error(libc::EMFILE);
    let told = NewBlockError::EventFd(source).to_string();
    assert!(told.ends_with("raise ulimit -n)"), "{told}");
}

#[test]
fn a_read_fills_the_buffer_and_a_write_stores_it() {
    let mut rig = Rig::new();
    let read = rig.send(IN, 3, &[(DATA, 1024, WRITE), (STATUS, 1, WRITE)]);
    assert_eq!(read, Some((OK, 1025)));
    assert_eq!(rig.guest_bytes(DATA, 1024), [[3; 512], [4; 512]].concat());
    let write = rig.send(OUT, 9, &[(DATA, 1024, 0), (STATUS, 1, WRITE)]);
    assert_eq!(write, Some((OK, 1)));
    let stored = rig.block.storage().storage.contents();
    assert_eq!(stored[9 * 512..11 * 512], [[3; 512], [4; 512]].concat());
    let counters = rig.block.counters();
    assert_eq!((counters.bytes_read, counters.bytes_written), (1024, 1024));
    assert_eq!((counters.requests, counters.errors), (2, 0));
}

#[test]
fn framing_is_the_drivers_choice() {
    let mut rig = Rig::new();
    let (header, status) = rig.driver.header(0, IN, 5);
    // The header in three pieces, one of them empty; the data and the status in two.
    let chain = [
        (header, 1, 0),
        (header, 0, 0),
        (header + 1, 15, 0),
        (DATA, 100, WRITE),
        (DATA + 100, 413, WRITE),
    ];
    let answer = rig.send_chain(&chain, DATA + 512);
    assert_eq!(answer, Some((OK, 513)));
    assert_eq!(rig.guest_bytes(DATA, 512), [5; 512]);
    assert_eq!(rig.driver.byte(status), UNANSWERED);

    // Header and data in one piece.
    let (header, _) = rig.driver.header(0, OUT, 6);
    rig.driver
        .memory
        .write_slice(&[0x77; 512], GuestAddress(header + 16))
        .unwrap();
    let answer = rig.send_chain(&[(header, 16 + 512, 0), (DATA, 1, WRITE)], DATA);
    assert_eq!(answer, Some((OK, 1)));
    assert_eq!(
        rig.block.storage().storage.contents()[6 * 512..7 * 512],
        [0x77; 512]
    );
}

#[test]
fn a_request_in_an_indirect_table_is_carried_out() {
    // The second table is longer than any queue, and the request lies at both of its ends.
    for (length, places) in [(3, [0, 1, 2]), (5000, [0, 4998, 4999])] {
        let mut rig = Rig::with(512, false);
        rig.start(VERSION_1 | INDIRECT_DESC);
        let (header, status) = rig.driver.header(0, IN, 2);
        let table = DATA + 0x1000;
        let parts = [
            (header, 16, NEXT),
            (DATA, 512, NEXT | WRITE),
            (status, 1, WRITE),
        ];
        for (index, (address, len, flags)) in parts.into_iter().enumerate() {
            let next = places.get(index + 1).copied().unwrap_or(0);
            let driver = &rig.driver;
            driver.write_descriptor(table, places[index], address, len, flags, next);
        }
        let answer = rig.send_chain(&[(table, length * 16, INDIRECT)], status);
        assert_eq!(answer, Some((OK, 513)), "{length}");
    }
}

#[test]
fn a_flush_reaches_the_backend() {
    let mut rig = Rig::new();
    assert_eq!(rig.send(FLUSH, 0, &[(STATUS, 1, WRITE)]), Some((OK, 1)));
    assert_eq!(rig.calls(), [(IoOperation::Flush, 0, 0, 0)]);
}

#[test]
fn get_id_writes_as_much_as_there_is_room_for() {
    let mut rig = Rig::new();
    for (room, written, used) in [(20, 20, 21), (40, 20, 20), (5, 5, 6)] {
        let answer = rig.send(GET_ID, 0, &[(DATA, room, WRITE), (STATUS, 1, WRITE)]);
        assert_eq!(answer, Some((OK, used)));
        let written = usize::try_from(written).unwrap();
        assert_eq!(rig.guest_bytes(DATA, written), ID[..written]);
    }
    let split = [
        (DATA, 3, WRITE),
        (DATA + 0x100, 17, WRITE),
        (STATUS, 1, WRITE),
    ];
    assert_eq!(rig.send(GET_ID, 0, &split), Some((OK, 21)));
    assert_eq!(rig.guest_bytes(DATA + 0x100, 17), ID[3..]);
}

#[test]
fn a_read_only_disk_refuses_writes_and_answers_the_rest() {
    let mut rig = Rig::with(512, true);
    rig.start(VERSION_1);
    let status = (STATUS, 1, WRITE);
    assert_eq!(
        rig.send(OUT, 0, &[(DATA, 512, 0), status]),
        Some((IOERR, 1))
    );
    assert_eq!(rig.calls(), []);
    assert_eq!(rig.send(FLUSH, 0, &[status]), Some((OK, 1)));
    assert_eq!(
        rig.send(GET_ID, 0, &[(DATA, 20, WRITE), status]),
        Some((OK, 21))
    );
    rig.assert_alive();
}

#[test]
fn unknown_types_are_unsupported() {
    let mut rig = Rig::new();
    for kind in [2, 3, 5, 11, 13, 14, u32::MAX] {
        let answer = rig.send(kind, 0, &[(DATA, 512, 0), (STATUS, 1, WRITE)]);
        assert_eq!(answer, Some((UNSUPP, 1)), "type {kind}");
    }
    rig.assert_alive();
}

#[test]
fn requests_that_are_not_whole_sectors_of_the_disk_get_ioerr() {
    let mut rig = Rig::with(4096, false);
    rig.start(VERSION_1);
    let sectors = CAPACITY / 512;
    for (sector, len) in [
        (0, 0),
        (0, 1),
        (0, 512),
        (0, 4095),
        (0, 4097),
        (1, 4096),
        (7, 4096),
        (sectors, 4096),
        (sectors - 8, 8192),
        (u64::MAX, 4096),
        (u64::MAX / 512, 4096),
        (u64::MAX / 512 - 7, 4096),
        (1 << 55, 4096),
    ] {
        for (kind, flags) in [(IN, WRITE), (OUT, 0)] {
            let answer = rig.send(kind, sector, &[(DATA, len, flags), (STATUS, 1, WRITE)]);
            let written = u32::from(flags != WRITE || len == 0);
            assert_eq!(
                answer,
                Some((IOERR, written)),
                "sector {sector}, {len} bytes"
            );
        }
    }
    assert_eq!(rig.calls(), []);
    assert_eq!(
        rig.send(IN, sectors - 8, &[(DATA, 4096, WRITE), (STATUS, 1, WRITE)]),
        Some((OK, 4097))
    );
}

#[test]
fn data_in_the_wrong_direction_gets_ioerr() {
    let mut rig = Rig::new();
    let status = (STATUS, 1, WRITE);
    // The status byte alone is written: it is the beginning of what may be, or lies behind a gap.
    let wrong: [(u32, &[Part], u32); 5] = [
        (IN, &[(DATA, 512, 0), status], 1),
        (OUT, &[(DATA, 512, WRITE), status], 0),
        (IN, &[(DATA, 512, 0), (DATA, 512, WRITE), status], 0),
        (OUT, &[(DATA, 512, 0), (DATA, 512, WRITE), status], 0),
        (GET_ID, &[(DATA, 20, 0), status], 1),
    ];
    for (kind, parts, written) in wrong {
        assert_eq!(rig.send(kind, 0, parts), Some((IOERR, written)));
    }
    assert_eq!(
        rig.send(OUT, 0, &[status, (DATA, 512, 0)]),
        Some((IOERR, 1))
    );
    assert_eq!(rig.calls(), []);
    rig.assert_alive();
}

#[test]
fn a_header_that_is_short_or_not_in_memory_gets_ioerr() {
    let mut rig = Rig::new();
    let (header, status) = rig.driver.header(0, IN, 0);
    for (address, len) in [
        (header, 15),
        (header, 0),
        (MEMORY_SIZE, 16),
        (MEMORY_SIZE - 8, 16),
        (u64::MAX - 3, 16),
    ] {
        let chain = [(address, len, 0), (DATA, 512, WRITE), (status, 1, WRITE)];
        assert_eq!(rig.send_chain(&chain, status), Some((IOERR, 0)));
    }
    let no_header = [(DATA, 512, WRITE), (status, 1, WRITE)];
    assert_eq!(rig.send_chain(&no_header, status), Some((IOERR, 0)));
    rig.assert_alive();
}

#[test]
fn data_that_is_not_wholly_in_memory_gets_ioerr_and_moves_nothing() {
    let mut rig = Rig::new();
    for address in [
        MEMORY_SIZE,
        MEMORY_SIZE - 256,
        u64::MAX - 255,
        u64::MAX - 511,
        1 << 40,
    ] {
        for (kind, flags) in [(IN, WRITE), (OUT, 0), (GET_ID, WRITE)] {
            let len = if kind == GET_ID { 20 } else { 512 };
            // GET_ID fits below the end of memory at the second address.
            if kind == GET_ID && address < MEMORY_SIZE {
                continue;
            }
            let parts = [(address, len, flags), (STATUS, 1, WRITE)];
            let written = u32::from(flags != WRITE);
            let answer = rig.send(kind, 0, &parts);
            assert_eq!(answer, Some((IOERR, written)), "{address:#x}");
        }
    }
    assert_eq!(rig.calls(), []);
    rig.assert_alive();
}

#[test]
fn more_or_larger_segments_than_announced_get_ioerr() {
    let mut rig = Rig::with(512, false);
    rig.driver.start(VERSION_1, 256);
    rig.work();
    let mut parts = vec![(DATA, 512, WRITE); 127];
    parts.push((STATUS, 1, WRITE));
    assert_eq!(rig.send(IN, 0, &parts), Some((IOERR, 0)));
    parts.remove(0);
    assert_eq!(rig.send(IN, 0, &parts), Some((OK, 126 * 512 + 1)));
    let large = [(DATA, (1 << 20) + 512, WRITE), (STATUS, 1, WRITE)];
    assert_eq!(rig.send(IN, 0, &large), Some((IOERR, 0)));
    let largest = [(DATA, 1 << 20, WRITE), (STATUS, 1, WRITE)];
    assert_eq!(rig.send(IN, 0, &largest), Some((OK, (1 << 20) + 1)));
    let wraps = [
        (DATA, u32::MAX, WRITE),
        (DATA, u32::MAX, WRITE),
        (STATUS, 1, WRITE),
    ];
    assert_eq!(rig.send(IN, 0, &wraps), Some((IOERR, 0)));
}

#[test]
#[cfg_attr(miri, ignore = "Miri knows edge-triggered epoll alone")]
fn a_kick_that_an_event_loop_cannot_watch_is_told_of() {
    let rig = Rig::new();
    let mut events = EventManager::new().unwrap();
    events.add_subscriber(rig.block.clone());
    assert!(rig.block.unwatched_kick().is_none());
    // One event loop watches a descriptor once.
    events.add_subscriber(rig.block.clone());
    assert!(rig.block.unwatched_kick().is_some());
}

#[test]
fn many_used_buffers_make_one_notification() {
    let mut rig = Rig::new();
    assert!(!rig.line.take());
    for slot in 0..20 {
        rig.push(slot, IN, u64::from(slot) * 2, (DATA, 512));
    }
    rig.work();
    assert!(rig.line.take());
    assert_eq!(rig.block.notifier().status(), 1);
}

#[test]
fn notifications_that_the_driver_suppresses_are_not_sent_but_counted_as_completions() {
    let mut rig = Rig::new();
    rig.driver
        .memory
        .write_obj(1u16, GuestAddress(AVAIL_RING))
        .unwrap();
    rig.push(0, IN, 0, (DATA, 512));
    rig.work();
    assert!(!rig.line.take());
    assert_eq!(rig.line.completions(), 1);

    let mut rig = Rig::with(512, false);
    rig.start(VERSION_1 | EVENT_IDX);
    let used_event = GuestAddress(AVAIL_RING + 4 + 64 * 2);
    rig.driver.memory.write_obj(2u16, used_event).unwrap();
    for slot in 0..2 {
        rig.push(slot, IN, 0, (DATA, 512));
    }
    rig.work();
    assert!(!rig.line.take());
    rig.push(2, IN, 0, (DATA, 512));
    rig.work();
    assert!(rig.line.take());
}

#[test]
fn an_empty_queue_asks_for_a_kick_with_the_next_buffer() {
    let mut rig = Rig::with(512, false);
    rig.start(VERSION_1 | EVENT_IDX);
    for slot in 0..3 {
        rig.push(slot, IN, 0, (DATA, 512));
    }
    rig.work();
    let avail_event = GuestAddress(crate::virtio::testing::USED_RING + 4 + 64 * 8);
    let event: u16 = rig.driver.memory.read_obj(avail_event).unwrap();
    assert_eq!(event, 3);
}

#[test]
fn what_was_available_before_driver_ok_is_looked_at_without_a_kick() {
    let mut rig = Rig::new();
    assert!(!rig.block.in_flight());
    rig.driver.start(VERSION_1, 64);
    assert!(rig.block.in_flight());
    rig.work();
    assert!(!rig.block.in_flight());
}

#[test]
fn a_kick_is_in_flight_until_the_queue_has_been_looked_at() {
    let mut rig = Rig::new();
    rig.push(0, IN, 0, (DATA, 512));
    rig.driver.write(0x50, 0);
    assert!(rig.block.in_flight());
    rig.work();
    assert!(!rig.block.in_flight());
    assert_eq!(rig.driver.used_index(), 1);
}

#[test]
fn more_work_than_one_round_is_continued_in_the_next() {
    let mut rig = Rig::with(512, false);
    rig.driver.start(VERSION_1, 1024);
    rig.work();
    // 64 requests of 1 MiB each: four rounds.
    for slot in 0..64 {
        rig.push(slot, IN, 0, (DATA, 1 << 20));
    }
    let mut rounds = 0;
    rig.driver.write(0x50, 0);
    while rig.block.in_flight() {
        rig.work();
        rounds += 1;
    }
    assert_eq!(rig.driver.used_index(), 64);
    assert!(rounds >= 4, "{rounds}");
}

#[test]
#[cfg_attr(miri, ignore = "70,000 requests take Miri hours")]
fn the_ring_goes_round_many_times() {
    let mut rig = Rig::with(512, false);
    rig.driver.start(VERSION_1, 4);
    rig.work();
    for round in 0..70_000u64 {
        let head = rig.driver.chain(&[(HEADERS, 16, 0), (STATUS, 1, WRITE)]);
        if round == 0 {
            rig.driver.header(0, FLUSH, 0);
        }
        rig.driver.make_available(head);
        rig.work();
        assert_eq!(rig.driver.pop_used(), Some((head.into(), 1)));
    }
    assert_eq!(rig.block.counters().requests, 70_000);
}

/// What a disk that has just refused this request says of it.
fn refused(mut rig: Rig, kind: u32, sector: u64, parts: &[Part]) -> String {
    rig.start(VERSION_1);
    assert_eq!(rig.block.first_refusal(), None);
    let parts = [parts, &[(STATUS, 1, WRITE)]].concat();
    let (status, _) = rig.send(kind, sector, &parts).unwrap();
    assert!([IOERR, UNSUPP].contains(&status));
    rig.assert_alive();
    rig.block.first_refusal().unwrap()
}

#[test]
fn what_is_refused_first_is_kept_with_the_reason() {
    let end = CAPACITY / 512;
    let past = format!("past its end of {end} sectors of 512 bytes");
    let memory = "whose data is not within the memory that devices may use";
    let direction = "whose descriptors are for the other direction";
    let rig = || Rig::with(512, false);
    let outside = 1 << 40;
    let told = |kind, sector, parts: &[Part]| refused(rig(), kind, sector, parts);
    let read = (DATA, 1024, WRITE);
    assert_eq!(
        told(IN, end - 1, &[read]),
        format!("a read of 1024 bytes at sector {}, {past}", end - 1)
    );
    assert_eq!(
        told(IN, 3, &[(outside, 512, WRITE)]),
        format!("a read of 512 bytes at sector 3, {memory}")
    );
    assert_eq!(
        told(OUT, 3, &[read]),
        format!("a write of 1024 bytes at sector 3, {direction}")
    );
    assert_eq!(
        told(OUT, 3, &[]),
        "a write of 0 bytes at sector 3, which are no whole sectors of 512 bytes"
    );
    assert_eq!(
        told(GET_ID, 0, &[(outside, 20, WRITE)]),
        format!("one for its name (GET_ID), {memory}")
    );
    assert_eq!(
        refused(Rig::with(512, true), OUT, 0, &[(DATA, 512, 0)]),
        "a write of 512 bytes at sector 0, on a disk that can only be read"
    );
    let late = told(IN, 0, &[read, (DATA, 512, 0)]);
    assert!(late.ends_with("those to be written"), "{late}");
}

#[test]
fn only_the_first_refusal_is_kept_over_resets_too() {
    let mut rig = Rig::new();
    rig.send(5, 0, &[(STATUS, 1, WRITE)]);
    rig.driver.write(0x70, 0);
    rig.start(VERSION_1);
    rig.send(IN, 0, &[(STATUS, 1, WRITE)]);
    let told = rig.block.first_refusal();
    assert_eq!(
        told.as_deref(),
        Some("one of type 5, which it does not know")
    );
}
