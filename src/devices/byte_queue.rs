//! A bounded queue of bytes from the vCPU's thread to the main loop.
//!
//! A guest can send faster than anyone reads. What then happens is a choice made per port: COM1
//! holds the vCPU back, so that no message is lost; COM2 drops, so that debug text never holds
//! anything up. Either way the memory is allocated once and never grows.

use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

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
}

/// The queue. Shared by both threads through an `Arc`.
#[derive(Debug)]
pub struct ByteQueue {
    state: Mutex<State>,
    room: Condvar,
    capacity: usize,
    overflow: Overflow,
    filled: EventFd,
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
            }),
            room: Condvar::new(),
            capacity,
            overflow,
            filled: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    /// Appends `bytes`, as [`Overflow`] says if they do not fit.
    pub fn push(&self, mut bytes: &[u8]) {
        let mut state = self.lock();
        while !bytes.is_empty() && !state.closed {
            let room = self.capacity - state.bytes.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            if state.bytes.is_empty() && !now.is_empty() {
                // Written once for each time that the queue was empty, when it was read as well.
                let _ = self.filled.write(1);
            }
            state.bytes.extend(now);
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

    /// Takes as many bytes as there are and as `out` has room for; returns how many. Only when it
    /// takes the last one does [`event`](Self::event) rest.
    pub fn take(&self, out: &mut [u8]) -> usize {
        let mut state = self.lock();
        let len = out.len().min(state.bytes.len());
        for (to, from) in out.iter_mut().zip(state.bytes.drain(..len)) {
            *to = from;
        }
        if state.bytes.is_empty() {
            let _ = self.filled.read();
        }
        self.room.notify_all();
        len
    }

    /// Whether there is nothing to take.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().bytes.is_empty()
    }

    /// Ends waiting for good: what does not fit from now on is dropped.
    pub fn close(&self) {
        self.lock().closed = true;
        self.room.notify_all();
    }

    /// Readable while there are bytes to be taken.
    #[must_use]
    pub fn event(&self) -> &EventFd {
        &self.filled
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn closing_lets_a_waiting_writer_go() {
        let queue = Arc::new(ByteQueue::new(1, Overflow::Wait).unwrap());
        let writer = thread::spawn({
            let queue = queue.clone();
            move || queue.push(b"abc")
        });
        queue.close();
        writer.join().unwrap();
    }
}
