#![allow(clippy::unwrap_used)]

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::io::FdFlags;
use rustix::net::sockopt::set_socket_send_buffer_size;
use rustix::termios::{Action, tcflow};

use super::*;
use crate::report::testing::{Pty, leak};

/// So long a test may take where nothing is to wait.
const AT_ONCE: Duration = Duration::from_secs(2);

fn text(len: usize) -> Vec<u8> {
    (b'a'..=b'w').cycle().take(len).collect()
}

/// Writes more than there is room for while nobody reads, and then reads all of it.
fn a_slow_reader_gets_all(mut stream: Stream, mut reader: impl Read) {
    let text = text(100_000);
    let begun = Instant::now();
    let mut left = &text[..];
    while !stream.is_full() && !left.is_empty() {
        let (part, rest) = left.split_at(left.len().min(1000));
        stream.print(part);
        left = rest;
    }
    stream.print(left);
    stream.flush();
    assert!(begun.elapsed() < AT_ONCE, "it waited for the reader");
    assert_eq!(stream.take_lost(), 0);
    let mut received = Vec::new();
    let mut part = vec![0; 10_000];
    while received.len() < text.len() {
        let len = reader.read(&mut part).unwrap();
        received.extend_from_slice(&part[..len]);
        stream.flush();
    }
    assert!(received == text);
    assert!(stream.is_empty() && !stream.waits_for_room());
}

#[test]
fn a_pipe_whose_reader_sleeps_does_not_block_and_loses_nothing() {
    let (reader, writer) = io::pipe().unwrap();
    let stream = Stream::open(leak(writer));
    assert!(matches!(stream.way, Way::Reopened(_)));
    a_slow_reader_gets_all(stream, reader);
}

#[test]
fn a_pipe_that_cannot_be_reopened_does_not_block_either() {
    let (reader, writer) = io::pipe().unwrap();
    let stream = Stream::with(leak(writer), Way::Polled(PIPE_BUF), false);
    a_slow_reader_gets_all(stream, reader);
}

#[test]
fn a_socket_whose_peer_sleeps_does_not_block_and_loses_nothing() {
    let (reader, writer) = UnixStream::pair().unwrap();
    set_socket_send_buffer_size(&writer, 4096).unwrap();
    let stream = Stream::open(leak(writer));
    assert!(matches!(stream.way, Way::Socket));
    a_slow_reader_gets_all(stream, reader);
}

#[test]
fn a_terminal_whose_other_side_sleeps_does_not_block_and_loses_nothing() {
    let pty = Pty::open(80);
    let stream = Stream::open(leak(pty.theirs.try_clone().unwrap()));
    assert!(matches!(stream.way, Way::Reopened(_)));
    a_slow_reader_gets_all(stream, pty.ours);
}

#[test]
fn a_terminal_that_cannot_be_reopened_does_not_block_either() {
    let pty = Pty::open(80);
    let stream = Stream::with(
        leak(pty.theirs.try_clone().unwrap()),
        Way::Polled(ONE),
        true,
    );
    a_slow_reader_gets_all(stream, pty.ours);
}

#[test]
fn a_stopped_terminal_blocks_neither_way_and_gets_all_when_it_goes_on() {
    for way in [None, Some(Way::Polled(ONE))] {
        let mut pty = Pty::open(80);
        let fd = leak(pty.theirs.try_clone().unwrap());
        let mut stream = match way {
            None => Stream::open(fd),
            Some(way) => Stream::with(fd, way, true),
        };
        tcflow(&pty.theirs, Action::OOff).unwrap();
        let begun = Instant::now();
        stream.print(b"line\n");
        stream.flush();
        assert!(begun.elapsed() < AT_ONCE, "it waited for the terminal");
        assert!(stream.waits_for_room());
        tcflow(&pty.theirs, Action::OOn).unwrap();
        stream.flush();
        assert!(stream.is_empty());
        let mut shown = [0; 6];
        pty.ours.read_exact(&mut shown).unwrap();
        assert_eq!(&shown, b"line\r\n");
    }
}

#[test]
fn the_inherited_description_stays_as_it_is() {
    let (_reader, writer) = io::pipe().unwrap();
    let fd = leak(writer);
    let before = fcntl_getfl(fd).unwrap();
    let stream = Stream::open(fd);
    assert_eq!(fcntl_getfl(fd).unwrap(), before);
    assert!(fcntl_getfl(&stream).unwrap().contains(OFlags::NONBLOCK));
    let flags = rustix::io::fcntl_getfd(&stream).unwrap();
    assert!(flags.contains(FdFlags::CLOEXEC));
}

#[test]
fn a_regular_file_is_written_where_it_stands() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"before ").unwrap();
    let mut stream = Stream::open(leak(file.try_clone().unwrap()));
    stream.print(b"after");
    stream.flush();
    let mut content = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut content).unwrap();
    assert_eq!(content, "before after");
}

#[test]
fn without_a_reader_everything_is_dropped_and_that_is_no_failure() {
    let (reader, writer) = io::pipe().unwrap();
    let mut stream = Stream::open(leak(writer));
    drop(reader);
    stream.print(b"line\n");
    stream.flush();
    assert!(stream.is_empty());
    assert_eq!(stream.take_failure(), None);
}

#[test]
fn a_full_disk_is_a_failure_that_is_told_once() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut stream = Stream::open(leak(full));
    stream.print(b"line\n");
    stream.flush();
    assert!(stream.is_empty());
    assert_eq!(stream.take_failure(), Some(Errno::NOSPC));
    assert_eq!(stream.take_failure(), None);
}

#[test]
fn the_buffer_never_grows_and_what_does_not_fit_is_counted() {
    let (_reader, writer) = io::pipe().unwrap();
    let mut stream = Stream::open(leak(writer));
    let capacity = stream.pending.capacity();
    for _ in 0..1000 {
        stream.print(&[b'x'; 1000]);
    }
    assert_eq!(stream.pending.capacity(), capacity);
    assert!(stream.is_full());
    assert!(stream.take_lost() > 700_000);
}

#[test]
fn two_descriptors_of_one_terminal_or_pipe_lead_to_the_same() {
    let pty = Pty::open(80);
    let copy = pty.theirs.try_clone().unwrap();
    assert!(lead_to_the_same(pty.theirs.as_fd(), copy.as_fd()));
    let other = Pty::open(80);
    assert!(!lead_to_the_same(pty.theirs.as_fd(), other.theirs.as_fd()));
    let (_reader, writer) = io::pipe().unwrap();
    let copy = writer.try_clone().unwrap();
    assert!(lead_to_the_same(writer.as_fd(), copy.as_fd()));
    let null = File::open("/dev/null").unwrap();
    assert!(!lead_to_the_same(null.as_fd(), null.as_fd()));
}

#[test]
fn only_a_character_device_may_be_a_terminal_that_has_hung_up() {
    let null = File::open("/dev/null").unwrap();
    let file = tempfile::tempfile().unwrap();
    for (error, null_is_gone, file_is_gone) in [
        (Errno::PIPE, true, true),
        (Errno::IO, true, false),
        (Errno::NOSPC, false, false),
    ] {
        assert_eq!(is_reader_gone(null.as_fd(), error), null_is_gone);
        assert_eq!(is_reader_gone(file.as_fd(), error), file_is_gone);
    }
}
