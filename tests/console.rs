//! Reports by a virtio console: the same lines as by the serial port, after the same checks, and a
//! machine that has the console only if the run uses it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::io::Read;
use std::time::{Duration, Instant};

use common::program::{Program, SEEN};
use common::virtio::{CONSOLE, DRIVER_OK, NEEDS_RESET, STATUS};
use common::{Files, Finished, needs_kvm, test};
use guest_abi::layout::DMA_POOL;
use guest_protocol::{GuestMessage, complete_message, encode_framed, init_message};

fn main() -> std::process::ExitCode {
    common::harness::main()
}

const GUEST_FAILED: i32 = 4;
const SECTORS: u64 = 50;
/// What virtio-mmio registers begin with (virtio 1.2, section 4.2.2).
const MAGIC: u32 = 0x7472_6976;

/// Runs `program` as the guest.
fn run(program: Program, arguments: &[&str]) -> Finished {
    let mut files = Files::random(50 * 512);
    let guest = files.add("guest", &program.build());
    let vmm = files.vmm().args(&["--timeout", "20"]).args(arguments);
    let finished = vmm.arg(guest).run();
    files.assert_untouched();
    finished
}

/// Puts the frame of `message` into memory; returns how long it is.
fn put(program: Program, message: &GuestMessage) -> (Program, u32) {
    let mut frame = [0; 256];
    let len = encode_framed(message, &mut frame).unwrap();
    let bytes = (DMA_POOL..).zip(&frame[..len]);
    let program = bytes.fold(program, |program, (at, byte)| program.store8(at, *byte));
    (program, u32::try_from(len).unwrap())
}

#[test]
fn the_lines_are_those_of_the_serial_port_in_the_same_order() {
    needs_kvm!();
    for arguments in [
        &["--protocol", "protobuf"][..],
        &["--protocol", "text"],
        &["--progress-percent", "7", "--output-sector-size", "4096"],
        &["--format", "json"],
        &["--quiet"],
    ] {
        let [serial, console, auto] = ["serial", "console", "auto"].map(|transport| {
            let files = Files::random(3_000_000);
            let vmm = files.vmm().args(&["--transport", transport]);
            let finished = vmm.args(arguments).succeed();
            files.assert_copied();
            without_times(&finished.stdout)
        });
        assert!(serial == console, "{arguments:?}: {serial}\n{console}");
        assert!(serial == auto, "{arguments:?}");
    }
}

/// Without the last object of JSON, which says how long the run took.
fn without_times(lines: &str) -> String {
    let lines = lines.lines().filter(|line| !line.contains("\"seconds\""));
    lines.map(|line| line.to_owned() + "\n").collect()
}

#[test]
fn a_machine_has_a_console_only_if_the_run_uses_it() {
    needs_kvm!();
    let look = || Program::new().expect32(CONSOLE.registers, MAGIC).seen();
    let finished = run(look(), &["--transport", "console"]);
    finished.assert_failed(GUEST_FAILED, &format!("exit status {SEEN}"));
    // A guest of the user's need not know what a console is.
    for transport in ["serial", "auto"] {
        let finished = run(look(), &["--transport", transport]);
        finished.assert_failed(GUEST_FAILED, "0x10002000");
    }
}

#[test]
fn what_was_made_available_before_the_exit_is_heard() {
    needs_kvm!();
    for _ in 0..20 {
        let program = Program::new().start_console();
        let (program, len) = put(program, &init_message("probe", "input", 7));
        let last = u32::from(common::virtio::SIZE) - 1;
        let program = (0..=last).fold(program, |program, position| {
            program.transmit(u16::try_from(position).unwrap(), DMA_POOL, len)
        });
        let finished = run(program.exit(0), &["--transport", "console"]);
        finished.assert_failed(GUEST_FAILED, "without a completion");
        let line = "[INFO] init stage=probe device=input address=0x7\n";
        assert_eq!(finished.stdout, line.repeat(last as usize + 1));
    }
}

#[test]
fn a_message_may_be_cut_into_buffers_but_not_end_with_the_run() {
    needs_kvm!();
    let (program, len) = put(Program::new().start_console(), &init_message("a", "b", 7));
    let whole = program
        .clone()
        .transmit(0, DMA_POOL, 1)
        .transmit(1, DMA_POOL + 1, len - 1);
    let finished = run(whole.exit(0), &["--transport", "console"]);
    assert_eq!(
        finished.stdout,
        "[INFO] init stage=a device=b address=0x7\n"
    );
    let cut = program.transmit(0, DMA_POOL, len - 1).exit(0);
    let finished = run(cut, &["--transport", "console"]);
    finished.assert_failed(GUEST_FAILED, "in the middle of a message");
}

#[test]
fn a_claim_by_console_counts_no_more_than_one_by_the_serial_port() {
    needs_kvm!();
    let claim = complete_message("copy", SECTORS, true);
    let (program, len) = put(Program::new().start_console(), &claim);
    let once = program.clone().transmit(0, DMA_POOL, len).exit(0);
    let finished = run(once, &["--transport", "console"]);
    assert_eq!(finished.code(), Some(GUEST_FAILED), "{finished:?}");
    assert!(finished.stderr.contains("never written"), "{finished:?}");
    // One on each way is one too many.
    let both = program.transmit(0, DMA_POOL, len).say(&claim);
    let finished = run(both.spin_forever(), &["--transport", "console"]);
    finished.assert_failed(GUEST_FAILED, "after its completion");
}

#[test]
fn a_flood_by_console_ends_the_run() {
    needs_kvm!();
    let (program, len) = put(Program::new().start_console(), &init_message("a", "b", 7));
    let flood = (0..200).fold(program, |program, position| {
        let index = u8::try_from(position).unwrap();
        program
            .transmit(position, DMA_POOL, len)
            .idle_while8(CONSOLE.used() + 2, index)
    });
    let finished = run(flood.spin_forever(), &["--transport", "console"]);
    finished.assert_failed(GUEST_FAILED, "more messages than a copy has to send");
    // What is no message, a megabyte at a time.
    let zeros = Program::new()
        .start_console()
        .transmit(0, DMA_POOL, 1 << 20);
    let finished = run(zeros.spin_forever(), &["--transport", "console"]);
    finished.assert_failed(GUEST_FAILED, "a message without content");
}

#[test]
fn a_driver_that_breaks_the_queue_stops_the_console_and_is_named() {
    needs_kvm!();
    let outside = Program::new()
        .start_console()
        .transmit(0, 1 << 40, 4)
        .idle_while32(CONSOLE.register(STATUS), DRIVER_OK)
        .expect32(CONSOLE.register(STATUS), NEEDS_RESET)
        .seen();
    let finished = run(outside, &["--transport", "console"]);
    finished.assert_failed(GUEST_FAILED, &format!("exit status {SEEN}"));
    finished.assert_failed(
        GUEST_FAILED,
        "the guest's driver broke a queue of the console: cannot answer the request at descriptor 0: \
         a buffer is not within guest memory",
    );
}

#[test]
fn a_console_that_never_started_is_told_as_such() {
    needs_kvm!();
    let program = Program::new().init_device(CONSOLE, 0).driver_ok(CONSOLE);
    let finished = run(program.exit(1), &["--transport", "console"]);
    finished.assert_failed(
        GUEST_FAILED,
        "; the console did not start: its driver chose the features 0x0, without VIRTIO_F_VERSION_1, and",
    );
}

#[test]
fn a_guest_that_waits_with_nothing_under_way_is_told() {
    needs_kvm!();
    let program = Program::new().start_console().idle().idle().idle();
    let finished = run(program.spin_forever(), &["--transport", "console"]);
    finished.assert_failed(GUEST_FAILED, "has anything to do");
}

/// What makes a run say much.
const TALKATIVE: [&str; 4] = ["--transport", "console", "--format", "json"];

#[test]
fn a_reader_that_comes_late_and_reads_slowly_gets_every_line() {
    needs_kvm!();
    let files = Files::random(64 << 20);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let running = files.vmm().args(&TALKATIVE).stdout(writer).start();
    std::thread::sleep(Duration::from_millis(500));
    assert!(!running.has_ended(), "the reports must wait");
    let mut lines = String::new();
    reader.read_to_string(&mut lines).unwrap();
    assert_eq!(running.finish().code(), Some(0));
    files.assert_copied();
    let reports = lines.matches("\"type\":\"progress\"").count();
    // Each ten sectors from the first on, and the last.
    assert_eq!(reports, (64_usize << 20).div_ceil(5120) + 1);
}

#[test]
fn a_reader_that_takes_nothing_keeps_no_run_from_its_time_limit() {
    needs_kvm!();
    let files = Files::random(64 << 20);
    let (_reader, writer) = std::io::pipe().unwrap();
    let begun = Instant::now();
    let vmm = files.vmm().args(&TALKATIVE).args(&["--timeout", "1"]);
    let finished = vmm.stdout(writer).run();
    assert_eq!(finished.code(), Some(124), "{finished:?}");
    assert!(begun.elapsed() < Duration::from_secs(30));
    files.assert_untouched();
}
