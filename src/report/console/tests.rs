#![allow(clippy::unwrap_used)]

use std::io::{self, PipeReader, Read};
use std::os::fd::OwnedFd;

use guest_protocol::{complete_message, error_message, init_message, progress_message};
use rustix::termios::{Action, tcflow};
use vmm_sys_util::eventfd::EventFd;

use super::shown_bar::{FRAME, USUAL_WIDTH};
use super::*;
use crate::ready::event_fd;
use crate::report::stream::CAPACITY;
use crate::report::testing::{Pty, leak};

const GIB: u64 = 1 << 30;
/// So long a test may take where nothing is to wait.
const AT_ONCE: Duration = Duration::from_secs(2);
const LINE: &str = "[INFO] init stage=probe device=input address=0x1";
const ERROR: &str = "[ERROR] error op=read device=input sector=5 status=1";

fn options() -> ConsoleOptions {
    ConsoleOptions {
        quiet: false,
        verbose: false,
        debug: false,
        format: OutputFormat::Text,
        raw_text: false,
        total: Some(GIB),
        verb: "copied",
    }
}

fn json() -> ConsoleOptions {
    ConsoleOptions {
        format: OutputFormat::Json,
        ..options()
    }
}

/// A console whose streams are these.
fn console(options: ConsoleOptions, out: impl Into<OwnedFd>, err: impl Into<OwnedFd>) -> Console {
    let term = OsString::from("xterm");
    Console::on(options, leak(out), leak(err), Some(&term))
}

/// A console both of whose streams are one terminal.
fn on_a_terminal(options: ConsoleOptions, pty: &Pty, term: Option<&str>) -> Console {
    let ends = || leak(pty.theirs.try_clone().unwrap());
    Console::on(options, ends(), ends(), term.map(OsString::from).as_ref())
}

/// A console with a pipe on each stream, and the readers.
fn on_pipes(options: ConsoleOptions) -> (Console, PipeReader, PipeReader) {
    let (out, out_end) = io::pipe().unwrap();
    let (err, err_end) = io::pipe().unwrap();
    (console(options, out_end, err_end), out, err)
}

/// What has come through a pipe that something is known to have been written to.
fn read(reader: &mut PipeReader) -> String {
    let mut bytes = vec![0; 1 << 16];
    let len = reader.read(&mut bytes).unwrap();
    bytes.truncate(len);
    String::from_utf8(bytes).unwrap()
}

fn say_a_line_and_an_error(console: &mut Console) {
    console.message(&init_message("probe", "input", 1));
    console.message(&error_message("read", "input", 5, 1, ""));
    console.flush();
}

fn never() -> EventFd {
    EventFd::new(0).unwrap()
}

fn drain(console: &mut Console, patience: Duration, interrupt: &EventFd) -> Drained {
    let give_up = Instant::now() + Duration::from_secs(60);
    console.drain(give_up, patience, event_fd(interrupt))
}

/// What a terminal of `columns` columns shows in the end of all that was written to it: lines
/// without trailing spaces. It obeys no more than the console uses, and panics at anything else.
fn screen(written: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut column = 0;
    let mut rest = written;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        let line = lines.last_mut().unwrap();
        match c {
            '\r' => column = 0,
            '\n' => {
                lines.push(String::new());
                column = 0;
            }
            '\u{1b}' => {
                rest = rest.strip_prefix("[J").unwrap();
                line.truncate(column);
            }
            _ => {
                line.replace_range(column..(column + 1).min(line.len()), &c.to_string());
                column += 1;
            }
        }
    }
    lines
        .iter()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

#[test]
fn a_reader_who_reads_gets_what_waits_when_the_time_is_over() {
    let (mut console, mut out, mut err) = on_pipes(options());
    console.message(&init_message("probe", "input", 1));
    assert_eq!(console.give_up(), 0);
    assert_eq!(read(&mut out), format!("{LINE}\n"));
    console.message(&error_message("read", "input", 5, 1, ""));
    console.warn("late");
    console.flush();
    assert_eq!(read(&mut out), format!("{ERROR}\n"));
    assert!(read(&mut err).contains("late"));
}

#[test]
fn on_pipes_there_are_lines_on_stdout_and_no_bar() {
    let (mut console, mut out, mut err) = on_pipes(options());
    assert!(console.wants_reports());
    say_a_line_and_an_error(&mut console);
    console.tick(GIB / 2);
    console.finish_bar(true, Duration::from_secs(1));
    console.warn("attention");
    console.flush();
    assert_eq!(read(&mut out), format!("{LINE}\n{ERROR}\n"));
    assert_eq!(read(&mut err), "vmm: warning: attention\n");
}

#[test]
fn quiet_shows_errors_only() {
    let (mut console, mut out, mut err) = on_pipes(ConsoleOptions {
        quiet: true,
        ..options()
    });
    assert!(!console.wants_reports());
    say_a_line_and_an_error(&mut console);
    console.text(b"text\n");
    console.error("it failed");
    console.flush();
    assert_eq!(read(&mut out), format!("{ERROR}\n"));
    assert_eq!(read(&mut err), "vmm: it failed\n");
}

#[test]
fn the_bar_is_on_stderr_wherever_stdout_goes_and_the_lines_where_they_belong() {
    let mut pty = Pty::open(80);
    let (mut out, out_end) = io::pipe().unwrap();
    let mut console = console(options(), out_end, pty.theirs.try_clone().unwrap());
    assert!(console.wants_reports());
    console.tick(GIB / 2);
    console.message(&init_message("probe", "input", 1));
    console.flush();
    assert_eq!(read(&mut out), format!("{LINE}\n"));
    let shown = pty.shown();
    assert!(shown.contains("] ") && shown.contains("50%"), "{shown:?}");
    assert!(!shown.contains("INFO"), "{shown:?}");
}

#[test]
fn the_bar_takes_the_place_of_the_lines_on_its_own_terminal_but_not_of_errors() {
    let mut pty = Pty::open(80);
    let mut console = on_a_terminal(options(), &pty, Some("xterm"));
    assert!(!console.wants_reports());
    console.tick(GIB / 2);
    say_a_line_and_an_error(&mut console);
    let shown = screen(&pty.shown());
    assert_eq!(shown.len(), 2, "{shown:?}");
    assert_eq!(shown[0], ERROR);
    assert!(shown[1].contains("50%"), "{shown:?}");
}

#[test]
fn lines_are_printed_above_the_bar_and_nothing_of_it_is_left_behind() {
    let mut pty = Pty::open(60);
    let verbose = ConsoleOptions {
        verbose: true,
        debug: true,
        ..options()
    };
    let mut console = on_a_terminal(verbose, &pty, Some("xterm"));
    let mut expected = Vec::new();
    for n in 0..20 {
        if n % 3 == 0 {
            std::thread::sleep(FRAME);
            console.tick(n * GIB / 20);
        }
        console.message(&progress_message("copy", n, 20, 5));
        console.debug("debug");
        expected.push(format!("[PROGRESS] progress op=copy {n}/20 (5%)"));
        expected.push("[DEBUG] debug".to_owned());
        if n % 2 == 0 {
            console.flush();
        }
    }
    console.finish_bar(true, Duration::from_secs(2));
    console.notice("statistics\n");
    console.flush();
    expected.push("100%  copied 1.00 GiB in 2.00 s, 512.00 MiB/s".to_owned());
    expected.push("statistics".to_owned());
    expected.push(String::new());
    assert_eq!(screen(&pty.shown()), expected);
}

#[test]
fn a_bar_that_learns_its_total_on_the_way_leaves_nothing_behind() {
    let mut pty = Pty::open(80);
    let unknown = ConsoleOptions {
        total: None,
        ..options()
    };
    let mut console = on_a_terminal(unknown, &pty, Some("xterm"));
    console.tick(5 << 20);
    console.set_total(GIB);
    console.error("short");
    console.finish_bar(true, Duration::from_secs(2));
    console.flush();
    let summary = "100%  copied 1.00 GiB in 2.00 s, 512.00 MiB/s";
    assert_eq!(screen(&pty.shown()), ["vmm: short", summary, ""]);
}

#[test]
fn a_run_that_fails_leaves_nothing_of_the_bar() {
    let mut pty = Pty::open(80);
    let mut console = on_a_terminal(options(), &pty, Some("xterm"));
    console.tick(GIB / 2);
    console.finish_bar(false, Duration::from_secs(1));
    console.error("ended by SIGINT");
    console.flush();
    // The terminal shows the key where the cursor is.
    let written = pty.shown().replacen("\x1b[J\r", "\x1b[J\r^C", 1);
    assert_eq!(screen(&written), ["vmm: ended by SIGINT", ""]);
}

#[test]
fn the_bar_follows_the_width_of_the_terminal() {
    let mut pty = Pty::open(80);
    let mut console = on_a_terminal(options(), &pty, Some("xterm"));
    for columns in [80, 200, 40, 20, 8, 300, 0] {
        pty.resize(columns);
        std::thread::sleep(FRAME);
        console.tick(GIB / 2);
        let shown = screen(&pty.shown());
        let columns = if columns == 0 { USUAL_WIDTH } else { columns };
        assert!(shown[0].len() < columns.into(), "{shown:?}");
        if columns >= 40 {
            assert_eq!(shown[0].len(), usize::from(columns) - 1, "{shown:?}");
        }
    }
}

#[test]
fn a_dumb_terminal_gets_plain_lines_and_no_bar() {
    for term in [Some("dumb"), Some(""), None] {
        let mut pty = Pty::open(80);
        let mut console = on_a_terminal(options(), &pty, term);
        assert!(console.wants_reports());
        console.tick(GIB / 2);
        say_a_line_and_an_error(&mut console);
        console.finish_bar(true, Duration::from_secs(1));
        console.flush();
        assert_eq!(pty.shown(), format!("{LINE}\r\n{ERROR}\r\n"), "{term:?}");
    }
}

#[test]
fn text_is_passed_on_as_it_is_except_to_a_terminal() {
    let raw = ConsoleOptions {
        raw_text: true,
        ..options()
    };
    let said = b"one\n\x1b[2Jtwo\xff\n";
    let (mut console, mut out, _err) = on_pipes(raw.clone());
    console.text(said);
    console.flush();
    let mut passed_on = vec![0; said.len()];
    out.read_exact(&mut passed_on).unwrap();
    assert_eq!(passed_on, said);

    let mut pty = Pty::open(80);
    let mut console = on_a_terminal(raw, &pty, Some("xterm"));
    console.text(said);
    console.tick(1);
    assert_eq!(pty.shown(), "one\r\n\\u{1b}[2Jtwo\\xff\r\n");
}

#[test]
fn a_program_gets_one_object_a_line_on_stdout_and_nothing_else() {
    let (mut console, mut out, err) = on_pipes(ConsoleOptions {
        debug: true,
        ..json()
    });
    say_a_line_and_an_error(&mut console);
    console.message(&complete_message("copy", 50, true));
    console.text(b"half a li");
    console.text(b"ne\nand no end");
    console.debug("debug");
    console.warn("attention");
    console.finish_bar(true, Duration::from_secs(1));
    assert_eq!(drain(&mut console, AT_ONCE, &never()), Drained::Done);
    let written = read(&mut out);
    let kinds: Vec<String> = written
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|object| object["type"].as_str().unwrap().to_owned())
        .collect();
    let expected = [
        "init", "error", "complete", "text", "debug", "warning", "text",
    ];
    assert_eq!(kinds, expected, "{written}");
    drop(console);
    // The leaked end of the pipe stays open: nothing may be in it.
    assert_eq!(rustix::io::ioctl_fionread(&err).unwrap(), 0);
}

#[test]
fn there_is_no_bar_for_a_program_on_a_terminal() {
    let mut pty = Pty::open(80);
    let mut console = on_a_terminal(json(), &pty, Some("xterm"));
    console.tick(GIB / 2);
    console.message(&init_message("probe", "input", 1));
    console.flush();
    assert!(pty.shown().starts_with("{\"type\":\"init\""));
}

#[test]
fn a_stopped_terminal_holds_up_nothing_and_no_frames_pile_up() {
    let mut pty = Pty::open(80);
    let mut console = on_a_terminal(options(), &pty, Some("xterm"));
    tcflow(&pty.theirs, Action::OOff).unwrap();
    let begun = Instant::now();
    for n in 0..5 {
        std::thread::sleep(FRAME);
        console.tick(n);
    }
    assert!(begun.elapsed() < AT_ONCE, "it waited for the terminal");
    assert_eq!(console.waiting().count(), 1);
    assert!(console.streams.err().room_left() > FULL, "frames piled up");
    tcflow(&pty.theirs, Action::OOn).unwrap();
    console.tick(GIB / 2);
    assert_eq!(console.waiting().count(), 0);
    std::thread::sleep(FRAME);
    console.tick(GIB / 2);
    let shown = screen(&pty.shown());
    assert!(shown[0].contains("50%"), "{shown:?}");
}

#[test]
fn a_reader_that_takes_nothing_is_given_up_though_the_bar_goes_on() {
    let mut pty = Pty::open(80);
    let (mut out, out_end) = io::pipe().unwrap();
    let mut console = console(options(), out_end, pty.theirs.try_clone().unwrap());
    let patience = 3 * FRAME;
    let wait = |console: &mut Console, pty: &mut Pty| {
        let mut frames = 0;
        for done in 0..8 {
            std::thread::sleep(FRAME);
            console.tick(done);
            frames += usize::from(!pty.shown().is_empty());
        }
        assert!(frames > 4, "the bar stands still");
    };
    // As long as there is room for more, nobody waits for the reader.
    while waiting_for_stdout(&console) < FULL / 2 {
        console.message(&init_message("probe", "input", 1));
    }
    wait(&mut console, &mut pty);
    assert_eq!(console.give_up_stuck(patience), 0);
    while !console.is_full() {
        console.message(&init_message("probe", "input", 1));
    }
    wait(&mut console, &mut pty);
    assert_eq!(console.give_up_stuck(Duration::from_secs(60)), 0);
    let dropped = console.give_up_stuck(patience);
    assert!((FULL..2 * FULL).contains(&dropped), "{dropped}");
    assert!(!console.is_full());
    // The other stream goes on, and the reader gets what it was offered.
    console.warn("attention");
    wait(&mut console, &mut pty);
    assert_eq!(console.give_up_stuck(patience), 0);
    assert!(read(&mut out).starts_with(LINE));
}

#[test]
fn a_reader_that_takes_little_is_not_given_up() {
    let (mut console, mut out, _err) = on_pipes(options());
    for _ in 0..6 {
        while !console.is_full() {
            console.message(&init_message("probe", "input", 1));
        }
        std::thread::sleep(FRAME);
        // It takes a page at least before the pipe has room again.
        out.read_exact(&mut [0; 8 << 10]).unwrap();
        console.tick(0);
        assert_eq!(console.give_up_stuck(3 * FRAME), 0);
    }
}

/// How many bytes wait for the reader of standard output.
fn waiting_for_stdout(console: &Console) -> usize {
    CAPACITY - console.streams.out().room_left()
}

/// The frames and texts that become most.
fn worst_pieces() -> Vec<(ConsoleOptions, Vec<u8>)> {
    let raw = |format| ConsoleOptions {
        raw_text: true,
        format,
        ..options()
    };
    [b'\n', 0x1b, b'x', 0xff]
        .into_iter()
        .flat_map(|byte| {
            [OutputFormat::Text, OutputFormat::Json].map(|format| (raw(format), vec![byte; PIECE]))
        })
        .collect()
}

#[test]
fn a_piece_fits_whatever_it_is_made_of_as_long_as_the_console_is_not_full() {
    for (options, piece) in worst_pieces() {
        let (mut console, _out, _err) = on_pipes(options);
        while !console.is_full() {
            console.text(&piece);
        }
        assert_eq!(console.streams.take_lost(), 0);
    }
    let strings = ["", "\u{1}", "\u{ad}", "\""].map(|part| part.repeat(100));
    for format in [OutputFormat::Text, OutputFormat::Json] {
        for said in &strings {
            let messages = [
                init_message(said, said, 0),
                guest_protocol::capacity_message(said, 0, 0),
                progress_message(said, 1, 1, 0),
                error_message(said, said, 0, 1, said),
                complete_message(said, 0, true),
            ];
            for message in messages {
                let (mut console, _out, _err) = on_pipes(ConsoleOptions {
                    format,
                    ..options()
                });
                let len = 2 + guest_protocol::Message::encoded_len(&message);
                while !console.is_full() {
                    for _ in 0..PIECE.div_ceil(len) {
                        console.message(&message);
                    }
                }
                assert_eq!(console.streams.take_lost(), 0, "{message:?}");
            }
        }
    }
}

#[test]
fn draining_gives_a_slow_reader_its_time() {
    let (mut console, mut out, _err) = on_pipes(options());
    while !console.is_full() {
        console.message(&init_message("probe", "input", 1));
    }
    let reader = std::thread::spawn(move || {
        let mut lines = 0;
        let mut part = vec![0; 8 << 10];
        while let Ok(len @ 1..) = out.read(&mut part) {
            lines += part[..len].iter().filter(|byte| **byte == b'\n').count();
            if part[..len].ends_with(b"end\n") {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        lines
    });
    console.text(b"end\n");
    // Each pause is shorter than the patience, and all of them together are longer.
    let begun = Instant::now();
    let drained = drain(&mut console, Duration::from_millis(150), &never());
    assert_eq!(drained, Drained::Done, "after {:?}", begun.elapsed());
    assert!(reader.join().unwrap() > FULL / LINE.len() - 2);
}

#[test]
fn draining_gives_up_on_a_reader_that_takes_nothing_and_says_how_much_is_lost() {
    let (mut console, _out, mut err) = on_pipes(options());
    while !console.is_full() {
        console.message(&init_message("probe", "input", 1));
    }
    console.warn("one");
    let begun = Instant::now();
    let patience = Duration::from_millis(100);
    let drained = drain(&mut console, patience, &never());
    assert!(begun.elapsed() >= patience && begun.elapsed() < AT_ONCE);
    let Drained::GaveUp { bytes } = drained else {
        unreachable!("{drained:?}");
    };
    assert!((FULL..2 * FULL).contains(&bytes), "{bytes}");
    // The other stream works, and the one that was given up holds up nothing more.
    console.message(&init_message("probe", "input", 1));
    console.warn("two");
    assert_eq!(drain(&mut console, AT_ONCE, &never()), Drained::Done);
    assert_eq!(read(&mut err), "vmm: warning: one\nvmm: warning: two\n");
}

#[test]
fn draining_ends_with_the_time_limit_and_with_an_interruption() {
    let (mut console, _out, _err) = on_pipes(options());
    while !console.is_full() {
        console.message(&init_message("probe", "input", 1));
    }
    let interrupt = never();
    interrupt.write(1).unwrap();
    let long = Duration::from_secs(60);
    assert_eq!(drain(&mut console, long, &interrupt), Drained::Interrupted);
    let over = Instant::now();
    let drained = console.drain(over, long, leak(io::pipe().unwrap().0));
    assert!(matches!(drained, Drained::GaveUp { .. }), "{drained:?}");
}

#[test]
fn the_last_debug_lines_explain_a_failure_unless_all_were_shown() {
    for debug in [false, true] {
        let (mut console, _out, mut err) = on_pipes(ConsoleOptions { debug, ..options() });
        let mut lines = DebugLines::default();
        lines.push(b"about to fall\n", |line| console.debug(line));
        console.explain(&lines);
        console.flush();
        assert_eq!(read(&mut err), "[DEBUG] about to fall\n");
    }
}

#[test]
fn a_full_disk_under_stdout_is_told_once() {
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let (mut err, err_end) = io::pipe().unwrap();
    let mut console = console(options(), full, err_end);
    for _ in 0..3 {
        say_a_line_and_an_error(&mut console);
    }
    let told = read(&mut err);
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.contains("No space left on device"), "{told}");
}

#[test]
fn the_order_is_kept_where_both_streams_are_one_pipe() {
    let (mut both, end) = io::pipe().unwrap();
    let mut console = console(options(), end.try_clone().unwrap(), end);
    console.message(&init_message("probe", "input", 1));
    console.warn("attention");
    console.message(&init_message("probe", "input", 1));
    console.flush();
    let expected = format!("{LINE}\nvmm: warning: attention\n{LINE}\n");
    assert_eq!(read(&mut both), expected);
}
