//! A VMM on rust-vmm crates that copies a disk inside a virtual machine, and the kit that it is
//! made of.
//!
//! A machine is a table of devices. What is added to it is what its guest may touch; then it is
//! given a guest image, and what comes of that is run, confined, by a [`runtime::Runner`]:
//!
//! ```standalone_crate
//! use vmm::machine::{Machine, open_kvm};
//! use vmm::report::Console;
//! use vmm::runtime::{JustRun, Runner};
//!
//! # fn main() -> Result<(), vmm::runtime::RunError> {
//! # if open_kvm().is_err() {
//! #     return Ok(());
//! # }
//! // mov dx, 0xf4; mov al, 0; out dx, al
//! let guest = [0x66, 0xba, 0xf4, 0x00, 0xb0, 0, 0xee];
//!
//! let mut machine = Machine::new(open_kvm()?, 0)?;
//! machine.add_exit_port(0xf4)?;
//! let outcome = Runner::new(machine.boot(&guest)?).run(&mut JustRun, Console::default())?;
//! assert!(outcome.result.is_ok());
//! # Ok(())
//! # }
//! ```
//!
//! The floors of the house, from the top; each uses only those below it:
//!
//! | module | what it is |
//! | --- | --- |
//! | [`cli`] | the command line |
//! | [`operations`] | what a run is for: a copy, a conversion, a look into an image, a check of the host |
//! | [`config`] | what the command line may ask for: values that are valid because they exist |
//! | [`runtime`] | threads, the main loop and the end of a run, whatever it is for |
//! | [`machine`] | KVM, memory, the table of devices, the vCPU |
//! | [`files`] | what lies behind disks, and the output's way to its name |
//! | [`virtio`], [`devices`] | the transport, the queues' worker and the virtio devices; port devices |
//! | [`report`] | what people and programs see of a run |
//! | [`storage`], [`sandbox`] | a disk's storage; confinement |
//! | [`quote`], [`reason`] | text that cannot be trusted; the system's reasons |

pub mod cli;
pub mod config;
pub mod devices;
pub mod files;
mod job;
mod limits;
mod lock;
pub mod machine;
pub mod operations;
pub mod quote;
mod ready;
pub mod reason;
mod repeat;
pub mod report;
pub mod runtime;
pub mod sandbox;
mod signal_mask;
mod stack_line;
pub mod storage;
pub mod virtio;
