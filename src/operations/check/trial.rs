//! A guest that does nothing but end, booted as a copy's guest is: in a machine of its own, on a
//! confined thread, watched by a confined main loop.

use std::time::{Duration, Instant};

use guest_abi::ports::EXIT;

use super::{EXIT_HOST, Finding, State, Talk};
use crate::machine::{self, Machine, Vcpu};
use crate::report::{Console, last_words};
use crate::runtime::{Deadline, JustRun, Outcome, RunError, Runner, Signals, Watch};

/// What the finding is about.
pub(super) const WHAT: &str = "guest";

/// `mov dx, EXIT; mov al, 0; out dx, al`.
const GUEST: [u8; 7] = {
    let [low, high] = EXIT.to_le_bytes();
    [0x66, 0xba, low, high, 0xb0, 0x00, 0xee]
};
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
    let ran = match machine() {
        Ok(vcpu) => Runner::new(vcpu)
            .signals(signals)
            .watched_by(watch)
            .deadline(Deadline::after(LIMIT))
            .run(&mut JustRun, console),
        Err(error) => Err(error),
    };
    let (console, signals, result) = match ran {
        Ok(Outcome {
            result,
            console,
            signals,
            ..
        }) => (console, signals, result.map(drop)),
        Err(error) => {
            let signals = watch.take_over_signals().map_err(|_| EXIT_HOST)?;
            let mut console = Console::open(super::options());
            console.count_beats(watch.beats());
            (console, signals, Err(error))
        }
    };
    if let Err(error @ RunError::Signal(_)) = &result {
        last_words(&error.to_string(), Duration::from_secs(1));
        return Err(error.exit_code());
    }
    let mut talk = Talk {
        console,
        format,
        missing,
    };
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

fn machine() -> Result<Vcpu, RunError> {
    let mut machine = Machine::new(machine::open_kvm()?, 0)?;
    machine.add_exit_port(EXIT)?;
    Ok(machine.boot(&GUEST)?)
}
