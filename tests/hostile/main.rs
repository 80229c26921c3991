//! Hostile guests: one tiny program for each property, in a real VM. Whatever it does, the VMM
//! ends in bounded time, memory and output, with the documented exit status and one clear line,
//! the input untouched and the output path as it was before.
//!
//! A program checks what it sees by itself and exits with [`SEEN`] if all is as it should be, so
//! that a run that is expected to fail "(exit status 42)" has passed those checks.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod claims;
mod dma;
mod endless;
mod faults;
mod lifecycle;
mod queues;
mod registers;
mod requests;
mod serial;
mod surroundings;
mod zeroes;

use common::program::{Program, SEEN};
use common::virtio::{IN, INPUT, OK, OUT, OUTPUT};
use common::{Files, Finished, kvm_is_usable};
use guest_abi::layout::DMA_POOL;

fn main() -> std::process::ExitCode {
    common::harness::main()
}

/// Exit statuses of the VMM.
const HOST_FAILED: i32 = 3;
const GUEST_FAILED: i32 = 4;
const TIMED_OUT: i32 = 124;

/// Sectors of the input in the attacks.
const SECTORS: u64 = 50;
const INPUT_LEN: usize = 50 * 512;

/// No attack may make the process larger than this.
const MAX_PEAK: u64 = 64 << 20;
/// Nor make it print more than this on either stream.
const MAX_PRINTED: usize = 1 << 20;

/// A guest image and how the VMM is told to run it.
struct Attack {
    image: Vec<u8>,
    arguments: Vec<&'static str>,
}

impl Attack {
    fn new(image: impl Into<Vec<u8>>) -> Self {
        Self {
            image: image.into(),
            arguments: Vec::new(),
        }
    }

    fn with(mut self, arguments: &[&'static str]) -> Self {
        self.arguments.extend(arguments);
        self
    }

    /// Runs it without and with an output from before, and fails unless it ends with `code` and a
    /// line that holds `reason`, with all files as they were. Returns the last run, if there is
    /// KVM for it.
    #[track_caller]
    fn fails(&self, code: i32, reason: &str) -> Option<Finished> {
        let mut last = None;
        for old in [None, Some(b"what was there before".as_slice())] {
            if !kvm_is_usable() {
                return None;
            }
            let files = Files::random(INPUT_LEN);
            let mut files = old.into_iter().fold(files, Files::with_old_output);
            let guest = files.add("guest", &self.image);
            let finished = files.vmm().args(&self.arguments).arg(guest).run();
            finished.assert_failed(code, reason);
            files.assert_untouched();
            assert!(finished.peak_bytes < MAX_PEAK, "{}", finished.peak_bytes);
            assert!(finished.stdout.len() < MAX_PRINTED, "stdout flooded");
            assert!(finished.stderr.len() < MAX_PRINTED, "stderr flooded");
            last = Some(finished);
        }
        last
    }

    /// The same, if nothing more is said behind `reason`.
    #[track_caller]
    fn fails_with(&self, code: i32, reason: &str) {
        if let Some(finished) = self.fails(code, reason) {
            let is_all = finished.stderr.trim_end().ends_with(reason);
            assert!(is_all, "expected nothing behind {reason:?} in {finished:?}");
        }
    }
}

/// Copies the first `sectors` sectors, at most one request's worth.
fn copy(sectors: u64) -> Program {
    let len = u32::try_from(sectors * 512).unwrap();
    Program::new()
        .start_disk(INPUT)
        .start_disk(OUTPUT)
        .request(INPUT, 0, IN, (0, DMA_POOL, len))
        .expect_answer(INPUT, 0, OK)
        .request(OUTPUT, 0, OUT, (0, DMA_POOL, len))
        .expect_answer(OUTPUT, 0, OK)
}

/// Runs `program` and fails unless it ends as a failure of the guest for `reason`.
#[track_caller]
fn refused(program: Program, reason: &str) -> Option<Finished> {
    Attack::new(program.build()).fails(GUEST_FAILED, reason)
}

/// Runs `program` and fails unless it has seen all that it expected.
#[track_caller]
fn seen(program: Program) -> Option<Finished> {
    refused(program.seen(), &format!("(exit status {SEEN})"))
}
