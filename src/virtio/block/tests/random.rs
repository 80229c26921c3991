//! Random register writes, queue memory and kicks: the device neither panics nor hangs, and a
//! reset brings it back whatever came before. The seed is fixed, so that a failure is repeatable.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use vm_device::DeviceMmio;
use vm_device::bus::MmioAddress;

use super::*;
use crate::virtio::testing::{
    AVAIL_RING, DATA, DESC_TABLE, EVENT_IDX, HEADERS, INDIRECT_DESC, MEMORY_SIZE, USED_RING,
};

#[derive(Clone, Debug)]
enum Step {
    Write(u64, Vec<u8>),
    Read(u64, usize),
    Start(bool, u16),
    Descriptor {
        table: u64,
        index: u16,
        address: u64,
        len: u32,
        flags: u16,
        next: u16,
    },
    Header(u16, u32, u64),
    /// A request in good order, if its parts are: kind, sector, address, length.
    Request(u32, u64, u64, u32),
    Available(u16),
    AvailIndex(u16),
    Poke(u64, u64),
    Kick,
    Work,
}

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => (0..64u64).prop_map(|slot| HEADERS + slot * 16),
        4 => (0..64u64).prop_map(|slot| DATA + slot * 512),
        1 => prop::sample::select(vec![DESC_TABLE, AVAIL_RING, USED_RING, USED_RING + 2]),
        1 => (0..1024u64).prop_map(|back| MEMORY_SIZE - back),
        1 => any::<u64>(),
    ]
}

fn length() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => prop::sample::select(vec![0, 1, 15, 16, 17, 32, 48, 511, 512, 513, 1024, 4096]),
        1 => any::<u32>(),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let register = prop_oneof![
        (0..0x48u64).prop_map(|word| word * 4),
        0..0x140u64,
        any::<u64>()
    ];
    let value = prop_oneof![
        prop::sample::select(vec![0u32, 1, 3, 0xb, 0xf, 8, 16, 0x80, 0x1_0000]),
        any::<u32>()
    ];
    let kind = prop::sample::select(vec![IN, IN, OUT, OUT, FLUSH, GET_ID, 11]);
    let table = prop_oneof![3 => Just(DESC_TABLE), 1 => Just(DATA)];
    prop_oneof![
        2 => (register.clone(), value).prop_map(|(at, value)| {
            Step::Write(at, value.to_le_bytes().to_vec())
        }),
        1 => (register.clone(), prop::collection::vec(any::<u8>(), 0..9))
            .prop_map(|(at, bytes)| Step::Write(at, bytes)),
        1 => (register, 0..17usize).prop_map(|(at, size)| Step::Read(at, size)),
        3 => (any::<bool>(), 0..6u16).prop_map(|(all, shift)| Step::Start(all, 1 << shift)),
        4 => (table, 0..32u16, address(), length(), 0..8u16, 0..34u16).prop_map(
            |(table, index, address, len, flags, next)| {
                Step::Descriptor { table, index, address, len, flags, next }
            }
        ),
        4 => (0..32u16, prop_oneof![0..14u32, any::<u32>()], prop_oneof![0..2050u64, any::<u64>()])
            .prop_map(|(slot, kind, sector)| Step::Header(slot, kind, sector)),
        2 => (0..34u16).prop_map(Step::Available),
        24 => (kind, 0..2050u64, address(), length())
            .prop_map(|(kind, sector, address, len)| Step::Request(kind, sector, address, len)),
        1 => any::<u16>().prop_map(Step::AvailIndex),
        1 => (address(), any::<u64>()).prop_map(|(at, value)| Step::Poke(at, value)),
        2 => Just(Step::Kick),
        12 => Just(Step::Work),
    ]
}

impl Rig {
    fn take(&mut self, step: Step) {
        let base = MmioAddress(0);
        match step {
            Step::Write(offset, bytes) => self.driver.transport.mmio_write(base, offset, &bytes),
            Step::Read(offset, size) => {
                let mut data = vec![0xaa; size];
                self.driver.transport.mmio_read(base, offset, &mut data);
            }
            Step::Start(all, size) => {
                let more = EVENT_IDX | INDIRECT_DESC | F_FLUSH;
                let features = if all { more } else { 0 };
                self.driver.start(VERSION_1 | features, size);
            }
            Step::Descriptor {
                table,
                index,
                address,
                len,
                flags,
                next,
            } => {
                self.driver
                    .write_descriptor(table, index, address, len, flags, next);
            }
            Step::Header(slot, kind, sector) => {
                self.driver.header(slot, kind, sector);
            }
            Step::Request(kind, sector, address, len) => {
                self.push(3, kind, sector, (address, len));
            }
            Step::Available(head) => self.driver.make_available(head),
            Step::AvailIndex(index) => self.driver.set_avail_index(index),
            Step::Poke(address, value) => {
                let _ = self.driver.memory.write_obj(value, GuestAddress(address));
            }
            Step::Kick => self.driver.write(0x50, 0),
            Step::Work => self.work(),
        }
    }
}

#[test]
fn random_drivers_neither_crash_nor_hang_the_disk() {
    let config = Config {
        cases: if cfg!(miri) { 2 } else { 1000 },
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let longest = if cfg!(miri) { 30 } else { 120 };
    let steps = prop::collection::vec(step(), 1..longest);
    runner
        .run(&(steps, any::<bool>()), |(steps, read_only)| {
            let mut rig = Rig::with(512, read_only);
            rig.driver.start(VERSION_1 | INDIRECT_DESC, 32);
            for step in steps {
                rig.take(step);
            }
            for _ in 0..100 {
                rig.work();
            }
            prop_assert!(!rig.block.in_flight(), "the disk never comes to rest");
            if read_only {
                let wrote = rig.calls().iter().any(|call| call.0 == IoOperation::Write);
                prop_assert!(!wrote, "a read-only disk was written to");
            }
            rig.driver
                .memory
                .write_obj(0u64, GuestAddress(AVAIL_RING))
                .unwrap();
            rig.start(VERSION_1);
            *rig.block.storage().bad.lock().unwrap() = 0..0;
            let answer = rig.send(FLUSH, 0, &[(HEADERS + 16, 1, WRITE)]);
            prop_assert_eq!(answer, Some((OK, 1)));
            Ok(())
        })
        .unwrap();
}
