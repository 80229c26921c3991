//! A bounded queue of bytes from the thread of a device to the main loop.
//!
//! A guest can send faster than anyone reads. What happens then is chosen for each device. COM1 makes
//! the vCPU wait, so that no message is lost. COM2 drops bytes, so that debug text never makes anyone
//! wait. A virtio console offers bytes, keeps the buffers of those that were not taken, and is told
//! when there is room. In every case the memory is allocated once and never grows.

use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::lock::lock;

/// What happens to bytes for which there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// The writer waits until there is room, or until the queue is closed.
    Wait,
    /// They are dropped.
    Drop,
}

#[derive(Debug)]
struct State {
    bytes: VecDeque<u8>,
    closed: bool,
    /// Whether a part of an offer was not taken, and nobody has been told of room since then.
    refused: bool,
}

/// The queue. Shared by both threads through an `Arc`.
#[derive(Debug)]
pub struct ByteQueue {
    state: Mutex<State>,
    room: Condvar,
    capacity: usize,
    overflow: Overflow,
    filled: EventFd,
    has_room: OnceLock<EventFd>,
}

impl ByteQueue {
    /// An empty queue of at most `capacity` bytes.
    ///
    /// # Errors
    ///
    /// If the system has no eventfd to spare.
    pub fn new(capacity: usize, overflow: Overflow) -> io::Result<Self> {
        Ok(Self {
            state: Mutex::new(State {
                bytes: VecDeque::with_capacity(capacity),
                closed: false,
                refused: false,
            }),
            room: Condvar::new(),
            capacity,
            overflow,
            filled: EventFd::new(EFD_NONBLOCK)?,
            has_room: OnceLock::new(),
        })
    }

    /// Has `event` written when there is room again after an [`offer`](Self::offer) that was not
    /// taken whole. Only the first call counts.
    pub fn tell_of_room(&self, event: EventFd) {
        let _ = self.has_room.set(event);
    }

    /// Appends as many of `bytes` as there is room for, without waiting, and returns how many. All
    /// of them count as taken once the queue is closed.
    pub fn offer(&self, bytes: &[u8]) -> usize {
        let mut state = lock(&self.state);
        if state.closed {
            return bytes.len();
        }
        let room = self.capacity - state.bytes.len();
        let (now, later) = bytes.split_at(room.min(bytes.len()));
        self.append(&mut state, now);
        state.refused |= !later.is_empty();
        now.len()
    }

    /// Appends `bytes`, as [`Overflow`] says if they do not fit.
    pub fn push(&self, mut bytes: &[u8]) {
        let mut state = lock(&self.state);
        while !bytes.is_empty() && !state.closed {
            let room = self.capacity - state.bytes.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.append(&mut state, now);
            bytes = later;
            if !bytes.is_empty() {
                match self.overflow {
                    Overflow::Drop => return,
                    Overflow::Wait => {
                        state = self
                            .room
                            .wait(state)
                            .unwrap_or_else(PoisonError::into_inner);
                    }
                }
            }
        }
    }

    /// Takes as many bytes as there are and as `out` has room for; returns how many. When it takes
    /// the last one, [`event`](Self::event) stops being readable.
    pub fn take(&self, out: &mut [u8]) -> usize {
        let mut state = lock(&self.state);
        let len = out.len().min(state.bytes.len());
        let (first, second) = state.bytes.as_slices();
        let (out, _) = out.split_at_mut(len);
        let (to_first, to_second) = out.split_at_mut(len.min(first.len()));
        to_first.copy_from_slice(&first[..to_first.len()]);
        to_second.copy_from_slice(&second[..to_second.len()]);
        state.bytes.drain(..len);
        if state.bytes.is_empty() {
            let _ = self.filled.read();
        }
        // Whoever is told comes with a whole buffer, so it is not told of a few bytes of room.
        if state.refused && state.bytes.len() <= self.capacity / 2 {
            self.tell(&mut state);
        }
        self.room.notify_all();
        len
    }

    /// Whether there is nothing to take.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        lock(&self.state).bytes.is_empty()
    }

    /// From now on nobody waits any more: what does not fit is dropped.
    pub fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        if state.refused {
            self.tell(&mut state);
        }
        self.room.notify_all();
    }

    /// Readable while there are bytes to be taken.
    #[must_use]
    pub fn event(&self) -> &EventFd {
        &self.filled
    }

    fn append(&self, state: &mut State, bytes: &[u8]) {
        if state.bytes.is_empty() && !bytes.is_empty() {
            // It is written only when the queue was empty: until then it is readable already.
            let _ = self.filled.write(1);
        }
        state.bytes.extend(bytes);
    }

    fn tell(&self, state: &mut State) {
        state.refused = false;
        if let Some(event) = self.has_room.get() {
            // The only failure is a counter that is full, and then it is readable anyway.
            let _ = event.write(1);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;
    use std::thread;

    use super::*;

    #[test]
    fn a_waiting_queue_holds_its_writer_back_and_loses_nothing() {
        let queue = Arc::new(ByteQueue::new(3, Overflow::Wait).unwrap());
        let sent: Vec<u8> = (0..=255).collect();
        let writer = thread::spawn({
            let (queue, sent) = (queue.clone(), sent.clone());
            move || queue.push(&sent)
        });
        let (mut received, mut part) = (Vec::new(), [0; 8]);
        while received.len() < sent.len() {
            let len = queue.take(&mut part);
            assert!(len <= 3);
            received.extend_from_slice(&part[..len]);
        }
        writer.join().unwrap();
        assert_eq!(received, sent);
    }

    #[test]
    fn a_dropping_queue_keeps_the_first_bytes_and_tells_of_them_until_they_are_taken() {
        let queue = ByteQueue::new(3, Overflow::Drop).unwrap();
        queue.push(b"abcde");
        let mut out = [0; 2];
        assert_eq!(queue.take(&mut out), 2);
        assert_eq!(&out, b"ab");
        assert!(queue.event().write(0).is_ok() && !queue.is_empty());
        assert_eq!(queue.take(&mut out), 1);
        assert!(queue.event().read().is_err(), "nothing is left to tell of");
        assert_eq!(queue.take(&mut out), 0);
    }

    #[test]
    fn a_queue_that_is_partly_full_takes_no_more_than_the_rest_of_its_room() {
        let queue = ByteQueue::new(3, Overflow::Drop).unwrap();
        queue.push(b"ab");
        queue.push(b"cde");
        let mut out = [0; 8];
        assert_eq!(queue.take(&mut out), 3);
        assert_eq!(&out[..3], b"abc");
    }

    #[test]
    fn the_event_tells_of_bytes_and_not_of_nothing() {
        let queue = ByteQueue::new(3, Overflow::Wait).unwrap();
        assert_eq!(queue.offer(b""), 0);
        assert!(queue.event().read().is_err());
        queue.push(b"a");
        assert!(queue.event().read().is_ok());
    }

    #[test]
    fn who_was_refused_is_told_once_half_of_the_room_is_free() {
        let queue = ByteQueue::new(6, Overflow::Wait).unwrap();
        let told = EventFd::new(EFD_NONBLOCK).unwrap();
        queue.tell_of_room(told.try_clone().unwrap());
        assert_eq!(queue.offer(b"abcdefg"), 6);
        let mut out = [0; 6];
        assert_eq!(queue.take(&mut out[..2]), 2);
        assert!(told.read().is_err());
        assert_eq!(queue.take(&mut out[..1]), 1);
        assert!(told.read().is_ok());
    }

    #[test]
    fn an_offer_is_taken_as_far_as_there_is_room_and_told_when_there_is_more() {
        let queue = ByteQueue::new(4, Overflow::Wait).unwrap();
        let told = EventFd::new(EFD_NONBLOCK).unwrap();
        queue.tell_of_room(told.try_clone().unwrap());
        assert_eq!(queue.offer(b"abcdef"), 4);
        assert_eq!(queue.offer(b"ef"), 0);
        let mut out = [0; 4];
        assert_eq!(queue.take(&mut out[..1]), 1);
        assert!(told.read().is_err(), "there is hardly any room");
        assert_eq!(queue.take(&mut out[1..]), 3);
        assert_eq!(&out, b"abcd");
        assert_eq!(told.read().unwrap(), 1);
        assert_eq!(queue.offer(b"ef"), 2);
        assert_eq!(queue.take(&mut out), 2);
        assert!(told.read().is_err(), "nobody was refused");
    }

    #[test]
    fn bytes_that_wrap_around_the_buffer_are_taken_in_order() {
        let queue = ByteQueue::new(5, Overflow::Wait).unwrap();
        let (mut sent, mut received) = (0_u8, Vec::new());
        for round in 0..100 {
            let part: Vec<u8> = (sent..).take(1 + round % 5).collect();
            sent += u8::try_from(queue.offer(&part)).unwrap();
            let mut out = [0; 3];
            let len = queue.take(&mut out);
            received.extend_from_slice(&out[..len]);
            if sent > 200 {
                break;
            }
        }
        let expected: Vec<u8> = (0..).take(received.len()).collect();
        assert!(received.len() > 100);
        assert_eq!(received, expected);
    }

    #[test]
    fn closing_takes_all_offers_and_tells_who_was_refused() {
        let queue = ByteQueue::new(1, Overflow::Wait).unwrap();
        let told = EventFd::new(EFD_NONBLOCK).unwrap();
        queue.tell_of_room(told.try_clone().unwrap());
        assert_eq!(queue.offer(b"abc"), 1);
        queue.close();
        assert!(told.read().is_ok());
        assert_eq!(queue.offer(b"bc"), 2);
    }

    #[test]
    fn closing_lets_a_waiting_writer_go() {
        let queue = Arc::new(ByteQueue::new(1, Overflow::Wait).unwrap());
        let writer = thread::spawn({
            let queue = queue.clone();
            move || queue.push(b"abc")
        });
        // The lock with which the first byte is put in is given up only in the wait for room.
        while queue.is_empty() {
            thread::yield_now();
        }
        queue.close();
        writer.join().unwrap();
    }
}
