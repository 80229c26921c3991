//! What carries the guest's words to the main loop, and the main loop's to the guest.

use std::io;
use std::sync::Arc;

use super::ReportSource;
use crate::devices::{ByteQueue, Overflow, Uart};
use crate::virtio::VirtioDevice;

/// How many bytes of reports may wait to be heard before the vCPU has to wait as well, and how many
/// of debug text before the rest is dropped.
const REPORT_QUEUE: usize = 64 * 1024;
pub(super) const DEBUG_QUEUE: usize = 16 * 1024;

/// A queue for what a guest reports by another way than a serial port. It loses nothing: who puts
/// bytes into it waits while nobody takes them, or keeps them.
///
/// # Errors
///
/// The host has no eventfd to spare.
pub fn report_queue() -> io::Result<Arc<ByteQueue>> {
    Ok(Arc::new(ByteQueue::new(REPORT_QUEUE, Overflow::Wait)?))
}

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
        Self::with(report_queue()?)
    }

    /// A port that never holds the guest back: what nobody takes in time is dropped.
    ///
    /// # Errors
    ///
    /// The host has no eventfd to spare.
    pub fn for_debug() -> io::Result<Self> {
        Self::with(Arc::new(ByteQueue::new(DEBUG_QUEUE, Overflow::Drop)?))
    }

    fn with(output: Arc<ByteQueue>) -> io::Result<Self> {
        let uart = Arc::new(Uart::new(output.clone())?);
        Ok(Self { uart, output })
    }
}

/// What the main loop listens to.
#[derive(Clone, Default)]
pub(super) struct Channels {
    /// Where the guest reports.
    pub(super) reports: Vec<(ReportSource, Arc<ByteQueue>)>,
    /// Devices that may still have reports when the guest has ended.
    pub(super) devices: Vec<Arc<dyn VirtioDevice>>,
    /// Where it sends debug text.
    pub(super) debug: Vec<Arc<ByteQueue>>,
    /// Ports whose receive FIFO is refilled when it is empty.
    pub(super) refills: Vec<Arc<Uart>>,
}

impl Channels {
    /// Whether there is nothing left to hear of a guest that has ended.
    pub(super) fn are_silent(&self) -> bool {
        // The devices are asked before the queues: once a device is at rest, all that it took from
        // the guest is in its queue.
        let mut devices = self.devices.iter();
        let at_rest = devices.all(|device| !device.in_flight());
        at_rest && self.reports.iter().all(|(_, queue)| queue.is_empty())
    }

    /// Lets the guest go on, if it waits for room.
    pub(super) fn close(&self) {
        let reports = self.reports.iter().map(|(_, queue)| queue);
        reports.chain(&self.debug).for_each(|queue| queue.close());
    }
}
