//! What the guest of a conversion is told: one message over COM1, with as much in it of where the
//! files have holes as there is room for.

use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

use guest_protocol::{DataList, FileData, MAX_MESSAGE_LEN, Message};

use super::Reports;
use crate::config::{ConvertConfig, DiskFormat};
use crate::files::{InputFile, ListBounds};
use crate::operations::ports::{configuration_frame, does_not_fit};
use crate::runtime::RunError;

/// What a list takes in the message beside what it takes by itself: the tag and the length of its
/// message, in bytes.
const OVERHEAD: usize = 4;

/// What the guest is told.
pub(super) struct Configuration {
    /// The message, as a frame.
    pub(super) frame: Vec<u8>,
    /// Where the files that are read are said to have data, in their order; nothing if nothing is said.
    pub(super) data: Vec<DataList<'static>>,
}

impl Configuration {
    /// # Errors
    ///
    /// What the user has given is longer than a message.
    pub(super) fn new(
        config: &ConvertConfig,
        inputs: &[Arc<InputFile>],
        reports: Reports,
    ) -> Result<Self, RunError> {
        let mut message = message(config, inputs, reports);
        let room = MAX_MESSAGE_LEN.saturating_sub(message.encoded_len());
        let data = match config.read_holes {
            true => Vec::new(),
            false => lists(inputs, room),
        };
        message.data = data.iter().map(in_message).collect();
        let frame = configuration_frame(&message).map_err(does_not_fit)?;
        Ok(Self { frame, data })
    }
}

/// Where each of `inputs` may have data, in `room` bytes of a message. What one file does not need the
/// others have.
fn lists(inputs: &[Arc<InputFile>], room: usize) -> Vec<DataList<'static>> {
    let mut lists: Vec<_> = inputs.iter().map(|input| list(input, room)).collect();
    let mut by_need: Vec<usize> = (0..lists.len()).collect();
    by_need.sort_by_key(|index| lists[*index].encoded_len());
    let mut left = room;
    for (dealt, index) in by_need.into_iter().enumerate() {
        let share = left / (inputs.len() - dealt);
        if lists[index].encoded_len() + OVERHEAD > share {
            lists[index] = list(&inputs[index], share);
        }
        left -= share.min(lists[index].encoded_len() + OVERHEAD);
    }
    lists
}

/// Where `input` may have data, in `room` bytes of a message.
fn list(input: &InputFile, room: usize) -> DataList<'static> {
    let room = room.saturating_sub(OVERHEAD);
    let list = input.holes(ListBounds::in_message(room)).list;
    // One range may be all that there is room for, and even that may be too long.
    match list.encoded_len() <= room {
        true => list,
        false => DataList::everything(),
    }
}

fn in_message(list: &DataList<'_>) -> FileData {
    FileData {
        lengths: list.to_message(),
    }
}

/// All of it but for the lists.
fn message(
    config: &ConvertConfig,
    inputs: &[Arc<InputFile>],
    reports: Reports,
) -> guest_protocol::ConvertConfig {
    let mut lengths = inputs.iter().map(|input| input.len());
    guest_protocol::ConvertConfig {
        progress_percent: reports.progress.percent().into(),
        input_length: lengths.next().unwrap_or(0),
        backing_lengths: lengths.collect(),
        input_format: config.claimed.map_or("", |format| format.name()).to_owned(),
        allow: config
            .allowed
            .iter()
            .map(|reason| reason.name().to_owned())
            .collect(),
        largest_disk: config.max_output_size,
        snapshot: config.snapshot.clone().unwrap_or_default().into_vec(),
        output_format: match config.output_format {
            DiskFormat::Raw => guest_protocol::ConvertFormat::Raw,
            DiskFormat::Qcow2 => guest_protocol::ConvertFormat::Qcow2,
        }
        .into(),
        digest: match config.digest {
            Some(_) => guest_protocol::Digest::Sha256,
            None => guest_protocol::Digest::None,
        }
        .into(),
        data: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;

    /// A file of 64 MiB with a byte at each of so many places.
    fn input(folder: &std::path::Path, places: u64) -> Arc<InputFile> {
        let path = folder.join(places.to_string());
        let file = File::create(&path).unwrap();
        file.set_len(64 << 20).unwrap();
        for place in 0..places {
            file.write_all_at(b"x", place * ((64 << 20) / places))
                .unwrap();
        }
        Arc::new(InputFile::open(&path, false).unwrap())
    }

    #[test]
    fn the_lists_of_all_files_have_room_in_what_is_left_of_a_message() {
        let folder = tempfile::tempdir().unwrap();
        let inputs: Vec<_> = [400, 3, 200]
            .map(|places| input(folder.path(), places))
            .into();
        for room in [0, 3, 20, 100, 1000, 3000] {
            let lists = lists(&inputs, room);
            assert_eq!(lists.len(), 3);
            let message = guest_protocol::ConvertConfig {
                data: lists.iter().map(in_message).collect(),
                ..Default::default()
            };
            // A list that says nothing takes two bytes.
            assert!(message.encoded_len() <= room.max(6), "{room}");
            for (list, places) in lists.iter().zip([400, 3, 200]) {
                for place in 0..places {
                    let at = place * ((64 << 20) / places);
                    let told = list.ranges(64 << 20).any(|range| range.contains(&at));
                    assert!(told, "{at} of {places} in {room}");
                }
            }
        }
        // What the short list leaves, and the file without holes, the others have.
        let whole = folder.path().join("whole");
        std::fs::write(&whole, [1; 5000]).unwrap();
        let whole = Arc::new(InputFile::open(&whole, false).unwrap());
        let inputs: Vec<_> = [whole.clone(), whole.clone(), inputs[0].clone(), whole].into();
        let dealt = lists(&inputs, 2000);
        assert_eq!(dealt[0], DataList::everything());
        assert_eq!(dealt[2], list(&inputs[2], 3000), "all of it fits");
    }
}
