//! What the guest of a copy is told before it touches a disk.

use guest_protocol::{DeviceConfig, FrameError, VmmConfig, encode_framed};

use crate::config::{Config, ProgressPercent, Protocol, Transport};

/// The most that a configuration can take: two short names and a few numbers.
const MAX_CONFIG: usize = 256;

/// With more progress reports than this, a console costs less than the serial port does: a console
/// takes some accesses to its registers and a thread, a report over the port as many bytes as it
/// has, of which each costs the host half a microsecond.
const MANY_REPORTS: u64 = 100;
/// The guest reports each so many sectors if its user does not say how many percent.
const SECTORS_A_REPORT: u64 = 10;

/// How the guest is to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reports {
    progress: ProgressPercent,
    by_console: bool,
}

impl Reports {
    /// The reports of a copy of `sectors` sectors. `wanted` says whether anyone will see those of
    /// progress; if not, the guest is asked for none, since each costs the wire.
    #[must_use]
    pub fn new(config: &Config, sectors: u64, wanted: bool) -> Self {
        let progress = if wanted {
            config.progress
        } else {
            ProgressPercent::NEVER
        };
        let by_console = match config.transport {
            Transport::Serial => false,
            Transport::Console => true,
            // Another guest need not know what a console is.
            Transport::Auto => config.guest.is_none() && count(progress, sectors) > MANY_REPORTS,
        };
        Self {
            progress,
            by_console,
        }
    }

    /// Whether they go through a virtio console.
    #[must_use]
    pub fn are_by_console(self) -> bool {
        self.by_console
    }
}

/// How many reports of progress the guest makes.
fn count(progress: ProgressPercent, sectors: u64) -> u64 {
    match progress.percent() {
        0 => sectors.div_ceil(SECTORS_A_REPORT),
        percent => u64::from(100 / percent).min(sectors),
    }
}

/// The configuration for the guest, as a frame.
///
/// # Errors
///
/// None in practice: the message has a fixed shape, which fits.
pub fn config_frame(config: &Config, reports: Reports) -> Result<Vec<u8>, FrameError> {
    let device = |name: &str, size: u32| DeviceConfig {
        name: name.to_owned(),
        sector_size: size,
    };
    let message = VmmConfig {
        devices: vec![
            device("input", config.input_sector_size.bytes()),
            device("output", config.output_sector_size.bytes()),
        ],
        progress_percent: reports.progress.percent().into(),
        protocol: match config.protocol {
            Protocol::Protobuf => guest_protocol::Protocol::Protobuf,
            Protocol::Text => guest_protocol::Protocol::Text,
        }
        .into(),
        request_size: config.requests.size,
        queue_depth: config.requests.depth,
        transport: match reports.by_console {
            false => guest_protocol::Transport::Serial,
            true => guest_protocol::Transport::Console,
        }
        .into(),
    };
    let mut frame = vec![0; MAX_CONFIG];
    let len = encode_framed(&message, &mut frame)?;
    frame.truncate(len);
    Ok(frame)
}
