//! `make picture`: what a terminal shows of three runs, the last of them under way, as an SVG for
//! the README. The program runs on a real pseudoterminal, and what is drawn is what a terminal has
//! on its screen then.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "../common/mod.rs"]
mod common;
mod svg;

use std::fs::{self, File};
use std::io::Read;
use std::num::NonZeroU16;
use std::path::Path;
use std::time::{Duration, Instant};

use common::terminal::Terminal;
use common::{Vmm, random};
use vt100::Parser;

/// As the terminals of the tests are.
const COLUMNS: NonZeroU16 = NonZeroU16::new(100).unwrap();
const ROWS: NonZeroU16 = NonZeroU16::new(40).unwrap();
const TARGET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/resources/terminal.svg");
/// Of the copy that is shown while it is under way: as long as it takes, the picture is taken once
/// so much is done.
const LARGE: usize = 1 << 30;
const ENOUGH: u32 = 40;
/// The copy that is shown with its time is the fastest of so many: what else the machine does, and the
/// input that was only just written, are not what the picture is about.
const RUNS: usize = 7;

fn main() {
    // A plain `cargo bench` runs this too, and `cargo test --all-targets`: they want no picture.
    if !std::env::args().any(|argument| argument == "draw") {
        println!("the picture is drawn by: make picture");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("small.img"), random(50 * 512, 1)).unwrap();
    fs::write(folder.path().join("disk.img"), random(LARGE, 2)).unwrap();
    settle(&folder.path().join("disk.img"));
    let mut screen = Parser::new(ROWS, COLUMNS, 0);

    type_command(&mut screen, "vmm -p 25 small.img copy.img | cat");
    let piped = vmm(folder.path(), &["-p", "25", "small.img", "copy.img"]).succeed();
    screen.process(piped.stdout.replace('\n', "\r\n").as_bytes());

    type_command(&mut screen, "vmm disk.img copy.img");
    let arguments = ["disk.img", "copy.img"];
    let runs = (0..RUNS).map(|_| shown_of_a_copy(folder.path(), &arguments));
    let (time, shown) = runs.min_by_key(|(time, _)| *time).unwrap();
    println!("the fastest of {RUNS} copies took {time:.2?}");
    screen.process(shown.as_bytes());

    type_command(&mut screen, "vmm disk.img copy.img");
    let terminal = Terminal::open();
    let shown = terminal.reader();
    let running = terminal.attach(vmm(folder.path(), &arguments));
    let running = running.start();
    watch(&mut screen, shown);
    drop(running);

    fs::write(TARGET, svg::draw(screen.screen())).unwrap();
    println!("{TARGET}");
}

fn vmm(folder: &Path, arguments: &[&str]) -> Vmm {
    Vmm::bare().args(arguments).current_dir(folder)
}

/// Has a file that was just written on the disk, and in the page cache as a reader has it.
fn settle(path: &Path) {
    let mut file = File::open(path).unwrap();
    file.sync_all().unwrap();
    std::io::copy(&mut file, &mut std::io::sink()).unwrap();
}

/// How long a copy took, and what a terminal got to see of it. The copy is removed, so that the next
/// one begins as this one did.
fn shown_of_a_copy(folder: &Path, arguments: &[&str; 2]) -> (Duration, String) {
    let terminal = Terminal::open();
    let begun = Instant::now();
    let running = terminal.attach(vmm(folder, arguments)).start();
    let shown = terminal.read_to_end();
    assert_eq!(running.finish().code(), Some(0));
    let time = begun.elapsed();
    fs::remove_file(folder.join(arguments[1])).unwrap();
    (time, shown)
}

fn type_command(screen: &mut Parser, command: &str) {
    screen.process(format!("\x1b[32m$\x1b[m \x1b[1m{command}\x1b[m\r\n").as_bytes());
}

/// Takes what is shown until the bar is well on its way.
fn watch(screen: &mut Parser, mut shown: File) {
    let begun = Instant::now();
    let mut bytes = [0; 4096];
    while percent(screen).is_none_or(|percent| percent < ENOUGH) {
        assert!(begun.elapsed() < Duration::from_secs(60), "no bar is shown");
        let count = shown.read(&mut bytes).unwrap();
        screen.process(&bytes[..count]);
    }
    let percent = percent(screen);
    assert!(percent.is_some_and(|percent| percent < 100), "{percent:?}");
}

/// What the bar in the last line says.
fn percent(screen: &Parser) -> Option<u32> {
    let contents = screen.screen().contents();
    let (_, behind) = contents.lines().last()?.split_once("] ")?;
    behind.split_once('%')?.0.trim().parse().ok()
}
