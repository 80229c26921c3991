//! What carries the guest's words to the main loop, and the main loop's to the guest.

use std::io;
use std::sync::Arc;

use super::Source;
use crate::devices::{ByteQueue, Overflow, Uart};

/// What waits of a port that reports before the vCPU is held back, and of one for debug text before
/// text is dropped, in bytes.
const REPORT_QUEUE: usize = 64 * 1024;
const DEBUG_QUEUE: usize = 16 * 1024;

/// A serial port and what the guest has sent through it.
#[derive(Clone)]
pub struct SerialPort {
    /// The device for the port bus.
    pub uart: Arc<Uart>,
    /// Bytes that nobody has taken yet.
    pub output: Arc<ByteQueue>,
}

impl SerialPort {
    /// A port that loses nothing: the guest is held back while nobody takes what it sends.
    ///
    /// # Errors
    ///
    /// The host has no eventfd to spare.
    pub fn for_reports() -> io::Result<Self> {
        Self::with(ByteQueue::new(REPORT_QUEUE, Overflow::Wait)?)
    }

    /// A port that never holds the guest back: what nobody takes in time is dropped.
    ///
    /// # Errors
    ///
    /// The host has no eventfd to spare.
    pub fn for_debug() -> io::Result<Self> {
        Self::with(ByteQueue::new(DEBUG_QUEUE, Overflow::Drop)?)
    }

    fn with(output: ByteQueue) -> io::Result<Self> {
        let output = Arc::new(output);
        let uart = Arc::new(Uart::new(output.clone())?);
        Ok(Self { uart, output })
    }
}

/// What the main loop listens to.
#[derive(Clone, Default)]
pub(super) struct Channels {
    /// Where the guest reports.
    pub(super) reports: Vec<(Source, Arc<ByteQueue>)>,
    /// Where it sends debug text.
    pub(super) debug: Vec<Arc<ByteQueue>>,
    /// Ports whose receive FIFO is refilled when it is empty.
    pub(super) refills: Vec<Arc<Uart>>,
}

impl Channels {
    /// Lets a guest go on that waits for room.
    pub(super) fn close(&self) {
        let reports = self.reports.iter().map(|(_, queue)| queue);
        reports.chain(&self.debug).for_each(|queue| queue.close());
    }
}
