//! A guest that does nothing but end, booted as a copy's guest is: in a machine of its own, on a
//! confined thread, watched by a confined main loop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use guest_abi::ports::EXIT;
use vmm_sys_util::eventfd::EventFd;

use super::{Finding, State, Talk, refuse};
use crate::machine::{self, Machine, Vcpu};
use crate::operations::disk::{DiskShape, INPUT, OUTPUT};
use crate::operations::ports::SerialPorts;
use crate::report::Console;
use crate::runtime::{Deadline, JustRun, Outcome, RunError, Runner, Signals, Watch, Worker};
use crate::sandbox::Calls;
use crate::storage::MemoryStorage;

/// What the finding is about.
pub(super) const WHAT: &str = "guest";

/// `mov dx, EXIT; mov al, 0; out dx, al`.
const GUEST: [u8; 7] = {
    let [low, high] = EXIT.to_le_bytes();
    [0x66, 0xba, low, high, 0xb0, 0x00, 0xee]
};
/// The names of the disks of a copy, and how long theirs are here, in bytes.
const DISKS: [&str; 2] = [INPUT, OUTPUT];
const SECTOR: u32 = 512;
/// How many files a copy has open that are none of the machine's.
const FILES: usize = 6;
/// How long the guest may take. It takes milliseconds, or seconds on a host that is itself emulated.
const LIMIT: Duration = Duration::from_secs(30);

/// Boots it and tells how it went. The process is confined from then on.
///
/// # Errors
///
/// The exit status, where nothing more is to be said: a signal has ended the run.
pub(super) fn boot(talk: Talk, signals: Signals, watch: &Watch) -> Result<(Talk, Signals), u8> {
    let Talk {
        console,
        format,
        missing,
    } = talk;
    let begun = Instant::now();
    let ran = Trial::new().and_then(|trial| {
        let runner = Runner::new(trial.vcpu)
            .signals(signals)
            .watched_by(watch)
            .deadline(Deadline::after(LIMIT));
        let runner = trial.workers.into_iter().fold(runner, Runner::worker);
        trial.ports.listen(runner).run(&mut JustRun, console)
    });
    let (console, signals, result) = match ran {
        Ok(Outcome {
            result,
            console,
            signals,
            ..
        }) => (console, signals, result.map(drop)),
        Err(error) => {
            let signals = watch.take_over_signals();
            let signals = signals.map_err(|error| refuse(format, &error))?;
            let mut console = Console::open(super::options());
            console.count_beats(watch.beats());
            (console, signals, Err(error))
        }
    };
    let mut talk = Talk {
        console,
        format,
        missing,
    };
    if let Err(error @ RunError::Signal(_)) = &result {
        return Err(talk.break_off(error, &signals));
    }
    let milliseconds = begun.elapsed().as_secs_f64() * 1e3;
    talk.tell(&match result {
        Ok(()) => Finding::new(
            WHAT,
            State::Ok,
            format!("booted in the sandbox and ended as it should, in {milliseconds:.1} ms"),
        ),
        Err(error) => Finding::new(WHAT, State::Missing, error.to_string()),
    });
    Ok((talk, signals))
}

/// What a copy has: as many open files, threads and devices, so that limits on them show here.
struct Trial {
    vcpu: Vcpu,
    ports: SerialPorts,
    workers: Vec<Worker>,
    /// As many as the input, the output and its folder take.
    _files: Vec<EventFd>,
}

impl Trial {
    fn new() -> Result<Self, RunError> {
        let mut machine = Machine::new(machine::open_kvm()?, DISKS.len())?;
        let (mut slots, mut workers) = (Vec::new(), Vec::new());
        for name in DISKS {
            let shape = DiskShape {
                name,
                length: SECTOR.into(),
                sector_size: SECTOR,
                read_only: false,
                zeroes: false,
            };
            let storage = Arc::new(MemoryStorage::new(vec![0; SECTOR as usize]));
            let disk = shape.disk(&storage, &machine)?;
            slots.push(machine.add_virtio(disk.clone())?);
            workers.push(Worker {
                name,
                subscriber: disk,
                calls: Calls::new(),
            });
        }
        let ports = SerialPorts::new(&[])?;
        // Of a kind that needs nothing below /dev, where a container may have little more than /dev/kvm.
        let files = (0..FILES).map(|_| EventFd::new(0));
        Ok(Self {
            vcpu: ports.boot(machine, slots, &GUEST)?,
            ports,
            workers,
            _files: files
                .collect::<Result<_, _>>()
                .map_err(RunError::host("open a file"))?,
        })
    }
}
