//! Counts of the vCPU's exits to user space, by kind.

/// How often the vCPU has left for user space, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitCounts {
    /// Port input, the idle port excepted.
    pub pio_in: u64,
    /// Port output, the exit port included.
    pub pio_out: u64,
    /// Reads of device registers.
    pub mmio_read: u64,
    /// Writes of device registers.
    pub mmio_write: u64,
    /// Reads of the idle port.
    pub idle: u64,
    /// Signals and whatever else.
    pub other: u64,
    /// Bytes written that KVM kept until another exit; not exits themselves.
    pub coalesced: u64,
}

impl ExitCounts {
    /// All exits.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.pio_in + self.pio_out + self.mmio_read + self.mmio_write + self.idle + self.other
    }
}
