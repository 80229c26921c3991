//! Finds out at which sector a request has failed.
//!
//! A request that covers many sectors fails as a whole. Its piece is copied once more, with a
//! request for each sector. This shows which sector is bad, and all before it is copied, whatever
//! else was under way when the request failed.

use super::engine::{Engine, to_usize};
use super::plan::Piece;
use crate::config::Side;
use guest_kit::failure::{Failure, Op};
use guest_kit::hardware::{Ports, Registers};
use guest_kit::progress::Observer;
use guest_kit::virtio::requests::{Request, STATUS_OK};

impl<P: Ports, R: Registers, O: Observer> Engine<'_, '_, P, R, O> {
    /// Copies `piece`, the first that is not copied, block by block. Nothing is under way.
    pub(super) fn retry(&mut self, piece: Piece) -> Result<(), Failure> {
        for block in self.plan.blocks(piece) {
            self.retry_block(block)?;
            self.copied = block.end();
            self.observer.done(self.count());
        }
        Ok(())
    }

    /// Reads a block sector by sector to the start of the pool, then writes it sector by sector.
    fn retry_block(&mut self, block: Piece) -> Result<(), Failure> {
        let len = self.plan.input().sector;
        for start in (0..block.read_len).step_by(to_usize(len)) {
            let sector = part(block, start, len);
            let request = self.read(sector, to_usize(start));
            self.run_sector(Side::Input, request, sector.offset / u64::from(len))?;
        }
        if let Some(hasher) = &mut self.extras.digest {
            let started = self.disks.ports.ticks();
            hasher.zeros(block.offset, u64::MAX);
            hasher.data(block.offset, self.pool.bytes(0, to_usize(block.read_len)));
            self.digest_ticks += self.disks.ports.ticks().saturating_sub(started);
        }
        self.fill_up(block, 0);
        let len = self.plan.output().sector;
        for start in (0..block.write_len).step_by(to_usize(len)) {
            let sector = part(block, start, len);
            let request = self.write(sector, to_usize(start));
            self.run_sector(Side::Output, request, sector.offset / u64::from(len))?;
        }
        Ok(())
    }

    /// Does the request for one sector of `disk`, whose number is `sector`.
    fn run_sector(&mut self, disk: Side, request: Request, sector: u64) -> Result<(), Failure> {
        let op = match disk {
            Side::Input => Op::Read,
            Side::Output => Op::Write,
        };
        match self.disks.run(disk, request, self.observer) {
            Ok(STATUS_OK) => Ok(()),
            Ok(status) => Err(Failure::answered(op, disk.name(), sector, status)),
            Err(fault) => Err(self.fault(&fault)),
        }
    }
}

/// The sector of `len` bytes that starts `start` bytes into `block`.
fn part(block: Piece, start: u32, len: u32) -> Piece {
    Piece {
        offset: block.offset + u64::from(start),
        read_len: len,
        write_len: len,
    }
}
