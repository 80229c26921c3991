//! The ports that every guest of an operation has: COM1 for its configuration and its reports, COM2
//! for debug text, the exit port and the idle port.

use guest_abi::ports::{COM1, COM2, EXIT, IDLE, UART_DATA, UART_PORTS};
use guest_protocol::{FrameError, HEADER_LEN, MAX_MESSAGE_LEN, Message, encode_framed};

use crate::machine::{Machine, Ports, Slot, Vcpu};
use crate::runtime::{RunError, Runner, SerialPort};

/// Both serial ports.
pub(super) struct SerialPorts {
    com1: SerialPort,
    com2: SerialPort,
}

impl SerialPorts {
    /// The ports, with `configuration`, a frame, waiting to be received.
    pub(super) fn new(configuration: &[u8]) -> Result<Self, RunError> {
        let failed = RunError::host("make an eventfd");
        let ports = Self {
            com1: SerialPort::for_reports().map_err(failed)?,
            com2: SerialPort::for_debug().map_err(failed)?,
        };
        ports.com1.uart.queue_input(configuration);
        Ok(ports)
    }

    /// The port whose input can be the user's.
    pub(super) const fn com2(&self) -> &SerialPort {
        &self.com2
    }

    /// Completes `machine` with all ports and its guest. While the guest waits at the idle port, the
    /// vCPU's thread does the work of the devices in the slots `helped`.
    pub(super) fn boot(
        &self,
        mut machine: Machine,
        helped: impl IntoIterator<Item = Slot>,
        image: &[u8],
    ) -> Result<Vcpu, RunError> {
        for (first, port) in [(COM1, &self.com1), (COM2, &self.com2)] {
            let ports = Ports::new(first, UART_PORTS).posting_writes_to(UART_DATA);
            machine.add_pio(ports, port.uart.clone())?;
        }
        machine.add_exit_port(EXIT)?;
        machine.add_idle_port(IDLE, helped)?;
        Ok(machine.boot(image)?)
    }

    /// Has `runner` listen to both.
    pub(super) fn listen<'a>(&self, runner: Runner<'a>) -> Runner<'a> {
        runner.reports(&self.com1).debug(&self.com2)
    }
}

/// What the guest is told, as a frame.
pub(super) fn configuration_frame(message: &impl Message) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; HEADER_LEN + MAX_MESSAGE_LEN];
    let len = encode_framed(message, &mut frame)?;
    frame.truncate(len);
    Ok(frame)
}

/// Why a run does not begin whose configuration does not fit.
pub(super) fn does_not_fit(error: FrameError) -> RunError {
    RunError::Guest(format!(
        "the configuration does not fit into a frame: {error}"
    ))
}
