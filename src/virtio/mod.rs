//! Virtio devices (virtio 1.2): the shape that any device has, the MMIO transport, the worker that
//! all queues have in common, the block device and the console. Nothing here knows what the guest
//! does with them, nor which hypervisor runs it.

pub mod block;
mod chain;
pub mod console;
mod device;
mod mmio;
mod notify;
mod queue;
mod queue_config;
#[cfg(test)]
pub(crate) mod testing;
mod worker;

pub use chain::{Chain, ChainError, DescriptorTable};
pub use device::{ActivateError, VirtioDevice};
pub use mmio::MmioTransport;
pub use notify::{NotificationLine, Notifier};
pub use queue::{QueueError, UsedElement, needs_notification, publish_used};
pub use queue_config::{QueueConfig, QueueConfigError};
pub use worker::{DeviceFault, QueueCounters, QueueFault, QueueWorker, Service, Turn};
