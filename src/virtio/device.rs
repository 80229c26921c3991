//! What the transport needs of any virtio device (virtio 1.2, section 2). All methods take
//! `&self`: a device is shared by the thread that traps its registers and the thread that works
//! on its queues, and locks no more than the two have in common.

use std::sync::Arc;

use thiserror::Error;
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FAILED, VIRTIO_CONFIG_S_FEATURES_OK,
    VIRTIO_F_VERSION_1,
};
use virtio_queue::Queue;
use vmm_sys_util::eventfd::EventFd;

use super::{DeviceFault, Notifier, QueueConfigError};

/// Why a device that its driver has begun to set up did not start.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ActivateError {
    /// The driver set FEATURES_OK with features that the device does not accept.
    #[error(
        "its driver chose the features {chosen:#x}{}, and the status has no FEATURES_OK; the device \
         offers {offered:#x}",
        without_version_1(*chosen)
    )]
    Features {
        /// What the driver chose.
        chosen: u64,
        /// What it may choose of.
        offered: u64,
    },
    /// The guest waits for devices, and the driver of this one has not set DRIVER_OK.
    #[error("its driver has not set DRIVER_OK; its status is {status:#x}{}", with_failed(*status))]
    Unfinished {
        /// The status that the driver has set.
        status: u32,
    },
    /// The driver set DRIVER_OK without FEATURES_OK, which the device had not accepted, or without
    /// a step before that.
    #[error(
        "its driver set DRIVER_OK without a status of FEATURES_OK; the device accepts features \
         that it offers, with VIRTIO_F_VERSION_1"
    )]
    NotNegotiated,
    /// The driver set DRIVER_OK by a write that is ignored.
    #[error(
        "its driver wrote a status of {written:#x} where it was {status:#x}; a write has to keep the bits \
         that are set and to have none but those of a driver, and after FAILED there is only a reset"
    )]
    Status {
        /// What was written.
        written: u32,
        /// What the status was, and is.
        status: u32,
    },
    /// A queue that the device cannot do without is not ready.
    #[error("queue {0} is not ready")]
    QueueNotReady(usize),
    /// The registers of a queue do not describe one.
    #[error("queue {index} cannot be used: {source}")]
    Queue {
        /// Which one.
        index: usize,
        /// What is wrong with it.
        source: QueueConfigError,
    },
}

impl ActivateError {
    /// Why a device with this status, as its driver has set it, does not run: `None` if the driver has
    /// not begun, or has set DRIVER_OK.
    pub(crate) fn unfinished(status: u32) -> Option<Self> {
        let is_begun = status != 0 && status & VIRTIO_CONFIG_S_DRIVER_OK == 0;
        is_begun.then_some(Self::Unfinished { status })
    }

    /// Whether the device had accepted the driver's features by then.
    pub(super) fn is_of_accepted_features(&self) -> bool {
        match *self {
            Self::Features { .. } | Self::NotNegotiated => false,
            Self::Unfinished { status } | Self::Status { status, .. } => {
                status & VIRTIO_CONFIG_S_FEATURES_OK != 0
            }
            Self::QueueNotReady(_) | Self::Queue { .. } => true,
        }
    }
}

fn without_version_1(features: u64) -> &'static str {
    match features & (1 << VIRTIO_F_VERSION_1) {
        0 => ", without VIRTIO_F_VERSION_1",
        _ => "",
    }
}

fn with_failed(status: u32) -> &'static str {
    match status & VIRTIO_CONFIG_S_FAILED {
        0 => "",
        _ => ", with FAILED",
    }
}

/// A virtio device, whatever its type and its transport.
///
/// A device that serves queues is best made of a [`Service`](super::Service), which a
/// [`QueueWorker`](super::QueueWorker) makes a `VirtioDevice` of. One that does nothing shows what
/// a transport asks for:
///
/// ```
/// use std::sync::Arc;
/// use virtio_queue::Queue;
/// use vmm::virtio::{ActivateError, Notifier, NotificationLine, VirtioDevice};
/// use vmm_sys_util::eventfd::EventFd;
///
/// struct Nothing(Notifier);
///
/// impl VirtioDevice for Nothing {
///     fn device_type(&self) -> u32 {
///         42
///     }
///     fn device_features(&self) -> u64 {
///         1 << 32
///     }
///     fn queue_max_sizes(&self) -> &[u16] {
///         &[]
///     }
///     fn queue_events(&self) -> &[EventFd] {
///         &[]
///     }
///     fn notifier(&self) -> &Notifier {
///         &self.0
///     }
///     fn read_config(&self, _offset: usize, _data: &mut [u8]) {}
///     fn write_config(&self, _offset: usize, _data: &[u8]) {}
///     fn activate(&self, _features: u64, _queues: Vec<Queue>) -> Result<(), ActivateError> {
///         Ok(())
///     }
///     fn stop_queue(&self, _index: usize) {}
///     fn reset(&self) {}
///     fn in_flight(&self) -> bool {
///         false
///     }
/// }
///
/// let line = Arc::new(NotificationLine::new()?);
/// assert_eq!(Nothing(Notifier::new(line)).device_type(), 42);
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait VirtioDevice: Send + Sync {
    /// The device type (virtio 1.2, section 5): 2 is a block device.
    fn device_type(&self) -> u32;

    /// The feature bits that the device offers.
    fn device_features(&self) -> u64;

    /// The largest size of each queue, a power of two; as many entries as there are queues.
    fn queue_max_sizes(&self) -> &[u16];

    /// One eventfd a queue, to be registered as ioeventfd on the queue notify register.
    fn queue_events(&self) -> &[EventFd];

    /// What tells the device's driver of things.
    fn notifier(&self) -> &Notifier;

    /// Copies the configuration space from `offset` up to `data`, which the caller has zeroed;
    /// what lies behind the end of the space stays zero.
    fn read_config(&self, offset: usize, data: &mut [u8]);

    /// Changes the configuration space; what the driver may not change is ignored.
    fn write_config(&self, offset: usize, data: &[u8]);

    /// Counts the changes that the device made to its configuration space.
    fn config_generation(&self) -> u32 {
        0
    }

    /// Starts the device, with the features that were negotiated and all its queues. A queue that
    /// the driver did not set up is not [`ready`](virtio_queue::QueueT::ready); the others have
    /// been checked.
    ///
    /// # Errors
    ///
    /// Why the device cannot run like this. The transport then sets NEEDS_RESET.
    fn activate(&self, driver_features: u64, queues: Vec<Queue>) -> Result<(), ActivateError>;

    /// Stops one queue, and returns when nothing of it is in flight any more.
    fn stop_queue(&self, index: usize);

    /// Stops all queues, waits for what is in flight, and goes back to the initial state, the
    /// notifier included.
    fn reset(&self);

    /// Does on the calling thread what the queues ask for, and returns whether that used any
    /// buffers. For a thread that has nothing better to do and comes again: until
    /// [`serve_by_kicks`](Self::serve_by_kicks) the driver may not be asked to notify.
    fn serve_here(&self) -> bool {
        false
    }

    /// Ends helping. The device's own thread serves the queues again, and first of all what the
    /// driver has made available without a kick.
    fn serve_by_kicks(&self) {}

    /// Whether somebody takes its driver's kicks. A run with a device of which nobody does is not begun:
    /// its driver would wait for ever.
    fn is_attended(&self) -> bool {
        true
    }

    /// Called when the driver has not set the device up as it must, or has not gone on to DRIVER_OK when
    /// its guest waits for devices.
    fn refuse_start(&self, _why: ActivateError) {}

    /// What the driver did wrong, if that has stopped the device, or kept it from being started, and it
    /// has not been started since.
    fn fault(&self) -> Option<Arc<DeviceFault>> {
        None
    }

    /// Whether the device works, or is about to work, on what its driver has made available.
    ///
    /// When this is false every buffer that the driver has announced is in the used ring and
    /// counted in [`completions`](super::NotificationLine::completions): who waits for the line
    /// must look at that count after this call, and only then conclude that no one will raise it.
    fn in_flight(&self) -> bool;
}
