//! What a request costs the device's thread beside its data. Run it alone, optimised:
//! `cargo test --release --lib cost -- --ignored --nocapture`.
#![allow(clippy::print_stdout)]

use std::time::Instant;

use super::*;
use crate::virtio::testing::DATA;

/// A backend that does nothing, so that only the device is measured.
struct Nothing;

impl Storage for Nothing {
    fn read_at(&self, _: u64, _: &[VolatileSlice<'_>]) -> io::Result<()> {
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[VolatileSlice<'_>]) -> io::Result<()> {
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
#[ignore = "a measurement: its result depends on the machine"]
fn cost_of_a_request_of_one_sector() {
    const REQUESTS: u16 = 512;
    let memory = memory();
    let line = Arc::new(NotificationLine::new().unwrap());
    let storage = Arc::new(Nothing);
    let block = Arc::new(Block::new(&config(512, false), storage, memory.clone(), line).unwrap());
    let mut driver = Driver::new(block.clone(), memory);
    driver.start(VERSION_1, 2048);
    let mut heads = Vec::new();
    for slot in 0..REQUESTS {
        let (header, status) = driver.header(slot, IN, slot.into());
        let data = DATA + u64::from(slot) * 512;
        heads.push(driver.chain(&[(header, 16, 0), (data, 512, WRITE), (status, 1, WRITE)]));
    }
    let mut best = Duration::MAX;
    for _ in 0..200 {
        heads.iter().for_each(|&head| driver.make_available(head));
        let start = Instant::now();
        block.handle_kick(0);
        best = best.min(start.elapsed());
    }
    assert_eq!(block.counters().requests, 200 * u64::from(REQUESTS));
    println!("{:?} a request", best / u32::from(REQUESTS));
}
