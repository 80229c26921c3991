//! The slow way, for what the pipeline does not take: clusters that are too large for the pool, or of
//! which only a part is needed, and bytes that do not begin at a sector. The processor waits for them
//! and copies them, while the disks go on with what they have to do.

use alloc::vec::Vec;

use guest_formats::Compressed;
use guest_kit::hardware::{Ports, Registers};

use crate::codec::{Fault, Pieces};
use crate::disks::{Disks, source_name};
use crate::failure::Failure;
use crate::{to_u64, to_usize};

/// How many compressed bytes are read at once.
const PIECE: usize = 32 << 10;

/// The last cluster that was inflated this way.
#[derive(Debug, Default)]
pub(super) struct Large {
    /// Which one: the disk, and the offset of its frame.
    of: Option<(usize, u64)>,
    bytes: Vec<u8>,
    piece: Vec<u8>,
}

impl Large {
    /// The bytes of a cluster from its `skip` on.
    pub(super) fn cluster<P: Ports, R: Registers>(
        &mut self,
        disks: &mut Disks<'_, P, R>,
        source: usize,
        cluster: &Compressed,
    ) -> Result<&[u8], Failure> {
        let wanted = Some((source, cluster.offset));
        if self.of != wanted {
            self.of = None;
            self.inflate(disks, source, cluster)?;
            self.of = wanted;
        }
        Ok(self.bytes.get(to_usize(cluster.skip)..).unwrap_or_default())
    }

    fn inflate<P: Ports, R: Registers>(
        &mut self,
        disks: &mut Disks<'_, P, R>,
        source: usize,
        cluster: &Compressed,
    ) -> Result<(), Failure> {
        let bad = |fault| super::bad_data(source_name(source), cluster.offset, fault);
        resize(&mut self.bytes, to_usize(cluster.size)).map_err(bad)?;
        resize(&mut self.piece, PIECE).map_err(bad)?;
        let mut head = [0; 12];
        let known = super::least(cluster.length, head.len());
        disks.read(source, cluster.offset, &mut head[..known])?;
        let payload = cluster.payload_within(&head[..known], cluster.length);
        let payload = payload.map_err(|error| Failure::format(source_name(source), &error))?;
        let mut pieces = Pieces::new(cluster.codec).map_err(bad)?;
        let mut at = payload.start;
        loop {
            let len = super::least(payload.end - at, self.piece.len());
            let piece = &mut self.piece[..len];
            disks.read(source, cluster.offset + at, piece)?;
            at += to_u64(len);
            let more = at < payload.end;
            if pieces.take(piece, &mut self.bytes, more).map_err(bad)? {
                break;
            }
        }
        if pieces.made() < to_usize(cluster.least) {
            return Err(bad(Fault::Data));
        }
        self.bytes[pieces.made()..].fill(0);
        Ok(())
    }
}

/// Makes room for `len` bytes, if there is.
fn resize(bytes: &mut Vec<u8>, len: usize) -> Result<(), Fault> {
    let more = len.saturating_sub(bytes.len());
    bytes.try_reserve_exact(more).map_err(|_| Fault::Memory)?;
    bytes.resize(len, 0);
    Ok(())
}
