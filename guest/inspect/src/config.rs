//! What the VMM wants: the message `InspectConfig` of proto/guest.proto, checked.

use guest_formats::{Options, UnknownName};
use guest_protocol::{InspectConfig, InspectTask, Message};
use thiserror::Error;

/// Why a configuration cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// The bytes are no message of the schema.
    #[error("the configuration is not a valid Protocol Buffers message")]
    Malformed,
    /// The number of the task means nothing to this guest.
    #[error("task {0} is not known")]
    Task(i32),
    /// No format or no reason has the name that is given.
    #[error(transparent)]
    Name(#[from] UnknownName),
}

/// A configuration that can be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// What to do.
    pub task: InspectTask,
    /// The length of the image in bytes.
    pub length: u64,
    /// What the user says of the image, and overrides.
    pub options: Options,
}

impl Config {
    /// Decodes the VMM's message and checks it.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first thing that is wrong with it.
    pub fn decode(message: &[u8]) -> Result<Self, ConfigError> {
        let message = InspectConfig::decode(message).map_err(|_| ConfigError::Malformed)?;
        let task = InspectTask::try_from(message.task);
        Ok(Self {
            task: task.map_err(|_| ConfigError::Task(message.task))?,
            length: message.length,
            options: Options {
                largest_disk: match message.largest_disk {
                    0 => Options::LARGEST_DISK,
                    bytes => bytes,
                },
                ..Options::named(&message.format, &message.allowed)?
            },
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use guest_formats::{Format, Reason};

    use super::*;

    fn decode(message: &InspectConfig) -> Result<Config, ConfigError> {
        Config::decode(&message.encode_to_vec())
    }

    #[test]
    fn what_is_left_out_is_not_claimed_not_allowed_and_not_limited_further() {
        let config = decode(&InspectConfig::default()).unwrap();
        assert_eq!(config.task, InspectTask::Info);
        assert_eq!(config.options, Options::default());
    }

    #[test]
    fn formats_and_reasons_go_by_their_names() {
        let config = decode(&InspectConfig {
            format: "vhd".into(),
            allowed: vec!["backing-file".into(), "marked-dirty".into()],
            ..InspectConfig::default()
        });
        let options = config.unwrap().options;
        assert_eq!(options.claimed, Some(Format::Vhd));
        for reason in Reason::ALL {
            let expected = matches!(reason, Reason::BackingFile | Reason::DirtyBit);
            assert_eq!(options.allowed.contains(*reason), expected);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(Config::decode(&[0xff; 9]), Err(ConfigError::Malformed));
        let message = InspectConfig {
            task: 7,
            ..InspectConfig::default()
        };
        assert_eq!(decode(&message), Err(ConfigError::Task(7)));
        let message = InspectConfig {
            format: "qcow9".into(),
            ..InspectConfig::default()
        };
        let unknown = UnknownName::Format("qcow9".into());
        assert_eq!(decode(&message), Err(ConfigError::Name(unknown)));
        for name in ["", "data-file"] {
            let message = InspectConfig {
                allowed: vec![name.into()],
                ..InspectConfig::default()
            };
            let unknown = UnknownName::Reason(name.into());
            assert_eq!(decode(&message), Err(ConfigError::Name(unknown)));
        }
    }
}
