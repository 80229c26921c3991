//! What the guest of a copy is told before it touches a disk.

use guest_protocol::{DeviceConfig, FrameError, VmmConfig, encode_framed};

use crate::config::{Config, ProgressPercent, Protocol};

/// The most that a configuration can take: two short names and a few numbers.
const MAX_CONFIG: usize = 256;

/// The configuration for the guest, as a frame.
///
/// `reports` says whether anyone will see progress reports; if not, the guest is asked for none,
/// since each costs the wire.
///
/// # Errors
///
/// None in practice: the message has a fixed shape, which fits.
pub fn config_frame(config: &Config, reports: bool) -> Result<Vec<u8>, FrameError> {
    let device = |name: &str, size: u32| DeviceConfig {
        name: name.to_owned(),
        sector_size: size,
    };
    let progress = if reports {
        config.progress
    } else {
        ProgressPercent::NEVER
    };
    let message = VmmConfig {
        devices: vec![
            device("input", config.input_sector_size.bytes()),
            device("output", config.output_sector_size.bytes()),
        ],
        progress_percent: progress.percent().into(),
        protocol: match config.protocol {
            Protocol::Protobuf => guest_protocol::Protocol::Protobuf,
            Protocol::Text => guest_protocol::Protocol::Text,
        }
        .into(),
        request_size: config.requests.size,
        queue_depth: config.requests.depth,
        transport: guest_protocol::Transport::Serial.into(),
    };
    let mut frame = vec![0; MAX_CONFIG];
    let len = encode_framed(&message, &mut frame)?;
    frame.truncate(len);
    Ok(frame)
}
