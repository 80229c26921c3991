//! What the guest of a copy is told before it touches a disk.

use guest_protocol::{
    DataList, DeviceConfig, FrameError, HEADER_LEN, MAX_MESSAGE_LEN, VmmConfig, encode_framed,
};

use crate::config::{Config, ProgressPercent, Protocol, Sparse};
use crate::files::InputFile;

/// The most that a configuration can take.
const MAX_CONFIG: usize = HEADER_LEN + MAX_MESSAGE_LEN;

/// What the guest is told of the input beside its sector size.
#[derive(Clone, Debug)]
pub struct InputFacts {
    /// Its length in bytes.
    pub length: u64,
    /// Where it may have data.
    pub data: DataList,
    /// Whether the list leaves out holes, which the guest then has to find.
    pub coarse: bool,
}

impl InputFacts {
    /// What there is to know of `input`, as far as it matters for what is wanted.
    #[must_use]
    pub fn of(input: &InputFile, sparse: Sparse) -> Self {
        let length = input.len();
        match sparse {
            Sparse::Never => Self::of_data(length),
            Sparse::Auto | Sparse::Always => {
                let holes = input.holes();
                Self {
                    length,
                    data: holes.list,
                    coarse: holes.coarse,
                }
            }
        }
    }

    /// So many bytes of data.
    #[must_use]
    pub const fn of_data(length: u64) -> Self {
        Self {
            length,
            data: DataList::everything(),
            coarse: false,
        }
    }
}

/// The configuration for the guest, as a frame.
///
/// `reports` says whether anyone will see progress reports; if not, the guest is asked for none,
/// since each costs the wire.
///
/// # Errors
///
/// None in practice: the list of data is bounded, and the rest has a fixed shape, which fits.
pub fn config_frame(
    config: &Config,
    reports: bool,
    input: &InputFacts,
) -> Result<Vec<u8>, FrameError> {
    let device = |name: &str, size: u32| DeviceConfig {
        name: name.to_owned(),
        sector_size: size,
    };
    let progress = if reports {
        config.progress
    } else {
        ProgressPercent::NEVER
    };
    // What is read back is compared by its digest.
    let wants_digest = config.digest.is_some() || config.verify;
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
        sparse: match config.sparse {
            // Holes that are not listed are found as zeros.
            Sparse::Auto if input.coarse => guest_protocol::Sparse::Always,
            Sparse::Auto => guest_protocol::Sparse::Auto,
            Sparse::Always => guest_protocol::Sparse::Always,
            Sparse::Never => guest_protocol::Sparse::Never,
        }
        .into(),
        data: input.data.to_message(),
        digest: match wants_digest {
            true => guest_protocol::Digest::Sha256,
            false => guest_protocol::Digest::None,
        }
        .into(),
        verify: config.verify,
        digest_length: if wants_digest { input.length } else { 0 },
    };
    let mut frame = vec![0; MAX_CONFIG];
    let len = encode_framed(&message, &mut frame)?;
    frame.truncate(len);
    Ok(frame)
}
