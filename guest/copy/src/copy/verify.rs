//! The digest of a copy, and the verification by it. Each piece is taken into the digest, in order,
//! before it is written; the disks work meanwhile. If it is wanted, the output is read back at the
//! end, and its digest compared with that of the input.

use alloc::string::String;

use guest_kit::hardware::{Ports, Registers};
use guest_kit::virtio::block::WIRE_SECTOR;
use guest_kit::virtio::requests::{Kind, MAX_REQUEST_SLOTS, Request, STATUS_OK};

use super::disks::DiskFault;
use super::engine::{Engine, SlotState, to_usize};
use crate::config::Side;
use guest_kit::digest::{Hasher, LEN};
use guest_kit::failure::{Failure, Op};
use guest_kit::progress::Observer;
use guest_protocol::hex;

/// The most zeros of a hole that the digest takes before the disks are looked at again, in bytes.
const ZEROS_AT_ONCE: u64 = 256 << 10;

impl<P: Ports, R: Registers, O: Observer> Engine<'_, '_, P, R, O> {
    /// Takes the next piece into the digest, if one is wanted and the piece has been read, and
    /// submits its write. Returns true if there was anything to do.
    pub(super) fn hash(&mut self) -> bool {
        let (index, slot) = (self.hashed, self.slot(self.hashed));
        let Some(hasher) = &mut self.extras.digest else {
            return false;
        };
        let ready = index < self.next && self.slots[usize::from(slot)] == SlotState::Read;
        if self.failed || !ready {
            return false;
        }
        let piece = self.selection.piece(index);
        let started = self.disks.ports.ticks();
        // Not all zeros of a hole at once: the disks are not to wait for it.
        if !hasher.zeros(piece.offset, ZEROS_AT_ONCE) {
            let buffer = usize::from(slot) * to_usize(self.plan.request_size());
            hasher.data(
                piece.offset,
                self.pool.bytes(buffer, to_usize(piece.read_len)),
            );
            self.hashed += 1;
            self.write_on(index, 0);
        }
        self.digest_ticks += self.disks.ports.ticks().saturating_sub(started);
        true
    }

    /// The digest of the input, if one is wanted, once everything is copied and flushed.
    pub(super) fn finish_digest(&mut self) -> Result<Option<[u8; LEN]>, Failure> {
        let Some(hasher) = self.extras.digest.take() else {
            return Ok(None);
        };
        let length = hasher.length();
        let started = self.disks.ports.ticks();
        let digest = hasher.finish();
        self.digest_ticks += self.disks.ports.ticks().saturating_sub(started);
        if self.extras.verify {
            let found = self.read_back(length)?;
            if found != digest {
                return Err(difference(&found, &digest));
            }
        }
        Ok(Some(digest))
    }

    /// The digest of the output's first `length` bytes.
    fn read_back(&mut self, length: u64) -> Result<[u8; LEN], Failure> {
        let mut hasher = Hasher::new(length);
        let sector = self.plan.output().sector;
        let length = length.next_multiple_of(u64::from(sector));
        match self.read_all(length, &mut hasher) {
            Ok(STATUS_OK) => Ok(hasher.finish()),
            Ok(status) => {
                let at = hasher.position() / u64::from(sector);
                Err(Failure::answered(
                    Op::Verify,
                    Side::Output.name(),
                    at,
                    status,
                ))
            }
            Err(fault) => Err(Failure {
                op: Op::Verify,
                ..self.fault(&fault)
            }),
        }
    }

    /// Reads the output's first `length` bytes in order; returns the status that ended it.
    fn read_all(&mut self, length: u64, hasher: &mut Hasher) -> Result<u8, DiskFault> {
        let size = u64::from(self.plan.request_size());
        let (pieces, depth) = (length.div_ceil(size), self.depth() as u64);
        let place = |index: u64| {
            let len = size.min(length - index * size);
            let slot = u16::try_from(index % depth).unwrap_or(0);
            (slot, u32::try_from(len).unwrap_or(0))
        };
        let mut ended = [None; MAX_REQUEST_SLOTS];
        let (mut done, mut next) = (0, 0);
        while done < pieces {
            while next < pieces && next - done < depth {
                let (slot, len) = place(next);
                let buffer = usize::from(slot) * to_usize(self.plan.request_size());
                let request = Request {
                    kind: Kind::Read,
                    sector: next * size / u64::from(WIRE_SECTOR),
                    address: self.pool.address(buffer),
                    len,
                };
                self.disks.output.submit(slot, request);
                next += 1;
            }
            self.disks.output.kick();
            let mut moved = false;
            while let Some(completion) = self.disks.complete(Side::Output)? {
                moved = true;
                ended[usize::from(completion.slot)] = Some(completion.status);
            }
            let (slot, len) = place(done);
            match ended[usize::from(slot)].take() {
                None => {}
                Some(STATUS_OK) => {
                    moved = true;
                    let buffer = usize::from(slot) * to_usize(self.plan.request_size());
                    hasher.data(done * size, self.pool.bytes(buffer, to_usize(len)));
                    done += 1;
                }
                // The run is over, whatever else is under way.
                Some(status) => return Ok(status),
            }
            if !moved {
                self.disks.wait(self.observer)?;
            }
        }
        Ok(STATUS_OK)
    }
}

/// The failure of an output whose bytes have another digest than the input's.
fn difference(found: &[u8], digest: &[u8]) -> Failure {
    // Not `format!`: the library's copy of it can unwind, for which a guest has nothing.
    let detail = String::from("what was read back has sha256 ") + &hex(found) + ", the input ";
    let detail = detail + &hex(digest);
    Failure::new(Op::Verify, Side::Output.name(), &detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_that_reads_otherwise_is_told_with_both_digests() {
        let failure = difference(&[0x0a, 0xff], &[0x00, 0x10]);
        let expected = "what was read back has sha256 0aff, the input 0010";
        assert_eq!(failure.detail, expected);
        assert_eq!(failure.device, "output");
    }
}
