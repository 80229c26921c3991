//! What the runtime promises whoever runs a machine with it: whatever a thread does, panic or hang,
//! the run ends soon, and says which thread it was.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::process::Command;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::program::Program;
use common::{needs_kvm, test};
use event_manager::{EventOps, EventSubscriber, Events};
use guest_abi::layout;
use guest_abi::ports::IDLE;
use vm_device::DevicePio;
use vm_device::bus::{PioAddress, PioAddressOffset};
use vmm::devices::ByteQueue;
use vmm::machine::{Machine, Ports, open_kvm};
use vmm::report::Console;
use vmm::runtime::{
    Deadline, GuestEnd, JustRun, Operation, ReportSource, RunError, Runner, Subscriber, Worker,
    catch, report_queue,
};
use vmm::sandbox::Calls;
use vmm::virtio::{QueueFault, QueueWorker, Service, Turn};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

fn main() -> std::process::ExitCode {
    common::harness::main()
}

/// A port with a device of the test's.
const PORT: u16 = 0x500;
/// Longer than any test here may take.
const FOR_EVER: Duration = Duration::from_secs(600);
/// So long a run takes at most that does not wait for what hangs.
const SOON: Duration = Duration::from_secs(6);

/// What a device of a test does when it is used.
#[derive(Clone, Copy)]
enum Doing {
    Panic,
    /// No signal ends it, as with some reads from a network that does not answer.
    Hang,
}

impl Doing {
    fn happen(self) {
        match self {
            Self::Panic => panic!("the disk is made of glass"),
            Self::Hang => {
                let begun = Instant::now();
                while begun.elapsed() < FOR_EVER {
                    sleep(FOR_EVER);
                }
            }
        }
    }
}

/// A device that is used as soon as the run has begun.
struct Device {
    doing: Doing,
    event: EventFd,
}

impl Device {
    fn worker(doing: Doing) -> Worker {
        let event = EventFd::new(EFD_NONBLOCK).unwrap();
        event.write(1).unwrap();
        Worker {
            name: "fragile",
            subscriber: Arc::new(Self { doing, event }),
            calls: Calls::new(),
        }
    }
}

impl Subscriber for Device {
    fn unwatched(&self) -> Option<&event_manager::Error> {
        None
    }
}

impl EventSubscriber for Device {
    fn init(&self, ops: &mut EventOps<'_>) {
        ops.add(Events::new(&self.event, EventSet::IN)).unwrap();
    }

    fn process(&self, _: Events, _: &mut EventOps<'_>) {
        self.doing.happen();
    }
}

/// A port that is served on the vCPU's thread.
struct Port(Doing);

impl DevicePio for Port {
    fn pio_read(&self, _: PioAddress, _: PioAddressOffset, _: &mut [u8]) {
        self.0.happen();
    }

    fn pio_write(&self, _: PioAddress, _: PioAddressOffset, _: &[u8]) {}
}

fn machine() -> Machine {
    Machine::new(open_kvm().unwrap(), 0).unwrap()
}

/// A run whose guest runs round in circles.
fn circles<'a>() -> Runner<'a> {
    Runner::new(machine().boot(&Program::new().build()).unwrap())
}

/// A run whose guest reads [`PORT`], and then runs round in circles.
fn using_port<'a>(doing: Doing) -> Runner<'a> {
    let mut machine = machine();
    machine
        .add_pio(Ports::new(PORT, 1), Arc::new(Port(doing)))
        .unwrap();
    Runner::new(machine.boot(&Program::new().in8(PORT).build()).unwrap())
}

/// Runs it to its end, which must come soon and be an error.
#[track_caller]
fn failure_of(runner: Runner<'_>, operation: &mut dyn Operation) -> RunError {
    let begun = Instant::now();
    let error = catch(|| {
        let outcome = runner.run(operation, Console::default());
        outcome.and_then(|outcome| outcome.result).unwrap_err()
    })
    .unwrap_or_else(|panic| panic);
    let taken = begun.elapsed();
    assert!(taken < SOON, "it took {taken:?}: {error}");
    error
}

#[track_caller]
fn assert_died(error: &RunError, thread: &str) {
    assert!(matches!(error, RunError::Died(_)), "{error}");
    assert_eq!(error.exit_code(), 3);
    let text = error.to_string();
    for part in [&format!("thread {thread}: "), "made of glass", "report it"] {
        assert!(text.contains(part), "expected {part:?} in {text:?}");
    }
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn a_panic_of_a_devices_thread_ends_the_run_and_is_told() {
    needs_kvm!();
    let runner = circles()
        .confined(false)
        .worker(Device::worker(Doing::Panic));
    assert_died(&failure_of(runner, &mut JustRun), "fragile");
}

#[test]
fn a_panic_of_the_vcpus_thread_ends_the_run_and_is_told() {
    needs_kvm!();
    let runner = using_port(Doing::Panic).confined(false);
    assert_died(&failure_of(runner, &mut JustRun), "vcpu");
}

/// Panics on the main thread as soon as it is asked how far it is.
struct Glass;

impl Operation for Glass {
    fn progress(&self) -> u64 {
        panic!("the operation is made of glass")
    }

    fn judge(&mut self, _: GuestEnd<'_>) -> Result<(), RunError> {
        Ok(())
    }
}

#[test]
fn a_panic_of_the_main_loop_ends_the_other_threads_and_is_told() {
    needs_kvm!();
    let runner = circles()
        .confined(false)
        .worker(Device::worker(Doing::Hang));
    let error = failure_of(runner, &mut Glass);
    let name = std::thread::current().name().unwrap().to_owned();
    assert_died(&error, &name);
}

/// Listens to a guest that says more as soon as it has been heard.
struct Endless {
    words: Arc<ByteQueue>,
    begun: Instant,
}

impl Operation for Endless {
    fn receive(&mut self, _: ReportSource, bytes: &[u8], _: &mut Console) -> Result<(), RunError> {
        if self.begun.elapsed() > SOON {
            return Err(RunError::Guest("only the guest was heard".to_owned()));
        }
        self.words.offer(bytes);
        Ok(())
    }

    fn judge(&mut self, end: GuestEnd<'_>) -> Result<(), RunError> {
        end.check()
    }
}

#[test]
fn a_guest_that_is_never_silent_keeps_nothing_else_from_being_heard() {
    needs_kvm!();
    let words = report_queue().unwrap();
    words.push(&[0; 64 * 1024]);
    let limit = Duration::from_millis(200);
    let runner = circles()
        .confined(false)
        .listen(ReportSource::Console, words.clone())
        .deadline(Deadline::after(limit));
    let begun = Instant::now();
    let error = failure_of(runner, &mut Endless { words, begun });
    assert!(
        matches!(error, RunError::TimedOut(given) if given == limit),
        "{error}"
    );
}

/// A device that nothing is asked of.
struct Idle;

impl Service for Idle {
    type Room = ();

    fn device_type(&self) -> u32 {
        42
    }

    fn queue_sizes(&self) -> &[u16] {
        &[8]
    }

    fn serve(&self, _: &mut Turn<'_>, (): &mut ()) -> Result<(), QueueFault> {
        Ok(())
    }
}

/// Adds a device that is given nothing to do; returns what serves it.
fn add_idle(machine: &mut Machine) -> Worker {
    let (memory, line) = (machine.memory().clone(), machine.line());
    let device = Arc::new(QueueWorker::serving(Idle, memory, line).unwrap());
    machine.add_virtio(device.clone()).unwrap();
    Worker {
        name: "idle",
        subscriber: device,
        calls: Calls::new(),
    }
}

#[test]
fn a_device_that_no_thread_serves_is_told_of_before_the_guest_can_wait_for_it() {
    needs_kvm!();
    let mut machine = Machine::new(open_kvm().unwrap(), 2).unwrap();
    machine.add_idle_port(IDLE, None).unwrap();
    let first = add_idle(&mut machine);
    add_idle(&mut machine);
    let vcpu = machine.boot(&Program::new().build()).unwrap();
    let runner = Runner::new(vcpu).confined(false).worker(first);
    let error = failure_of(runner, &mut JustRun);
    let expected =
        "cannot begin the run: the device in slot 1 has no thread: give it one with Runner::worker";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_guest_that_waits_for_a_device_that_never_started_is_told_why_it_did_not() {
    needs_kvm!();
    let mut machine = Machine::new(open_kvm().unwrap(), 2).unwrap();
    machine.add_idle_port(IDLE, None).unwrap();
    let workers = [add_idle(&mut machine), add_idle(&mut machine)];
    // The status register of the second device: DRIVER_OK alone.
    let guest = Program::new().store32(layout::registers(1) + 0x70, 4);
    // It is notified that the device wants a reset, which it does not look at.
    let guest = guest.in8(IDLE).in8(IDLE);
    let vcpu = machine.boot(&guest.build()).unwrap();
    let runner = workers.into_iter().fold(Runner::new(vcpu), Runner::worker);
    let error = failure_of(runner.confined(false), &mut JustRun).to_string();
    let expected = "the guest waits for a device, and no device has anything to do; the device in slot 1 \
                    did not start: its driver set DRIVER_OK without a status of FEATURES_OK";
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn a_device_that_hangs_does_not_keep_a_run_whose_time_is_over() {
    needs_kvm!();
    for hanging in [
        circles().worker(Device::worker(Doing::Hang)),
        using_port(Doing::Hang),
        using_port(Doing::Hang).worker(Device::worker(Doing::Hang)),
    ] {
        let limit = Deadline::after(Duration::from_millis(300));
        let runner = hanging.confined(false).deadline(limit);
        let error = failure_of(runner, &mut JustRun);
        assert!(matches!(error, RunError::TimedOut(_)), "{error}");
    }
}

/// What makes a test a child of itself, which it confines for good.
const CHILD: &str = "VMM_TEST_CONFINED_CHILD";

#[test]
fn a_panic_of_a_confined_thread_is_told_too() {
    needs_kvm!();
    if std::env::var_os(CHILD).is_some() {
        let confined = circles().worker(Device::worker(Doing::Panic));
        assert_died(&failure_of(confined, &mut JustRun), "fragile");
        // The test runner's own threads are confined as well by now.
        std::process::exit(42);
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_panic_of_a_confined_thread_is_told_too"])
        .args(["--test-threads", "1", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert_eq!(child.status.code(), Some(42), "{child:?}");
}
