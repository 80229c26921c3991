//! Says of a run that failed by its guest which devices the guest's drivers had broken, or had never
//! started: whoever waits for such a device sees only that nothing comes.

use std::sync::Arc;

use super::RunError;
use crate::virtio::DeviceFault;

/// Adds to what the guest did wrong the `faults` of devices, which are told by their slots. An operation
/// that knows a device by a better name may have said its fault already.
pub(super) fn blame_drivers(error: RunError, faults: &[(usize, Arc<DeviceFault>)]) -> RunError {
    let RunError::Guest(said) = error else {
        return error;
    };
    let added = faults.iter().filter_map(|(slot, fault)| {
        let is_said = said.contains(&fault.to_string());
        (!is_said).then(|| format!("; {}", fault.of(&format!("the device in slot {slot}"))))
    });
    let added: String = added.collect();
    RunError::Guest(said + &added)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::{ActivateError, QueueFault};

    fn not_started(queue: usize) -> Arc<DeviceFault> {
        Arc::new(ActivateError::QueueNotReady(queue).into())
    }

    fn told(said: &str, faults: &[(usize, Arc<DeviceFault>)]) -> String {
        blame_drivers(RunError::Guest(said.to_owned()), faults).to_string()
    }

    #[test]
    fn each_device_that_a_driver_broke_is_told_with_its_slot_and_the_reason() {
        let fault = QueueFault::chain(7)(std::io::Error::other("no room"));
        let broken = Arc::new(DeviceFault::Queue(fault));
        let text = told("it waits", &[(0, not_started(1)), (2, broken)]);
        let expected = "it waits; the device in slot 0 did not start: queue 1 is not ready; the guest's \
                        driver broke a queue of the device in slot 2: cannot answer the request at \
                        descriptor 7: no room";
        assert_eq!(text, expected);
        assert_eq!(told("it waits", &[]), "it waits");
    }

    #[test]
    fn what_an_operation_has_said_is_not_said_again() {
        let said = "the input disk did not start: queue 0 is not ready";
        assert_eq!(told(said, &[(0, not_started(0))]), said);
        // Two devices may have the same fault.
        let both = told("it waits", &[(0, not_started(0)), (1, not_started(0))]);
        assert!(both.contains("slot 0") && both.contains("slot 1"), "{both}");
    }

    #[test]
    fn a_failure_of_the_host_is_left_as_it_is() {
        let error = blame_drivers(
            RunError::Died("a thread".to_owned()),
            &[(0, not_started(0))],
        );
        assert!(!error.to_string().contains("slot"), "{error}");
    }
}
