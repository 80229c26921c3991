//! What the VMM wants: the message `VmmConfig` of proto/guest.proto, checked and completed with
//! defaults.
//!
//! The rest of the program can rely on every size: none is zero, sector sizes are powers of two,
//! and the request size is a multiple of both.

use core::fmt;

use guest_abi::limits::{MAX_REQUEST_SIZE, is_sector_size};
use guest_protocol::{DataList, Digest, Message, Protocol, Sparse, Transport, VmmConfig};
use thiserror::Error;

/// How many bytes a request covers if the configuration does not say it. It is a multiple of any
/// sector size.
const DEFAULT_REQUEST_SIZE: u32 = 65536;

/// One of the two disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The disk that is read.
    Input,
    /// The disk that is written.
    Output,
}

impl Side {
    /// Its name in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// The bytes are no message of the schema.
    #[error("the configuration is not a valid Protocol Buffers message")]
    Malformed,
    /// A disk is not named exactly once.
    #[error("the configuration names the {0} disk {1} times instead of once")]
    Named(Side, usize),
    /// A sector size is not a power of two, or too small or too large.
    #[error("sector size {1} of the {0} disk is not a power of two from 512 to 65536")]
    SectorSize(Side, u32),
    /// The request size does not suit the sectors or the pool.
    #[error(
        "request size {0} is not a multiple of both sector sizes of at most {MAX_REQUEST_SIZE}"
    )]
    RequestSize(u32),
    /// Progress is to be reported each so many percent, more than 100.
    #[error("progress is wanted each {0} percent, more than 100")]
    ProgressPercent(u32),
    /// The protocol is one that this guest does not speak.
    #[error("protocol {0} is not known")]
    Protocol(i32),
    /// The transport is one that this guest does not know.
    #[error("transport {0} is not known")]
    Transport(i32),
    /// The number for what is done with zeros means nothing to this guest.
    #[error("way {0} to deal with zeros is not known")]
    Sparse(i32),
    /// The bytes in the pool are no list of data.
    #[error("the {0} bytes in the data pool are no list of where there is data")]
    DataList(u32),
    /// This guest does not compute such a digest, or none is given although a verification needs
    /// one.
    #[error("digest {0} is not known or cannot be verified")]
    Digest(i32),
}

/// A configuration that can be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Sector size of the input disk in bytes.
    pub input_sector: u32,
    /// Sector size of the output disk in bytes.
    pub output_sector: u32,
    /// How often progress is reported: 0 is each ten sectors, 1 to 99 each that many percent, 100
    /// never.
    pub progress_percent: u32,
    /// In which form reports are sent.
    pub protocol: Protocol,
    /// The transport that carries the reports.
    pub transport: Transport,
    /// How many bytes a request covers: a multiple of both sector sizes, and not more than the pool
    /// has.
    pub request_size: u32,
    /// How many requests may be under way at once, at least 1.
    pub queue_depth: u32,
    /// Which zeros are declared and not written.
    pub sparse: Sparse,
    /// Where the input may have data, unless the list of it lies in the pool.
    pub data: DataList<'static>,
    /// The length of that list at the start of the pool in bytes, or 0 if there is none.
    pub data_in_pool: u32,
    /// Of how many bytes of the input a digest (SHA-256) is wanted, if one is.
    pub digest: Option<u64>,
    /// Whether the output is to be read back and compared. It takes a digest.
    pub verify: bool,
}

impl Config {
    /// Decodes the VMM's message and checks it.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first thing that is wrong with it.
    pub fn decode(message: &[u8]) -> Result<Self, ConfigError> {
        let message = VmmConfig::decode(message).map_err(|_| ConfigError::Malformed)?;
        let input_sector = sector_size(&message, Side::Input)?;
        let output_sector = sector_size(&message, Side::Output)?;
        let block = input_sector.max(output_sector);
        if message.progress_percent > 100 {
            return Err(ConfigError::ProgressPercent(message.progress_percent));
        }
        Ok(Self {
            input_sector,
            output_sector,
            progress_percent: message.progress_percent,
            protocol: Protocol::try_from(message.protocol)
                .map_err(|_| ConfigError::Protocol(message.protocol))?,
            transport: Transport::try_from(message.transport)
                .map_err(|_| ConfigError::Transport(message.transport))?,
            sparse: Sparse::try_from(message.sparse)
                .map_err(|_| ConfigError::Sparse(message.sparse))?,
            digest: digest(&message)?,
            verify: message.verify,
            data: DataList::from_message(&message.data),
            data_in_pool: message.data_in_pool,
            request_size: request_size(message.request_size, block)?,
            // 0 leaves it to the guest: as many as there is room for.
            queue_depth: match message.queue_depth {
                0 => u32::MAX,
                depth => depth,
            },
        })
    }
}

fn digest(message: &VmmConfig) -> Result<Option<u64>, ConfigError> {
    match Digest::try_from(message.digest) {
        Ok(Digest::Sha256) => Ok(Some(message.digest_length)),
        Ok(Digest::None) if !message.verify => Ok(None),
        _ => Err(ConfigError::Digest(message.digest)),
    }
}

fn sector_size(message: &VmmConfig, disk: Side) -> Result<u32, ConfigError> {
    let mut named = message
        .devices
        .iter()
        .filter(|device| device.name == disk.name());
    let (Some(device), None) = (named.next(), named.next()) else {
        let all = message.devices.iter();
        let count = all.filter(|device| device.name == disk.name()).count();
        return Err(ConfigError::Named(disk, count));
    };
    let size = device.sector_size;
    if !is_sector_size(size) {
        return Err(ConfigError::SectorSize(disk, size));
    }
    Ok(size)
}

/// `block` is the larger of two powers of two, so a multiple of it is a multiple of both.
fn request_size(wanted: u32, block: u32) -> Result<u32, ConfigError> {
    let size = match wanted {
        0 => DEFAULT_REQUEST_SIZE,
        size => size,
    };
    if !size.is_multiple_of(block) || size > MAX_REQUEST_SIZE {
        return Err(ConfigError::RequestSize(size));
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use guest_protocol::DeviceConfig;

    use super::*;

    fn message(devices: &[(&str, u32)]) -> VmmConfig {
        let device = |&(name, sector_size): &(&str, u32)| DeviceConfig {
            name: name.to_string(),
            sector_size,
        };
        VmmConfig {
            devices: devices.iter().map(device).collect(),
            ..VmmConfig::default()
        }
    }

    fn decode(message: &VmmConfig) -> Result<Config, ConfigError> {
        Config::decode(&message.encode_to_vec())
    }

    #[test]
    fn what_is_left_out_gets_its_default() {
        let config = decode(&message(&[("output", 4096), ("input", 512)])).unwrap();
        let expected = Config {
            input_sector: 512,
            output_sector: 4096,
            progress_percent: 0,
            protocol: Protocol::Protobuf,
            transport: Transport::Serial,
            request_size: 65536,
            queue_depth: u32::MAX,
            sparse: Sparse::Auto,
            data: DataList::everything(),
            data_in_pool: 0,
            digest: None,
            verify: false,
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn a_digest_is_of_as_many_bytes_as_the_file_has() {
        let mut config = message(&[("input", 512), ("output", 512)]);
        config.digest = Digest::Sha256.into();
        config.digest_length = 777;
        for verify in [false, true] {
            config.verify = verify;
            let config = decode(&config).unwrap();
            assert_eq!((config.digest, config.verify), (Some(777), verify));
        }
    }

    #[test]
    fn sector_sizes_other_than_powers_of_two_from_512_to_65536_are_refused() {
        for size in [0, 1, 256, 511, 513, 1000, 131_072, u32::MAX] {
            let error = decode(&message(&[("input", 512), ("output", size)])).unwrap_err();
            assert_eq!(error, ConfigError::SectorSize(Side::Output, size));
        }
    }

    #[test]
    fn each_disk_must_be_named_exactly_once() {
        let error = decode(&message(&[("output", 512)])).unwrap_err();
        assert_eq!(error, ConfigError::Named(Side::Input, 0));
        let twice = [("input", 512), ("output", 512), ("output", 512)];
        let error = decode(&message(&twice)).unwrap_err();
        assert_eq!(error, ConfigError::Named(Side::Output, 2));
    }

    #[test]
    fn a_request_size_must_be_a_multiple_of_both_sectors_and_fit_the_pool() {
        let mut config = message(&[("input", 512), ("output", 4096)]);
        for (size, good) in [
            (4096, true),
            (12_288, true),
            (512, false),
            (6144, false),
            (1 << 20, true),
            ((1 << 20) + 4096, false),
        ] {
            config.request_size = size;
            let result = decode(&config);
            match good {
                true => assert_eq!(result.unwrap().request_size, size),
                false => assert_eq!(result.unwrap_err(), ConfigError::RequestSize(size)),
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(Config::decode(&[0xff; 9]), Err(ConfigError::Malformed));
        let mut config = message(&[("input", 512), ("output", 512)]);
        config.progress_percent = 101;
        assert_eq!(decode(&config), Err(ConfigError::ProgressPercent(101)));
        config.progress_percent = 100;
        config.protocol = 7;
        assert_eq!(decode(&config), Err(ConfigError::Protocol(7)));
        config.protocol = 0;
        config.sparse = 3;
        assert_eq!(decode(&config), Err(ConfigError::Sparse(3)));
        config.sparse = 0;
        config.verify = true;
        assert_eq!(decode(&config), Err(ConfigError::Digest(0)));
        config.digest = 2;
        assert_eq!(decode(&config), Err(ConfigError::Digest(2)));
    }
}
