//! The bytes that docs/request.md shows are those of a run: the built-in guest copies two sectors,
//! and its queue is looked at when its reads arrive, when they are answered, and when it has ended.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use common::{needs_kvm, test};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, VolatileSlice};
use vmm::cli::{Command, parse};
use vmm::config::ProgressPercent;
use vmm::machine::{Machine, Ports, open_kvm};
use vmm::operations::copy::{GUEST, InputFacts, Reports, config_frame};
use vmm::report::Console;
use vmm::runtime::{JustRun, Runner, SerialPort, Worker};
use vmm::sandbox::Calls;
use vmm::storage::{MemoryStorage, Storage};
use vmm::virtio::block::{Block, BlockConfig, ID_BYTES};

fn main() -> std::process::ExitCode {
    common::harness::main()
}

const PAGE: &str = include_str!("../docs/request.md");
const QUEUE: u64 = 0x10_0000;
const POOL: u64 = 0x20_0000;
const SECTOR: usize = 512;

/// The queue and the data of the input disk at one moment.
#[derive(Clone)]
struct Picture {
    queue: Vec<u8>,
    data: Vec<u8>,
}

impl Picture {
    fn of(memory: &GuestMemoryMmap) -> Self {
        let read = |address, len| {
            let mut bytes = vec![0; len];
            memory
                .read_slice(&mut bytes, GuestAddress(address))
                .unwrap();
            bytes
        };
        Self {
            queue: read(QUEUE, 0x1_0000),
            data: read(POOL, 2 * SECTOR),
        }
    }

    fn at(&self, address: u64, len: usize) -> &[u8] {
        let (start, bytes) = match address {
            POOL.. => (POOL, &self.data),
            _ => (QUEUE, &self.queue),
        };
        let first = usize::try_from(address - start).unwrap();
        &bytes[first..first + len]
    }
}

/// A storage that takes a picture at its first transfer, and remembers what it was asked for.
struct Watched {
    storage: MemoryStorage,
    memory: GuestMemoryMmap,
    first: Mutex<Option<(Picture, u64, Vec<usize>)>>,
}

impl Watched {
    fn new(bytes: Vec<u8>, memory: GuestMemoryMmap) -> Arc<Self> {
        Arc::new(Self {
            storage: MemoryStorage::new(bytes),
            memory,
            first: Mutex::default(),
        })
    }

    fn look(&self, offset: u64, buffers: &[VolatileSlice<'_>]) {
        let lengths = buffers.iter().map(VolatileSlice::len).collect();
        let mut first = self.first.lock().unwrap();
        first.get_or_insert_with(|| (Picture::of(&self.memory), offset, lengths));
    }
}

impl Storage for Watched {
    fn read_at(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.look(offset, buffers);
        self.storage.read_at(offset, buffers)
    }

    fn write_at(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.look(offset, buffers);
        self.storage.write_at(offset, buffers)
    }

    fn flush(&self) -> io::Result<()> {
        self.storage.flush()
    }
}

/// The lines of the blocks that the page shows of one moment: address and bytes.
fn shown(moment: &str) -> Vec<(u64, Vec<u8>)> {
    let fence = format!("```{moment}\n");
    let blocks = PAGE
        .split(&fence)
        .skip(1)
        .filter_map(|rest| rest.split("```").next());
    let line = |line: &str| {
        let bytes = line.split(';').next()?;
        let mut words = bytes.split_whitespace();
        let address = u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).unwrap();
        let bytes = words
            .map(|word| u8::from_str_radix(word, 16).unwrap())
            .collect();
        Some((address, bytes))
    };
    let lines: Vec<_> = blocks.flat_map(str::lines).filter_map(line).collect();
    assert!(!lines.is_empty(), "the page shows nothing {moment}");
    lines
}

fn block(storage: Arc<Watched>, read_only: bool, machine: &Machine) -> Arc<Block<Arc<Watched>>> {
    let config = BlockConfig {
        capacity: 2 * SECTOR as u64,
        sector_size: 512,
        read_only,
        zeroes: false,
        id: [0; ID_BYTES],
    };
    let (memory, line) = (machine.memory().clone(), machine.line());
    Arc::new(Block::new(&config, storage, memory, line).unwrap())
}

/// What the page says of the input: sector 0 is full of 0xa0 and sector 1 of 0xa1.
fn input() -> Vec<u8> {
    [[0xa0; SECTOR], [0xa1; SECTOR]].concat()
}

#[test]
fn the_bytes_of_the_page_are_those_of_a_run() {
    needs_kvm!();
    let arguments =
        "--input a --output b --request-size 512 --queue-depth 2 --progress-percent 100";
    let arguments: Vec<_> = arguments.split(' ').map(Into::into).collect();
    let Ok(Command::Run(config)) = parse(&arguments) else {
        panic!("these are arguments of a copy");
    };
    let mut machine = Machine::new(open_kvm().unwrap(), 2).unwrap();
    let memory = machine.memory().clone();
    let source = Watched::new(input(), memory.clone());
    let target = Watched::new(vec![0; 2 * SECTOR], memory.clone());
    let disks = [
        block(source.clone(), true, &machine),
        block(target.clone(), false, &machine),
    ];
    for disk in &disks {
        machine.add_virtio(disk.clone()).unwrap();
    }
    let com1 = SerialPort::for_reports().unwrap();
    let com2 = SerialPort::for_debug().unwrap();
    for (first, port) in [(0x3f8, &com1), (0x2f8, &com2)] {
        machine
            .add_pio(Ports::new(first, 8), port.uart.clone())
            .unwrap();
    }
    machine.add_exit_port(0xf4).unwrap();
    machine.add_idle_port(0xf5, None).unwrap();
    let facts = InputFacts::of_data(2 * SECTOR as u64);
    let frame = config_frame(
        &config,
        Reports::new(&config, 2, Some(ProgressPercent::default())),
        &facts,
    )
    .unwrap();
    com1.uart.queue_input(&frame);
    let runner = Runner::new(machine.boot(GUEST).unwrap())
        .reports(&com1)
        .debug(&com2)
        .confined(false);
    let workers = disks.map(|disk| Worker {
        name: "disk",
        subscriber: disk,
        calls: Calls::new(),
    });
    let runner = workers.into_iter().fold(runner, Runner::worker);
    let outcome = runner.run(&mut JustRun, Console::default()).unwrap();
    outcome.result.unwrap();

    let (asked, offset, lengths) = source.first.lock().unwrap().take().unwrap();
    assert_eq!(
        (offset, &lengths[..]),
        (0, &[2 * SECTOR][..]),
        "one call for both, and one piece, since the buffers are neighbours"
    );
    let (answered, ..) = target.first.lock().unwrap().take().unwrap();
    assert_eq!(answered.data, input());
    let ended = Picture::of(&memory);
    let moments = BTreeMap::from([("asked", asked), ("answered", answered), ("ended", ended)]);
    for (moment, picture) in moments {
        for (address, bytes) in shown(moment) {
            assert_eq!(
                picture.at(address, bytes.len()),
                bytes,
                "{moment}, at {address:#x}; found {:02x?}",
                picture.at(address, bytes.len())
            );
        }
    }
}
