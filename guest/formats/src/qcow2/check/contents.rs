//! How much of the disk is stored in which way, by what the entries of its own tables say.

use crate::error::Error;
use crate::mapping::Contents;
use crate::qcow2::entry::{self, Entry};
use crate::qcow2::header::Header;
use crate::qcow2::map::SUBCLUSTERS;

impl Contents {
    /// Adds `bytes` bytes that the image does not have.
    pub(super) fn add_hole(&mut self, header: &Header, bytes: u64) {
        *self.hole(header) += bytes;
    }

    fn hole(&mut self, header: &Header) -> &mut u64 {
        match header.has_backing {
            true => &mut self.backing,
            false => &mut self.zero,
        }
    }

    /// Adds the `bytes` bytes of a cluster. The file has `end` bytes.
    pub(super) fn add_cluster(
        &mut self,
        header: &Header,
        decoded: Result<Entry, Error>,
        bitmap: u64,
        bytes: u64,
        end: u64,
    ) {
        let fault = |entry| header.extended_l2 && entry::check_bitmap(entry, bitmap, 0).is_err();
        let sum = match decoded {
            Err(_) => &mut self.lost,
            Ok(entry) if fault(entry) => &mut self.lost,
            Ok(Entry::Allocated(offset)) if offset >= end && !header.extended_l2 => &mut self.lost,
            Ok(Entry::Compressed { offset, length }) if !entry::is_inside(offset, length, end) => {
                &mut self.lost
            }
            Ok(Entry::Compressed { .. }) => &mut self.compressed,
            Ok(Entry::Zero(_)) => &mut self.zero,
            Ok(entry) if header.extended_l2 => {
                let is_lost = matches!(entry, Entry::Allocated(offset) if offset >= end);
                return self.add_subclusters(header, bitmap, bytes, is_lost);
            }
            Ok(Entry::Allocated(_)) => &mut self.data,
            Ok(Entry::Unallocated) => self.hole(header),
        };
        *sum += bytes;
    }

    /// Adds the subclusters of a cluster. If the cluster is lost, so are those that lie in it.
    fn add_subclusters(&mut self, header: &Header, bitmap: u64, bytes: u64, is_lost: bool) {
        let size = header.cluster_size() / SUBCLUSTERS;
        for index in 0..SUBCLUSTERS {
            let sum = match (bitmap >> index & 1, bitmap >> (SUBCLUSTERS + index) & 1) {
                (1, _) if is_lost => &mut self.lost,
                (1, _) => &mut self.data,
                (_, 1) => &mut self.zero,
                _ => self.hole(header),
            };
            *sum += size.min(bytes.saturating_sub(index * size));
        }
    }
}
