//! What the VMM wants: the message `ConvertConfig` of proto/guest.proto, checked.

use alloc::vec::Vec;

use guest_abi::layout::MOST_BACKINGS;
use guest_formats::{Options, UnknownName};
use guest_protocol::{ConvertConfig, ConvertFormat, DataList, Digest, Message};
use thiserror::Error;

/// Why a configuration cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// The bytes are no message of the schema.
    #[error("the configuration is not a valid Protocol Buffers message")]
    Malformed,
    /// There are so many backing files, more than slots.
    #[error("{0} backing files are more than {MOST_BACKINGS}")]
    Backings(usize),
    /// No format or no reason has the name that is given.
    #[error(transparent)]
    Name(#[from] UnknownName),
    /// The field of this name has a number that means nothing.
    #[error("{0} {1} is not known")]
    Unknown(&'static str, i32),
    /// Progress is to be reported each so many percent, more than 100.
    #[error("progress is wanted each {0} percent, more than 100")]
    ProgressPercent(u32),
}

/// A configuration that can be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How often progress is reported: 0 is each ten sectors, 1 to 99 each that many percent, 100
    /// never.
    pub progress_percent: u32,
    /// The length of the input's file in bytes.
    pub input_length: u64,
    /// The lengths of the backing files in bytes.
    pub backing_lengths: Vec<u64>,
    /// Where the files may have data, the input's first. There may be fewer lists than files.
    pub data: Vec<DataList<'static>>,
    /// How to open the input.
    pub options: Options,
    /// The name or id of the snapshot to read. Empty if the disk is to be read as it is now.
    pub snapshot: Vec<u8>,
    /// The format of the output.
    pub output_format: ConvertFormat,
    /// Whether a digest is wanted.
    pub digest: bool,
}

impl Config {
    /// Decodes the VMM's message and checks it.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first thing that is wrong with it.
    pub fn decode(message: &[u8]) -> Result<Self, ConfigError> {
        let message = ConvertConfig::decode(message).map_err(|_| ConfigError::Malformed)?;
        if message.backing_lengths.len() > MOST_BACKINGS {
            return Err(ConfigError::Backings(message.backing_lengths.len()));
        }
        if message.progress_percent > 100 {
            return Err(ConfigError::ProgressPercent(message.progress_percent));
        }
        Ok(Self {
            progress_percent: message.progress_percent,
            input_length: message.input_length,
            backing_lengths: message.backing_lengths,
            data: message
                .data
                .iter()
                .map(|file| DataList::from_message(&file.lengths))
                .collect(),
            options: Options {
                largest_disk: message.largest_disk,
                ..Options::named(&message.input_format, &message.allow)?
            },
            snapshot: message.snapshot,
            output_format: ConvertFormat::try_from(message.output_format)
                .map_err(|_| ConfigError::Unknown("output format", message.output_format))?,
            digest: match Digest::try_from(message.digest) {
                Ok(Digest::None) => false,
                Ok(Digest::Sha256) => true,
                Err(_) => return Err(ConfigError::Unknown("digest", message.digest)),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use guest_formats::{Format, Reason};
    use guest_protocol::FileData;

    use super::*;

    fn decode(message: &ConvertConfig) -> Result<Config, ConfigError> {
        Config::decode(&message.encode_to_vec())
    }

    #[test]
    fn what_is_wanted_is_taken_over() {
        let config = decode(&ConvertConfig {
            input_length: 7,
            backing_lengths: vec![5, 6],
            data: vec![FileData {
                lengths: vec![3, 4],
            }],
            input_format: "qcow2".to_string(),
            allow: vec!["marked-dirty".to_string()],
            largest_disk: 1 << 40,
            digest: Digest::Sha256.into(),
            output_format: ConvertFormat::Qcow2.into(),
            ..ConvertConfig::default()
        });
        let config = config.unwrap();
        assert_eq!(config.options.claimed, Some(Format::Qcow2));
        assert_eq!(config.options.largest_disk, 1 << 40);
        assert!(config.options.allowed.contains(Reason::DirtyBit));
        assert!(!config.options.allowed.contains(Reason::CorruptBit));
        assert_eq!(config.backing_lengths, [5, 6]);
        assert_eq!(config.data, [DataList::from_message(&[3, 4])]);
        assert!(config.digest);
        assert_eq!(config.output_format, ConvertFormat::Qcow2);
    }

    #[test]
    fn as_many_backing_files_are_taken_as_a_machine_has_slots() {
        let with = |backings, percent| {
            decode(&ConvertConfig {
                backing_lengths: vec![1; backings],
                progress_percent: percent,
                ..ConvertConfig::default()
            })
        };
        assert_eq!(with(14, 100).unwrap().backing_lengths.len(), 14);
        assert_eq!(with(15, 100), Err(ConfigError::Backings(15)));
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(Config::decode(&[0xff; 9]), Err(ConfigError::Malformed));
        let with = |change: fn(&mut ConvertConfig)| {
            let mut message = ConvertConfig::default();
            change(&mut message);
            decode(&message).unwrap_err()
        };
        assert_eq!(
            with(|message| message.input_format = "tape".to_string()),
            ConfigError::Name(UnknownName::Format("tape".to_string()))
        );
        for name in ["", "data-file", "anything"] {
            let mut message = ConvertConfig::default();
            message.allow.push(name.to_string());
            let unknown = UnknownName::Reason(name.to_string());
            assert_eq!(decode(&message), Err(ConfigError::Name(unknown)));
        }
        assert_eq!(
            with(|message| message.backing_lengths = vec![0; 20]),
            ConfigError::Backings(20)
        );
        assert_eq!(
            with(|message| message.output_format = 9),
            ConfigError::Unknown("output format", 9)
        );
        assert_eq!(
            with(|message| message.digest = 9),
            ConfigError::Unknown("digest", 9)
        );
        assert_eq!(
            with(|message| message.progress_percent = 101),
            ConfigError::ProgressPercent(101)
        );
    }
}
