//! Guests of a conversion that lie: programs of a few steps in the place of the built-in guest. What
//! they declare is held against the limit and against what they have written, and the output has
//! exactly the length that was declared, or does not appear.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use guest_abi::layout::DMA_POOL;
use guest_protocol::{
    GuestMessage, NO_STATUS, Payload, capacity_message, complete_message, complete_with_digest,
    error_message, progress_message,
};
use vmm::operations::convert::GUEST;

use crate::common::elf::Elf;
use crate::common::process::{binary, copy_program};
use crate::common::program::Program;
use crate::common::virtio::{F_ZEROES, OK, OUT, OUTPUT, SECTOR, VERSION_1};
use crate::common::{Files, Finished, Loop, Vmm, needs_kvm, skip, test};

const HOST_FAILED: i32 = 3;
const GUEST_FAILED: i32 = 4;
const REFUSED: i32 = 5;
const BROKEN: i32 = 6;

/// What the programs call the disk's size, in sectors and in bytes.
const SECTORS: u64 = 50;
const BYTES: u64 = SECTORS * 512;
/// Behind the guest's image in a device's view of memory: what the programs write lies there.
const DATA: u64 = DMA_POOL;
const WRITE_ZEROES: u32 = 13;
/// How long the images are that programs write, in bytes.
const IMAGE: u64 = 5 * 65536;
const TO_QCOW2: &[&str] = &["--output-format", "qcow2"];

/// The product, with a place in it for another guest.
struct Product {
    files: Files,
    program: PathBuf,
    /// Where in the program the built-in guest lies.
    place: usize,
}

impl Product {
    /// `None` if this program has another guest built in than the tests.
    fn new() -> Option<Self> {
        let mut files = Files::new(&[0x77; 4096]).with_old_output(b"what was there before");
        let program = files.expect("vmm");
        copy_program(&binary(), &program);
        let bytes = fs::read(&program).unwrap();
        let begins = |at: &usize| bytes[*at..].starts_with(GUEST);
        let first =
            (0..bytes.len()).filter(|at| bytes[*at] == GUEST[0] && bytes[*at + 1] == GUEST[1]);
        let Some(place) = first.into_iter().find(begins) else {
            skip("the program under test has another guest built in");
            return None;
        };
        Some(Self {
            files,
            program,
            place,
        })
    }

    /// The product with this guest, to convert with `options`.
    fn vmm(&mut self, guest: &Program, options: &[&str]) -> Vmm {
        let mut image = Elf::of(&guest.clone().build()).build();
        assert!(image.len() <= GUEST.len());
        image.resize(GUEST.len(), 0);
        let image = self.files.add("guest", &image);
        // By another process, as said of `copy_program`.
        let written = Command::new("dd")
            .arg(format!("if={}", image.display()))
            .arg(format!("of={}", self.program.display()))
            .arg(format!("seek={}", self.place))
            .args(["bs=64K", "oflag=seek_bytes", "conv=notrunc", "status=none"])
            .status();
        assert!(written.unwrap().success());
        Vmm::of(&self.program)
            .args(&["convert", "--image-format", "raw", "--timeout", "20"])
            .args(options)
            .arg("--input")
            .arg(self.files.input())
    }

    fn run(&mut self, guest: &Program, options: &[&str]) -> Finished {
        let output = self.files.output();
        self.vmm(guest, options).arg("--output").arg(output).run()
    }

    /// Fails unless a run with this guest ends with `status` and one line that has `reason` in it, and
    /// nothing has changed.
    #[track_caller]
    fn fails(&mut self, guest: &Program, options: &[&str], status: i32, reason: &str) {
        let finished = self.run(guest, options);
        finished.assert_failed(status, reason);
        assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
        self.files.assert_untouched();
    }

    /// Fails unless a run with this guest leaves `expected`.
    #[track_caller]
    fn makes(&mut self, guest: &Program, options: &[&str], expected: &[u8]) {
        let finished = self.run(guest, options);
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        crate::assert_same(
            &fs::read(self.files.output()).unwrap(),
            expected,
            "the output",
        );
        self.files.restore_output();
        self.files.assert_untouched();
    }
}

fn start() -> Program {
    Program::new().start_disk_with(OUTPUT, VERSION_1 | F_ZEROES)
}

/// Says how large the disk is and how long the output.
fn declare(program: Program, disk: u64, output: u64) -> Program {
    program
        .say(&capacity_message("input", disk.div_ceil(512), disk))
        .say(&capacity_message("output", output.div_ceil(512), output))
}

/// Writes `sectors` sectors of the pool at `sector`, as request `slot`.
fn write(program: Program, slot: u16, sector: u64, sectors: u64) -> Program {
    let len = u32::try_from(sectors).unwrap() * SECTOR;
    program
        .request(OUTPUT, slot, OUT, (sector, DATA, len))
        .expect_answer(OUTPUT, slot, OK)
}

fn done(program: Program, sectors: u64) -> Program {
    program
        .say(&complete_message("convert", sectors, true))
        .exit(0)
}

/// What is written: 1 at the start of each sector.
fn filled(program: Program) -> Program {
    (0..SECTORS).fold(program, |program, sector| {
        program.store8(DATA + sector * 512, 1)
    })
}

fn content(len: u64) -> Vec<u8> {
    (0..len).map(|at| u8::from(at % 512 == 0)).collect()
}

/// The control: programs fail in the other tests for what they do, not for what they are.
#[test]
fn a_program_that_writes_what_it_declares_makes_an_output() {
    needs_kvm!();
    let Some(mut product) = Product::new() else {
        return;
    };
    let declared = declare(start(), BYTES, BYTES);
    let guest = done(write(filled(declared), 0, 0, SECTORS), SECTORS);
    product.makes(&guest, &[], &content(BYTES));
    // In any order, also before anything was declared: only the end counts.
    let halves = write(write(filled(start()), 0, 25, 25), 1, 0, 25);
    let guest = done(declare(halves, BYTES, BYTES), SECTORS);
    product.makes(&guest, &[], &content(BYTES));
    // The disk and the output have lengths of their own, and none need be whole sectors.
    for (disk, output) in [(0, 1), (BYTES - 1, 700), (1, BYTES), (0, 0)] {
        let guest = write(filled(declare(start(), disk, output)), 0, 0, SECTORS);
        let guest = done(guest, disk.div_ceil(512));
        product.makes(&guest, &[], &content(output));
    }
}

#[test]
fn what_is_written_beyond_the_declared_length_is_cut_off() {
    needs_kvm!();
    let Some(mut product) = Product::new() else {
        return;
    };
    for declared in [0, 1, 512, 5000, BYTES - 1] {
        let written = write(filled(start()), 0, 0, SECTORS);
        // Far away as well.
        let written = write(written, 1, 1 << 20, 1);
        let guest = done(declare(written, declared, declared), declared.div_ceil(512));
        product.makes(&guest, &[], &content(declared));
    }
}

#[test]
fn more_than_was_written_is_not_there_whatever_was_declared() {
    needs_kvm!();
    let Some(mut product) = Product::new() else {
        return;
    };
    let missing = |offset: u64| format!("the one at offset {offset} was never written");
    let whole = |declared: u64| {
        let guest = write(declare(start(), declared, declared), 0, 0, SECTORS);
        done(guest, declared.div_ceil(512))
    };
    for declared in [BYTES + 1, 2 * BYTES, 1 << 40] {
        product.fails(&whole(declared), &[], GUEST_FAILED, &missing(BYTES));
    }
    let declared = || declare(start(), BYTES, BYTES);
    // Nothing, another place, all but the first or the last sector, or all but one between.
    product.fails(&done(declared(), SECTORS), &[], GUEST_FAILED, &missing(0));
    for (sector, sectors, offset) in [
        (SECTORS, SECTORS, 0),
        (1, SECTORS, 0),
        (0, SECTORS - 1, BYTES - 512),
    ] {
        let guest = done(write(declared(), 0, sector, sectors), SECTORS);
        product.fails(&guest, &[], GUEST_FAILED, &missing(offset));
    }
    let guest = write(write(declared(), 0, 0, 20), 1, 21, 29);
    product.fails(&done(guest, SECTORS), &[], GUEST_FAILED, &missing(20 * 512));
    // What is discarded is not written either, and zeros count only as far as they go.
    let list = DATA + 0x8_0000;
    let zeros = declared()
        .store64(list, 0)
        .store32(list + 8, 10)
        .store32(list + 12, 1);
    for (kind, offset) in [(WRITE_ZEROES, 5120), (11, 0)] {
        let zeros = match kind {
            11 => zeros.clone().store32(list + 12, 0),
            _ => zeros.clone(),
        };
        let guest = zeros
            .request_out(OUTPUT, 0, kind, (0, list, 16))
            .expect_answer(OUTPUT, 0, OK);
        product.fails(&done(guest, SECTORS), &[], GUEST_FAILED, &missing(offset));
    }
}

#[test]
fn nothing_is_declared_twice_or_left_undeclared() {
    needs_kvm!();
    let Some(mut product) = Product::new() else {
        return;
    };
    let twice = "the guest said twice how long the output is, or how large the disk";
    for device in ["input", "output"] {
        for bytes in [0, BYTES, u64::MAX] {
            let again = capacity_message(device, 0, bytes);
            let early = declare(start(), BYTES, BYTES).say(&again);
            let guest = done(write(early, 0, 0, SECTORS), SECTORS);
            product.fails(&guest, &[], GUEST_FAILED, twice);
            // Also when all is written.
            let written = write(declare(start(), BYTES, BYTES), 0, 0, SECTORS);
            product.fails(
                &done(written.say(&again), SECTORS),
                &[],
                GUEST_FAILED,
                twice,
            );
        }
    }
    let neither = "the guest did not say how large the disk is, and how long the output";
    for device in ["", "input", "output", "another"] {
        let program = match device {
            "" => start(),
            device => start().say(&capacity_message(device, SECTORS, BYTES)),
        };
        for claimed in [0, SECTORS] {
            let guest = done(write(program.clone(), 0, 0, SECTORS), claimed);
            product.fails(&guest, &[], GUEST_FAILED, neither);
        }
    }
    // After the completion nothing can be declared any more.
    let late = write(start(), 0, 0, SECTORS).say(&complete_message("convert", 0, true));
    let guest = declare(late, BYTES, BYTES).exit(0);
    product.fails(&guest, &[], GUEST_FAILED, "a message after its completion");
}

#[test]
fn no_output_is_longer_than_the_user_allows_whatever_was_declared() {
    needs_kvm!();
    let Some(mut product) = Product::new() else {
        return;
    };
    let limit = &["--max-output-size", "5120"][..];
    for declared in [5121, BYTES, 1 << 63, u64::MAX] {
        let guest = write(declare(start(), BYTES, declared), 0, 0, 10);
        let reason = format!("it would have {declared} bytes, more than the 5120");
        product.fails(&done(guest, SECTORS), limit, GUEST_FAILED, &reason);
    }
    // The disk that the guest sees ends there.
    let beyond = declare(start(), BYTES, BYTES)
        .request(OUTPUT, 0, OUT, (10, DATA, SECTOR))
        .expect_answer(OUTPUT, 0, OK);
    product.fails(
        &done(beyond, SECTORS),
        limit,
        GUEST_FAILED,
        "(exit status 99)",
    );
    // As much as is allowed.
    let guest = write(filled(declare(start(), 5120, 5120)), 0, 0, 10);
    product.makes(&done(guest, 10), limit, &content(5120));
}

#[test]
fn a_device_keeps_what_lies_behind_what_was_written_and_is_not_too_small() {
    needs_kvm!();
    let Some(mut product) = Product::new() else {
        return;
    };
    let below = product.files.add("below", &[0xaa; 8192]);
    let Some(device) = Loop::over(&below) else {
        return;
    };
    let guest = |declared: u64| {
        let written = write(filled(start()), 0, 0, 10);
        done(declare(written, declared, declared), declared.div_ceil(512))
    };
    let to = |product: &mut Product, declared| {
        let vmm = product.vmm(&guest(declared), &[]);
        vmm.arg("--output").arg(device.path()).run()
    };
    let finished = to(&mut product, 8193);
    finished.assert_failed(
        GUEST_FAILED,
        "it has 8192 bytes, and 8193 are to be written",
    );
    let finished = to(&mut product, 8192);
    finished.assert_failed(GUEST_FAILED, "the one at offset 5120 was never written");
    let finished = to(&mut product, 5120);
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    let expected = [content(5120), vec![0xaa; 8192 - 5120]].concat();
    crate::assert_same(&fs::read(device.path()).unwrap(), &expected, "the device");
}

#[test]
fn success_is_what_all_of_it_together_says() {
    needs_kvm!();
    let Some(mut product) = Product::new() else {
        return;
    };
    let written = || write(declare(start(), BYTES, BYTES), 0, 0, SECTORS);
    let claim = |sectors| complete_message("convert", sectors, true);
    for claimed in [0, SECTORS - 1, SECTORS + 1, u64::MAX] {
        let reason = format!("claimed success with {claimed} of 50 sectors");
        product.fails(&done(written(), claimed), &[], GUEST_FAILED, &reason);
    }
    let gave_up = written().say(&complete_message("convert", SECTORS, false));
    let spoke_on = written().say(&claim(SECTORS)).say(&claim(SECTORS)).exit(0);
    let half = written().send_com1(&[200, 0, 1]).exit(0);
    let digest = |len| {
        let message = complete_with_digest("convert", SECTORS, &vec![7; len], 0);
        written().say(&message).exit(0)
    };
    let progress = |current, total| {
        let message = progress_message("convert", current, total, 0);
        written().say(&message).spin_forever()
    };
    for (guest, reason) in [
        (written().exit(0), "ended without a completion"),
        (written().say(&claim(SECTORS)).exit(7), "exit status 7"),
        (gave_up.exit(0), "gave up after 50 sectors"),
        (spoke_on, "a message after its completion"),
        (half, "in the middle of a message"),
        (digest(32), "a digest of 32 bytes"),
        (digest(5), "a digest of 5 bytes"),
        (progress(51, 50), "51 sectors are done, but the disk has 50"),
        (progress(1, 49), "there are 49 sectors, but the disk has 50"),
        (progress(0, 50), "does not rise: 0 sectors after 0"),
        // The first wait may end with the notification of what was written.
        (
            written().idle().idle(),
            "waits for a disk, and no disk has anything to do",
        ),
        (written().load8(0), "page fault"),
    ] {
        product.fails(&guest, &[], GUEST_FAILED, reason);
    }
    let wanted = &["--digest", "sha256"][..];
    let without = done(written(), SECTORS);
    product.fails(&without, wanted, GUEST_FAILED, "gave no digest");
}

#[test]
fn what_a_guest_says_of_an_image_ends_the_run_and_is_shown_on_one_line() {
    needs_kvm!();
    let Some(mut product) = Product::new() else {
        return;
    };
    let say = |op: &str, detail: &str| -> GuestMessage {
        error_message(op, "input", 0, NO_STATUS, detail)
    };
    for (op, status, reason) in [
        ("refused", REFUSED, " is refused: \"\\u{1b}"),
        ("broken", BROKEN, " is broken: \"\\u{1b}"),
        ("read", GUEST_FAILED, "the conversion failed at the image "),
        ("", GUEST_FAILED, "the conversion failed at the image "),
        // There is as much room as it says that it needs.
        ("room", GUEST_FAILED, "the conversion failed: "),
    ] {
        // Even if it then claims to have converted it.
        let complained = start().say(&say(op, "\u{1b}[2J\nvmm: all is well\u{202e}"));
        let written = write(declare(complained, BYTES, BYTES), 0, 0, SECTORS);
        let finished = product.run(&done(written, SECTORS), &[]);
        finished.assert_failed(status, reason);
        assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
        let shown = |letter: char| finished.stderr.contains(letter);
        assert!(!shown('\u{1b}') && !shown('\u{202e}'), "{finished:?}");
        product.files.assert_untouched();
    }
}

/// The head of an image of a disk of `size` bytes, as this product writes it.
fn header(size: u64) -> Vec<u8> {
    let mut writer = guest_formats::qcow2::Writer::new(size).unwrap();
    writer.finish();
    let mut table = vec![0; 65536];
    while writer.take_table(&mut table) != Some(0) {}
    table[..128].to_vec()
}

/// Writes an image with this head, and declares a disk of `disk` bytes and an output of `output`.
fn image(header: &[u8], disk: u64, output: u64) -> Program {
    let words = header.chunks_exact(8).zip(0_u64..);
    let program = words.fold(start(), |program, (bytes, index)| {
        let word = u64::from_le_bytes(bytes.try_into().unwrap());
        program.store64(DATA + 8 * index, word)
    });
    let written = write(declare(program, disk, output), 0, 0, IMAGE / 512);
    done(written, disk.div_ceil(512))
}

#[test]
fn the_disk_of_an_image_is_no_larger_than_the_user_allows() {
    needs_kvm!();
    let Some(mut product) = Product::new() else {
        return;
    };
    let limited = [TO_QCOW2, &["--max-output-size", "327680"]].concat();
    let allowed = [&limited[..], &["--allow", "virtual-size-too-large"]].concat();
    for (disk, options) in [
        (IMAGE, &limited),
        (IMAGE + 512, &allowed),
        (1 << 50, &allowed),
    ] {
        let finished = product.run(&image(&header(disk), disk, IMAGE), options);
        assert_eq!(finished.code(), Some(0), "{disk}: {finished:?}");
        product.files.restore_output();
    }
    for disk in [IMAGE + 1, IMAGE + 512, 1 << 50] {
        let reason = format!("an image of a disk of {disk} bytes, more than the 327680");
        let guest = image(&header(disk), disk, IMAGE);
        product.fails(&guest, &limited, GUEST_FAILED, &reason);
    }
    // The disk that is declared is the one in the image.
    let guest = image(&header(1 << 50), IMAGE, IMAGE);
    product.fails(
        &guest,
        &limited,
        GUEST_FAILED,
        "a header that it may not have",
    );
}

#[test]
fn an_image_that_a_guest_writes_has_the_one_header_that_is_harmless() {
    needs_kvm!();
    let Some(mut product) = Product::new() else {
        return;
    };
    let good = header(BYTES);
    let guest = |header: &[u8], output| image(header, BYTES, output);
    let finished = product.run(&guest(&good, IMAGE), TO_QCOW2);
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    product.files.restore_output();
    let changed = |at: usize, bytes: &[u8]| {
        let mut header = good.clone();
        header[at..at + bytes.len()].copy_from_slice(bytes);
        header
    };
    for header in [
        vec![0; 128],
        // A backing file's name, the feature of a file for the data, another size, an extension.
        changed(8, &[0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 9]),
        changed(72, &[0, 0, 0, 0, 0, 0, 0, 4]),
        changed(24, &[0, 0, 0, 1]),
        changed(112, &[0xe2, 0x79, 0x2a, 0xca, 0, 0, 0, 4]),
    ] {
        let reason = "a header that it may not have";
        product.fails(&guest(&header, IMAGE), TO_QCOW2, GUEST_FAILED, reason);
    }
    // One that is cut off by the declared length.
    for length in [0, 1, 100] {
        let finished = product.run(&guest(&good, length), TO_QCOW2);
        assert_ne!(finished.code(), Some(HOST_FAILED), "{finished:?}");
        if finished.code() == Some(0) {
            let output = fs::read(product.files.output()).unwrap();
            panic!("an image of {} bytes was put in place", output.len());
        }
        finished.assert_failed(GUEST_FAILED, "a header that it may not have");
        product.files.assert_untouched();
    }
}

#[test]
fn a_guest_names_no_file_and_gives_no_advice_that_the_host_does_not_know() {
    needs_kvm!();
    let Some(mut product) = Product::new() else {
        return;
    };
    let error = |device: &str, number, remedies: &[&str]| {
        let mut message = error_message("refused", device, 0, NO_STATUS, "marked-dirty: x");
        if let Some(Payload::Error(error)) = &mut message.payload {
            error.number = number;
            error.remedies = remedies.iter().map(ToString::to_string).collect();
        }
        message
    };
    for (device, number, remedies, shown) in [
        (
            "input",
            77,
            &[][..],
            "input.img is refused: \"marked-dirty: x\"\n",
        ),
        // There is no such file.
        (
            "backing",
            0,
            &[],
            "vmm: the image is refused: \"marked-dirty: x\"\n",
        ),
        (
            "backing",
            u32::MAX,
            &[],
            "vmm: the image is refused: \"marked-dirty: x\"\n",
        ),
        ("input", 0, &["x; rm -rf /"], "\"marked-dirty: x\"\n"),
        (
            "input",
            0,
            &["marked-dirty"],
            "; --allow marked-dirty uses it all the same\n",
        ),
    ] {
        let guest = start().say(&error(device, number, remedies)).exit(1);
        let finished = product.run(&guest, &[]);
        assert_eq!(finished.code(), Some(REFUSED), "{finished:?}");
        assert!(finished.stderr.ends_with(shown), "{shown}: {finished:?}");
    }
}
